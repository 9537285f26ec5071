"""Compiled parts: machine code that runs on the memory of tensors."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tilewright.compiler.bind import bind
from tilewright.compiler.pipeline import Compiled
from tilewright.compiler.plan import Plan
from tilewright.errors import CompilerBug, UserError
from tilewright.frontend.compiled import find_target
from tilewright.frontend.reproducer import compiler_bug
from tilewright.runtime.executable import Executable, SizedExecutable
from tilewright.runtime.pool import pool
from tilewright.runtime.program import Program as CompiledProgram
from tilewright.runtime.program import program_key
from tilewright.runtime.support import support
from tilewright.runtime.threads import team, threads_now
from tilewright.torch.numerics import graph_for, target_for
from tilewright.torch.openmp import release_threads
from tilewright.torch.recipe import Export, Part, Tensors
from tilewright.torch.sizes import Numbers

empty_strided = torch._C._dynamo.guards._empty_strided_cpu
reinterpret = torch._C._dynamo.guards._reinterpret_tensor

POOLED_FROM = 1 << 20
"""Bytes from which a result's memory comes from our pool: fresh pages cost more than the work."""

LITTLE = 1 << 13
"""Bytes of scratch memory that a part keeps for its next run: the pool takes 3 us."""

_alike: weakref.WeakValueDictionary[str, CompiledProgram] = weakref.WeakValueDictionary()
"""Programs of this process by what they follow from."""


def compile_part(
    part: Part, target_name: str | None, numerics: str, hints: Numbers | None = None
) -> CompiledProgram:
    """The machine code of a part, for all numbers of its named sizes; ``hints`` are likely ones.

    Equal parts are compiled once. Raises ``CompilerBug`` if the compiler fails.
    """
    at = {slot: i for i, slot in enumerate(part.inputs)}
    updates = {i: at[e.into] for i, e in enumerate(part.exports) if e.into is not None}
    target = None
    try:
        target = target_for(find_target(target_name), numerics)
        graph = graph_for(part.graph, numerics)
        key = program_key(graph, target, (), updates, hints or {})
        known = _alike.get(key)
        if known is not None:
            return known.twin(graph)
        made = _alike[key] = CompiledProgram(graph, target, updates=updates, hints=hints)
        return made
    except (UserError, CompilerBug, ImportError):
        raise
    except Exception as error:
        compiler_bug(part.graph, target, (), error, hints)


