"""What the compiler knows of a machine: data, no code generation."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.errors import UserError


@dataclass(frozen=True)
class Gpu:
    """What schedules must know of a GPU beyond its :class:`Target`.

    architecture     ``sm_80``, ``sm_90a`` ...
    sm               its number: 80, 90
    tier             the best way to multiply matrices: ``ffma``, ``wmma``, ``mma``, ``async`` (mma
                     fed by cp.async) or ``wgmma`` (fed by TMA)
    ptx              the newest PTX that the driver reads: 80 for version 8.0
    multiprocessors  how many there are
    shared           bytes of shared memory that every block may use
    shared_most      bytes that a block may use if its launch asks for more
    shared_all       bytes of a multiprocessor, of which each resident block takes 1 KiB more than
                     it uses from sm_80 on
    registers        32-bit registers of a multiprocessor
    threads          resident threads of a multiprocessor, at most
    blocks           resident blocks of a multiprocessor, at most
    block_threads    threads of a block, at most
    thread_registers registers of a thread, at most
    warp             threads that run together
    device           what runs the code: ``sim``, ``cuda:0``
    """

    architecture: str
    sm: int
    tier: str
    ptx: int
    multiprocessors: int
    shared: int
    shared_most: int
    shared_all: int
    registers: int
    threads: int
    blocks: int
    block_threads: int = 1024
    thread_registers: int = 255
    warp: int = 32
    device: str = "sim"


@dataclass(frozen=True)
class Target:
    """A machine to compile for.

    vector_bytes  bytes of a vector register
    registers     number of vector registers
    l1, l2, l3    bytes of data cache of one core (l3: shared)
    masked        partial vectors are loaded and stored by masked instructions at full speed
    fma           has fused multiply-add
    contract      an elementwise sum may take a product unrounded; accumulated sums always may
    bf16_dot      has a bf16 dot product instruction (vdpbf16ps)
    triple, cpu, features   in LLVM's words
    fast_math     functions of f32 may be a GPU's approximations; a CPU has none
    tf32          a GPU may round the factors of f32 contractions to 10 bits of mantissa
    gpu           what there is to know if it is a GPU; the vector is then a thread's access to
                  memory, and the registers are a thread's
    """

    name: str
    vector_bytes: int
    registers: int
    l1: int
    l2: int
    l3: int
    triple: str
    cpu: str
    features: str
    masked: bool = True
    fma: bool = True
    bf16_dot: bool = False
    contract: bool = True
    fast_math: bool = False
    tf32: bool = False
    gpu: Gpu | None = None

    def lanes(self, itemsize: int) -> int:
        """Elements of this many bytes in a vector register."""
        return max(1, self.vector_bytes // itemsize)


DEVICES = ("sim", "cuda", "pycuda")
"""What runs code for a GPU, as the first part of a target's name."""


OTHER_WORDS = {"gpu": "cuda", "nvidia": "cuda", "simulator": "sim", "host": "cpu"}
"""What people call a target that has another name."""


def meant(name: str, known: Sequence[str]) -> str | None:
    """A question for whoever wrote the name of no target or device: which one was meant."""
    word, colon, rest = name.lower().partition(":")
    if word.startswith("sm_"):
        return f"did you mean 'sim:{word}'?"
    near = difflib.get_close_matches(OTHER_WORDS.get(word, word), known, 1, 0.75)
    if not near:
        return None
    numbered = near[0] == "cuda" and rest.isdecimal()
    return f"did you mean {near[0] + (colon + rest if numbered else '')!r}?"


def checked_name(name: object, what: str) -> str:
    """The name of a target or device. Raises ``UserError`` for what is no text."""
    if isinstance(name, str):
        return name
    raise UserError(
        f"{what} is given by its name", expected="a text such as 'sim', 'cuda' or 'cuda:1'",
        got=f"{name!r}, of type {type(name).__name__}")


def is_gpu(name: str) -> bool:
    """Whether a target's name is a GPU's: ``sim``, ``sim:sm_80``, ``cuda``, ``cuda:1``, ``pycuda``.
    """
    return name.partition(":")[0] in DEVICES


def device_of(name: str) -> str | None:
    """The device of a target's name: ``sim`` for ``sim:sm_80``, ``cuda:0`` for ``cuda``; None: the
    CPU.
    """
    kind = name.partition(":")[0]
    if kind == "cuda":
        return "cuda:0" if name == kind else name
    return kind if kind in DEVICES else None
