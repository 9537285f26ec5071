"""The runtime's own machine code, assembled once per process, and its memory blocks."""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.runtime import (
    machine,
    native_call,
    native_match,
    native_pool,
    native_prepare,
    native_team,
    native_text,
)

FUNCTIONS = ("tw_worker", "tw_run", "tw_dismiss", "tw_take", "tw_give", "tw_trim", "tw_call",
             "tw_give_capsule")


@dataclass(frozen=True)
class Support:
    """Python's handles of the machine code.

    worker, run, dismiss   release the interpreter lock while they run
    run_here, take, give, trim   keep it
    call_address           of the C function of the native call
    """

    worker: Any
    run: Any
    dismiss: Any
    run_here: Any
    take: Any
    give: Any
    trim: Any
    call_address: int


def native_source(system: str = sys.platform, machine_name: str = platform.machine()) -> str:
    """The LLVM IR of the runtime for a platform, named as ``sys`` and ``platform`` do."""
    texts = (
        native_team.team_text(system, machine_name),
        native_pool.pool_text(system),
        native_match.match_text(),
        native_prepare.prepare_text(),
        native_call.call_text(native_match.FRAME_WORDS),
    )
    places: tuple[dict[str, int], ...] = (
        native_team.PLACES, native_pool.PLACES, {}, native_prepare.PLACES, native_prepare.PLACES,
    )
    return "\n".join(
        native_text.expand(text, {**native_match.PLACES, **own})
        for text, own in zip(texts, places, strict=True)
    )


@functools.cache
def support() -> Support:
    """The machine code; assembled at the first use."""
    address = machine.load(native_source(), FUNCTIONS)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    run = (number, pointer, pointer, pointer, number, pointer, number, ctypes.c_bool)
    free, held = ctypes.CFUNCTYPE, ctypes.PYFUNCTYPE
    return Support(
        worker=free(None, pointer, pointer, number, number)(address["tw_worker"]),
        run=free(*run)(address["tw_run"]),
        dismiss=free(number, pointer)(address["tw_dismiss"]),
        run_here=held(*run)(address["tw_run"]),
        take=held(pointer, pointer, number)(address["tw_take"]),
        give=held(None, pointer)(address["tw_give"]),
        trim=held(None, pointer, number)(address["tw_trim"]),
        call_address=address["tw_call"],
    )


def words(count: int, align: int = 64) -> np.ndarray:
    """Zeroed i64[count], aligned."""
    raw = np.zeros(count + align // 8, np.int64)
    skip = -raw.ctypes.data % align // 8
    return raw[skip:skip + count]
