"""Loops of a recipe: one compiled part that runs on slice after slice of tensors."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence

import torch

from tilewright.runtime.program import Program as CompiledProgram
from tilewright.runtime.threads import team
from tilewright.torch.parts import CompiledPart, maker
from tilewright.torch.recipe import Loop, Place, Tensors
from tilewright.torch.sizes import Numbers

ALIGNED = 64
"""Bytes of which the address of a result is a multiple, for the sake of streaming stores."""


class CompiledLoop(CompiledPart):
    """A loop: its part in machine code, which is entered once per step.

    Between two steps only addresses in the program's table change.
    """

    def __init__(self, loop: Loop, made: CompiledProgram, values: Numbers) -> None:
        super().__init__(loop.part, made, values)
        self.loop, self.times = loop, loop.steps
        self.allocate = [(b.slot, maker(b)) for b in loop.buffers]
        self.reads = list(enumerate(loop.reads))
        self.fills = [(entry, loop.fills[i]) for entry, i in (*self.outputs, *self.extra)]
        self.empty = any(0 in e.shape for e in loop.part.exports)

    def run(self, slots: Tensors) -> None:
        """Fill the slots of the results."""
        for slot, make in self.allocate:
            slots[slot] = make()
        self._start(slots)
        if self.empty:
            return
        tensors = self._read(slots)
        threads, size = self._room()
        space = self._take(size)
        try:
            status = self._steps(slots, tensors, space, threads)
        finally:
            self._give(space, size)
        if status:
            self.executable.fail(status)

    def _start(self, slots: Tensors) -> None:
        """What the first step reads as that which is there before it."""
        loop = self.loop
        first = loop.numbers()[0] if loop.steps else 0
        for place, value in loop.starts:
            here = slots[place.slot][place.slice(loop.steps, 0, first)]
            if value is None:
                here.zero_()
            else:
                here.copy_(slots[value])

    def _steps(self, slots: Tensors, tensors: Tensors, space: int, threads: int) -> int:
        """Run the steps; returns the program's status."""
        executable, loop = self.executable, self.loop
        results = [slots[place.slot] for _, place in self.fills]
        staged = self._staged(results)
        table = self.table(
            *[t.data_ptr() for t in tensors], *[0] * self.ready, *self.constants, space,
            *self.words, *[0] * len(self.extra))
        moving = [
            *_moving(self.reads, tensors),
            *_moving([f for f, s in zip(self.fills, staged, strict=True) if s is None],
                     [r for r, s in zip(results, staged, strict=True) if s is None])]
        behind = []
        for (entry, place), result, stage in zip(self.fills, results, staged, strict=True):
            if stage is not None:
                table[entry] = stage.data_ptr()
                behind.append((entry, place, result.data_ptr(), _bytes(result)))
        rest = (ctypes.addressof(table), threads, space + self.arena, executable.stride,
                executable.work.mode == 3)
        crew, count = team().address, loop.steps
        for run, number in enumerate(loop.numbers()):
            for entry, place, base, size in moving:
                table[entry] = base + size * place.slice(count, run, number)
            status = self.enter(crew, self.native.address, *rest)
            if status:
                return int(status)
            for to, source, extent in self.copies:
                ctypes.memmove(table[to], table[source], extent)
            for entry, place, base, size in behind:
                ctypes.memmove(
                    base + size * place.slice(count, run, number), table[entry], size)
        return 0

    def _staged(self, results: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
        """For each result whose slices are not aligned, where a step puts it first."""
        return [
            torch.empty_like(r[0])
            if _bytes(r) % ALIGNED or r.data_ptr() % ALIGNED else None for r in results]


def _moving(
    places: Sequence[tuple[int, Place]], tensors: Sequence[torch.Tensor]
) -> Iterator[tuple[int, Place, int, int]]:
    """Of the entries that change from step to step: place, address of the first slice, bytes."""
    for (entry, place), tensor in zip(places, tensors, strict=True):
        if place.offset is not None:
            yield entry, place, tensor.data_ptr(), _bytes(tensor)


def _bytes(tensor: torch.Tensor) -> int:
    """Of a slice along the first axis of a contiguous tensor."""
    return math.prod(tensor.shape[1:]) * tensor.element_size()
