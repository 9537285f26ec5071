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
_kernels: dict[str, Entry] = {}
_linked: dict[tuple[str, Target], Code] = {}
"""What this process has emitted, its kernels by key, and their code by symbol."""


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


def callee_in(entry: Entry) -> Callee:
    """The function in an entry of the disk cache."""
    return Callee(**entry.facts["callee"])


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

    keys     of the kernels that were asked for
    entries  of those that this process did not have
    """

    def __init__(self, target: Target, worker: Worker[None]) -> None:
        self.target, self.worker = target, worker
        self.store = cache()
        self.keys: dict[str, Callee] = {}
        self.entries: dict[str, Entry] = {}
        self.found: dict[int, Callee] = {}

    def callee(self, kernel: Kernel) -> Callee:
        """The function of a kernel; whether it is linked, read or still made is no matter."""
        found = self.found.get(id(kernel))
        if found is None:
            key = kernel_key(kernel, self.target)
            found = self.keys.get(key) or self._find(key) or self._make(key, kernel)
            self.found[id(kernel)] = self.keys[key] = found
        return found

    def known(self, key: str) -> bool:
        """Whether this process or the disk cache has the kernel of a key; it is used if so."""
        found = self._find(key)
        if found is not None:
            self.keys[key] = found
        return found is not None

    def _find(self, key: str) -> Callee | None:
        entry = _kernels.get(key)
        if entry is None and self.store is not None:
            entry = self.store.load(key)
            if entry is not None:
                self.entries[key] = entry
        return None if entry is None else callee_in(entry)

    def _make(self, key: str, kernel: Kernel) -> Callee:
        """Begin to assemble a new kernel."""
        new = emitted(kernel, self.target)
        self.worker.submit(functools.partial(self._assemble, key, new, kernel.name))
        return callee_of(new)

    def _assemble(self, key: str, kernel: Emitted, name: str) -> None:
        from tilewright.codegen import llvm

        text = module_text([kernel], "", self.target, set())
        image = llvm.object_code(text, self.target, quick=kernel.loops >= MANY_LOOPS)
        self.entries[key] = Entry({
            "kind": "kernel", "name": name, "target": self.target.name,
            "callee": asdict(callee_of(kernel)),
        }, (image,))

    def link(self, main: bytes, entry: str) -> tuple[Code, tuple[Code, ...]]:
        """Link what is new, and the program's ``main``, which has the symbol ``entry``.

        Returns the code that has the entry, and all that it needs.
        """
        from tilewright.codegen import llvm

        images = {
            symbol: made.blobs[0] for made in self.entries.values()
            if ((symbol := callee_in(made).symbol), self.target) not in _linked
        }
        symbols = {c.symbol for c in self.keys.values()}
        known = {s: _linked[s, self.target] for s in symbols if s not in images}
        imported = {symbol: code.address(symbol) for symbol, code in known.items()}
        code = llvm.Code([*images.values(), main], [entry, *images], imported)
        for symbol in images:
            _linked[symbol, self.target] = code
        _kernels.update(self.entries)
        self._keep()
        return code, (code, *known.values())

    def _keep(self) -> None:
        """Store what the disk cache lacks, be it new, evicted, or made for another folder."""
        for key in self.keys if self.store is not None else ():
            if not self.store.has(key):  # type: ignore[union-attr]
                self.store.store(key, _kernels[key])  # type: ignore[union-attr]
