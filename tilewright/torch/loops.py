"""Loops of a recipe: one compiled part that runs on slice after slice of tensors."""

from __future__ import annotations

import ctypes
import functools
import math

import numpy as np
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
        self.empty = not loop.steps or any(0 in e.shape for e in loop.part.exports)

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
        table = np.array([
            *[t.data_ptr() for t in tensors], *[0] * self.ready, *self.constants, space,
            *self.words, *[0] * len(self.extra)], np.int64)
        moves = np.zeros((2, len(table)), np.int64)
        for (entry, place), tensor in zip(self.reads, tensors, strict=True):
            if place.offset is not None:
                table[entry], moves[:, entry] = self._moved(place, tensor)
        behind = []
        for (entry, place), result in zip(self.fills, results, strict=True):
            if self._staged(result):
                stage = torch.empty_like(result[0])
                table[entry] = stage.data_ptr()
                behind.append((stage, place, result))
            else:
                table[entry], moves[:, entry] = self._moved(place, result)
        rest = (table.ctypes.data, threads, space + self.arena, executable.stride,
                executable.work.mode == 3)
        enter, add, crew, native = self.enter, np.add, team().address, self.native.address
        for run, number in enumerate(loop.numbers()):
            if run:
                add(table, moves[run & 1], table)
            status = enter(crew, native, *rest)
            if status:
                return int(status)
            for to, source, extent in self.copies:
                ctypes.memmove(int(table[to]), int(table[source]), extent)
            for stage, place, result in behind:
                result[place.slice(loop.steps, run, number)] = stage
        return 0

    def _moved(self, place: Place, tensor: torch.Tensor) -> tuple[int, tuple[int, int]]:
        """The address of the first step's slice; how far even and odd steps are behind others."""
        loop, size = self.loop, _bytes(tensor)
        slices = [place.slice(loop.steps, run, i) for run, i in enumerate(loop.numbers()[:2])]
        step = size * (slices[-1] - slices[0])
        return tensor.data_ptr() + size * slices[0], (-step if place.ring else step, step)

    def _staged(self, result: torch.Tensor) -> bool:
        """Whether a step puts a result elsewhere first, because its slices are not aligned.

        Only results beyond the caches are stored in a way that asks for it.
        """
        aligned = _bytes(result) % ALIGNED == 0 and result.data_ptr() % ALIGNED == 0
        return not aligned and self.streams

    @functools.cached_property
    def streams(self) -> bool:
        """Whether a step's results may be so large that they are stored past the caches."""
        results = sum(
            math.prod(e.shape) * e.dtype.itemsize for e in self.loop.part.exports)
        return results + self.arena > 2 * self.native.target.l2


def _bytes(tensor: torch.Tensor) -> int:
    """Of a slice along the first axis of a contiguous tensor."""
    return math.prod(tensor.shape[1:]) * tensor.element_size()