class CompiledPart:
    """A part in machine code; it runs on the tensors in the slots of its inputs.

    ``values`` are the numbers of its named sizes.
    """

    times = 1
    """How often a run of the program runs it."""

    def __init__(self, part: Part, made: CompiledProgram, values: Numbers) -> None:
        self.spare: list[int] = []
        self.pool = pool()  # for its last hour: names of modules may be gone before it
        self.part, self.made, self.native, self.values = part, made, made.native, values
        executable: Any = made.executable
        if isinstance(executable, SizedExecutable):
            executable = executable.bound(tuple(values[n] for n in executable.plan.sizes))
        self.executable: Executable = executable
        layout = executable.layout
        self.words = executable.plan.words
        self.inputs = [(slot, i in part.copied) for i, slot in enumerate(part.inputs)]
        self.plain = not part.copied
        self.lazy = sorted(part.lazy)
        self.constants = [c.__array_interface__["data"][0] for c in executable.constants]
        self.table = ctypes.c_int64 * layout.entries
        self.arena = executable.arena
        native = support()
        self.enter = native.run if executable.work.mode else native.run_here
        self.copies = layout.copies
        # The table holds inputs, outputs, constants, the arena, and then results that are copies.
        places: dict[int, int] = {}
        for i, source in enumerate(layout.sources):
            if source.kind == "fresh":
                places[i] = layout.fresh[source.index].entry
        first = len(executable.plan.inputs)
        self.outputs = sorted((e, i) for i, e in places.items() if e < layout.constants_at)
        assert [e for e, _ in self.outputs] == list(range(first, layout.constants_at))
        self.extra = sorted((e, i) for i, e in places.items() if e >= layout.constants_at)
        self.make = [maker(part.exports[i]) for _, i in (*self.outputs, *self.extra)]
        self.fill = [part.exports[i].slot for _, i in (*self.outputs, *self.extra)]
        self.ready = len(self.outputs)
        self.kept = [
            (part.exports[i].slot, part.inputs[s.index])
            for i, s in enumerate(layout.sources) if s.kind == "input"
        ]
        self.restride = [(e.slot, e.shape, e.copied) for e in part.exports if e.copied is not None]

    def _read(self, slots: Tensors) -> Tensors:
        """The tensors that it reads, those contiguous that must be."""
        if self.plain:
            tensors = [slots[s] for s, _ in self.inputs]
        else:
            tensors = [slots[s].contiguous() if c else slots[s] for s, c in self.inputs]
        for i in self.lazy:
            tensors[i] = tensors[i].resolve_conj().resolve_neg()
        return tensors

    def _room(self) -> tuple[int, int]:
        """The number of threads of a run, and the bytes of its scratch memory."""
        work, threads = self.executable.work, 1
        if work.mode >= 2:
            threads = max(1, min(threads_now(), work.most_threads))
        if threads > 1 and work.mode == 3:
            release_threads()
        size = self.arena + threads * self.executable.stride
        if size >= POOLED_FROM:
            # Forward and backward, and other models, take turns at one block; pages of it that
            # nobody touches take no memory.
            size = 1 << (size - 1).bit_length()
        return threads, size

    def _take(self, size: int) -> int:
        """Scratch memory for a run; a little of it comes from the part itself."""
        if not size:
            return 0
        if size > LITTLE:
            return self.pool.take(size)
        try:
            return self.spare.pop()
        except IndexError:
            return self.pool.take(LITTLE)

    def _give(self, space: int, size: int) -> None:
        if size > LITTLE:
            self.pool.give(space)
        elif size:
            self.spare.append(space)

    def __del__(self) -> None:
        for space in self.spare:
            self.pool.give(space)

    @property
    def program(self) -> Compiled:
        """The stages of the compilation; it is done now if the disk cache had its outcome."""
        return self.made.compiled

    @property
    def plan(self) -> Plan:
        """The plan with its launches, for these numbers of its named sizes."""
        return bind(self.made.compiled.plan, self.values)

    def run(self, slots: Tensors) -> None:
        """Fill the slots of the results."""
        tensors = self._read(slots)
        for slot, source in self.kept:
            # Results are stored in place with aligned vectors.
            if slots[source].data_ptr() & 63:
                i = self.part.inputs.index(source)
                tensors[i] = slots[source].clone()
                slots[slot] = tensors[i]
            else:
                slots[slot] = slots[source]
        made = [make() for make in self.make]
        addresses = [t.data_ptr() for t in tensors]
        results = [t.data_ptr() for t in made]
        executable = self.executable
        threads, size = self._room()
        space = self._take(size)
        try:
            table = self.table(
                *addresses, *results[:self.ready], *self.constants, space, *self.words,
                *results[self.ready:])
            status = self.enter(
                team().address, self.native.address, ctypes.addressof(table), threads,
                space + self.arena, executable.stride, executable.work.mode == 3,
            )
            for to, source, count in self.copies:
                ctypes.memmove(table[to], table[source], count)
        finally:
            self._give(space, size)
        if status:
            executable.fail(status)
        for slot, tensor in zip(self.fill, made, strict=True):
            slots[slot] = tensor
        for slot, shape, strides in self.restride:
            slots[slot] = empty_strided(shape, strides, slots[slot].dtype).copy_(slots[slot])


def maker(export: Export) -> Callable[[], torch.Tensor]:
    """What allocates the tensor of a result."""
    shape, strides, dtype = export.shape, export.strides, export.dtype
    extent = 1 + sum((d - 1) * s for d, s in zip(shape, strides, strict=True))
    bytes = extent * dtype.itemsize if 0 not in shape else 0
    if bytes < POOLED_FROM:
        return lambda: empty_strided(shape, strides, dtype)
    memory, plain = pool(), np.dtype(np.uint8)

    def make() -> torch.Tensor:
        flat = torch.from_numpy(memory.array((bytes,), plain)).view(dtype)
        return reinterpret(flat, shape, strides, 0)  # no view: it may be changed in place
    return make
