"""Kernels in machine code: those that this process has, those of the disk cache, and new ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from tilewright.cache import Entry, cache, key_of
from tilewright.codegen.builder import Value
from tilewright.codegen.cpu.support import barrier
from tilewright.codegen.cpu.worker import Worker
from tilewright.codegen.emit import Emitted, emit_kernel
from tilewright.codegen.vecmath import MATH
from tilewright.compiler.kernels import digest
from tilewright.compiler.target import Target
from tilewright.ir.loops import Kernel

if TYPE_CHECKING:
    from tilewright.codegen.llvm import Code

MANY_LOOPS = 6
"""From this many loops on, LLVM's search for cheaper induction variables takes more time than all
the rest. Tiles of contractions have as many, and inner loops in which that search finds nothing."""


@dataclass(frozen=True)
class Callee:
    """What a caller needs to know of a kernel's function.

    symbol   its name, made from its text
    buffers  number of buffer parameters, then ``sizes`` numbers
    scratch  bytes of private memory that it needs per thread
    """

    symbol: str
    buffers: int
    sizes: int
    scratch: int

    @property
    def parameters(self) -> list[str]:
        """The types of the parameters."""
        return ["ptr"] * self.buffers + ["i64"] * self.sizes + ["i64", "i64", "ptr", "ptr"]

    @property
    def declaration(self) -> str:
        """The line that lets another module call it."""
        return f"declare void @{self.symbol}({', '.join(self.parameters)})"


_emitted: dict[tuple[Kernel, Target], Emitted] = {}
_callees: dict[str, Callee] = {}
_linked: dict[tuple[str, Target], Code] = {}
"""What this process has emitted, the functions of its kernels by key, and their code by symbol."""


def functions() -> dict[str, Callable[..., Value]]:
    """The vector functions by op name."""
    return MATH


def emitted(kernel: Kernel, target: Target) -> Emitted:
    """A kernel's text; what differs only in its name is emitted once."""
    key = (replace(kernel, name="", loc=None), target)
    found = _emitted.get(key)
    if found is None:
        found = _emitted[key] = emit_kernel(kernel, target, functions())
    return found


def callee_of(e: Emitted) -> Callee:
    """The function that is emitted."""
    return Callee(e.name, e.buffers, e.sizes, e.scratch)


def module_text(kernels: list[Emitted], rest: str, target: Target, more: set[str]) -> str:
    """A module with these kernels and ``rest``, and the barrier if they call it."""
    declarations = more.union(*(k.declarations for k in kernels))
    texts = [*(k.text for k in kernels), rest]
    if any("@tw_barrier(" in t for t in texts):
        text, needed = barrier(target.triple)
        declarations |= needed
        texts.insert(0, text)
    return "\n".join([*sorted(declarations), "", *texts, "!0 = !{i32 1}", ""])


def kernel_key(kernel: Kernel, target: Target) -> str:
    """Of all that the machine code of a kernel follows from."""
    from tilewright.codegen import llvm

    # The sizes of the caches are there for schedules, whose work is done.
    machine = replace(target, l1=0, l2=0, l3=0)
    return key_of("kernel", digest(kernel), repr(machine), llvm.version())


class Library:
    """Finds or makes the kernels of a program, while more of them are asked for.

    New ones are assembled on the worker's thread: LLVM runs without the interpreter's lock.
    ``images`` are the object files of those that are not linked yet.
    """

    def __init__(self, target: Target, worker: Worker[None]) -> None:
        self.target, self.worker = target, worker
        self.store = cache()
        self.images: dict[str, bytes] = {}
        self.begun: set[str] = set()
        self.found: dict[int, Callee] = {}

    def callee(self, kernel: Kernel) -> Callee:
        """The function of a kernel; whether it is linked, read or still made is no matter."""
        found = self.found.get(id(kernel))
        if found is None:
            key = kernel_key(kernel, self.target)
            found = _callees.get(key) or self._load(key) or self._make(key, kernel)
            self.found[id(kernel)] = _callees[key] = found
        return found

    def _load(self, key: str) -> Callee | None:
        """A kernel of the disk cache."""
        entry = self.store.load(key) if self.store is not None else None
        if entry is None:
            return None
        found = Callee(**entry.facts["callee"])
        if (found.symbol, self.target) not in _linked and found.symbol not in self.begun:
            self.begun.add(found.symbol)
            self.images[found.symbol] = entry.blobs[0]
        return found

    def _make(self, key: str, kernel: Kernel) -> Callee:
        """Begin to assemble a new kernel."""
        new = emitted(kernel, self.target)
        found = callee_of(new)
        if (found.symbol, self.target) not in _linked and found.symbol not in self.begun:
            self.begun.add(found.symbol)
            facts: dict[str, object] = {
                "kind": "kernel", "name": kernel.name, "target": self.target.name,
                "callee": asdict(found),
            }
            self.worker.submit(functools.partial(self._assemble, key, new, facts))
        return found

    def _assemble(self, key: str, kernel: Emitted, facts: dict[str, object]) -> None:
        from tilewright.codegen import llvm

        text = module_text([kernel], "", self.target, set())
        image = llvm.object_code(text, self.target, quick=kernel.loops >= MANY_LOOPS)
        self.images[kernel.name] = image
        if self.store is not None:
            self.store.store(key, Entry(facts, (image,)))

    def link(self, main: bytes, entry: str) -> tuple[Code, tuple[Code, ...]]:
        """Link what is new, and the program's ``main``, which has the symbol ``entry``.

        Returns the code that has the entry, and all that it needs.
        """
        from tilewright.codegen import llvm

        symbols = {c.symbol for c in self.found.values()}
        known = {s: _linked[s, self.target] for s in symbols if s not in self.images}
        imported = {symbol: code.address(symbol) for symbol, code in known.items()}
        code = llvm.Code([*self.images.values(), main], [entry, *self.images], imported)
        for symbol in self.images:
            _linked[symbol, self.target] = code
        return code, (code, *known.values())
