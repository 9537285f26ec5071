"""Every switch, typed; the only reader of ``os.environ``."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright.errors import UserError


def count(text: str) -> int:
    """A whole number, 0 or more. Raises ``ValueError`` for any other text."""
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


@dataclass(frozen=True)
class Switch:
    """A switch: its environment variable, how the text is read, its default, and what it does."""

    name: str
    read: Callable[[str], Any]
    default: Any
    meaning: str

    @property
    def variable(self) -> str:
        return f"TILEWRIGHT_{self.name.upper()}"


SWITCHES: dict[str, Switch] = {s.name: s for s in (
    Switch("debug", count, 0, "1: a line per compile; 2: time per pass; 3: the IR after every pass "
                            "that changed it; 4: LLVM IR and assembly as well, and the verifier "
                            "between passes"),
    Switch("num_threads", count, 0, "threads of a program; 0: the cores this process may use"),
    Switch("target", str, "", "CPU tier: sse2, avx2, avx512; or cuda, cuda:1, pycuda, a GPU; or "
                                "sim, a simulated one; empty: the best that the host has"),
    Switch("fast_math", count, 0, "1: on a GPU, functions of f32 are the machine's approximations "
                                  "(exp, log, tanh, sin, cos, division, square root)"),
    Switch("tf32", count, 0, "1: on a GPU with tensor cores, contractions of f32 keep 10 bits "
                             "of the mantissa of their factors (TF32); sums stay f32"),
    Switch("cache", str, "", "folder of the disk cache; empty: tilewright's in the user's folder "
                             "for caches; off: none"),
    Switch("cache_size", count, 512, "MiB that the disk cache may take, about; what was not used "
                                     "longest goes first"),
    Switch("verify", count, 0, "1: run the verifier after every pass"),
    Switch("reproducers", str, "", "folder for the reproducers of compiler bugs; empty: the "
                                   "temporary folder"),
)}

_values: dict[str, Any] = {}


def get(name: str) -> Any:
    """The value in force: an override, else the environment variable, else the default.

    Raises ``UserError`` for an environment variable that cannot be read.
    """
    if name in _values:
        return _values[name]
    switch = SWITCHES[name]
    text = os.environ.get(switch.variable)
    if text is None or text == "":
        return switch.default
    try:
        return switch.read(text)
    except ValueError:
        raise UserError(
            f"the environment variable {switch.variable} cannot be read",
            expected="a whole number, 0 or more",
            got=repr(text),
            hint=switch.meaning,
        ) from None


def source(name: str) -> str:
    """Where the value in force comes from: ``override``, the environment variable, ``default``."""
    if name in _values:
        return "override"
    return SWITCHES[name].variable if os.environ.get(SWITCHES[name].variable) else "default"


def cache_folder() -> Path | None:
    """Where the disk cache is, if there is to be one and the user has a folder for such things."""
    text: str = get("cache")
    if text.lower() in ("off", "0", "no", "false"):
        return None
    try:
        if text:
            return Path(text).expanduser()
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return Path(local or Path.home() / "AppData" / "Local") / "tilewright" / "cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "tilewright"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tilewright"
    except RuntimeError:  # there is no home
        return None


def cuda_tool(name: str) -> Path | None:
    """Where one of NVIDIA's programs is: on PATH, or in the toolkit that CUDA_HOME or CUDA_PATH,
    NVIDIA's own variables, point to.
    """
    toolkits = (os.environ.get(variable) for variable in ("CUDA_HOME", "CUDA_PATH"))
    for folder in (None, *(str(Path(t) / "bin") for t in toolkits if t)):
        found = shutil.which(name, path=folder)
        if found is not None:
            return Path(found)
    return None


def cuda_waits() -> bool:
    """Whether the CUDA driver waits for every kernel (CUDA_LAUNCH_BLOCKING, NVIDIA's variable)."""
    return os.environ.get("CUDA_LAUNCH_BLOCKING", "0") not in ("", "0")


@contextmanager
def override(**values: Any) -> Iterator[None]:
    """Switch values in force inside a ``with`` block."""
    unknown = set(values) - set(SWITCHES)
    if unknown:
        raise KeyError(f"no such switch: {sorted(unknown)}; there are {sorted(SWITCHES)}")
    before = dict(_values)
    _values.update(values)
    try:
        yield
    finally:
        _values.clear()
        _values.update(before)
