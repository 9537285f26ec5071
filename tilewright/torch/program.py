"""Recipes that run: compiled parts on the memory of tensors, and calls of PyTorch between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tilewright.runtime.pool import give_back
from tilewright.runtime.program import Program as CompiledProgram
from tilewright.torch.looks import LOOKS
from tilewright.torch.loops import CompiledLoop
from tilewright.torch.parts import CompiledPart, compile_part, reinterpret
from tilewright.torch.recipe import (
    Alias,
    Eager,
    Loop,
    Part,
    Recipe,
    Slot,
    Tensors,
    last_reads,
)
from tilewright.torch.sizes import Numbers


class Program:
    """Runs a recipe: a list of tensors in, which is emptied, a list of results out."""

    def __init__(
        self, recipe: Recipe, target: str | None = None, numerics: str = "default",
        codes: Sequence[CompiledProgram] | None = None, values: Numbers | None = None,
    ) -> None:
        """Compile the parts of a recipe, unless they are compiled: ``codes``, of which those with
        named sizes are for ``values``.
        """
        self._boxed_call = True  # on the object: wrappers copy its attributes
        self.recipe = recipe
        self.record: Any = None
        self.parts: list[CompiledPart] = []
        self.steps: list[Callable[[Tensors], None]] = []
        for step in recipe.steps:
            if isinstance(step, Part | Loop):
                part = step if isinstance(step, Part) else step.part
                code = codes[len(self.parts)] if codes else compile_part(part, target, numerics)
                self.parts.append(
                    CompiledPart(step, code, values or {}) if isinstance(step, Part)
                    else CompiledLoop(step, code, values or {}))
                self.steps.append(self.parts[-1].run)
            else:
                self.steps.append(_call(step) if isinstance(step, Eager) else _alias(step))
        for i, slots in enumerate(last_reads(recipe)):
            if slots:
                self.steps[i] = _then_free(self.steps[i], slots)
        self.constants = list(recipe.constants.items())
        self.updates = [(u.slot, u.value, u.placed) for u in recipe.updates]
        self.more = recipe.slots - recipe.inputs
        if codes is None and self.steps:
            self.steps.insert(0, self._begin)

    def _begin(self, slots: Tensors) -> None:
        """Ahead of the first run, which tracing waits for."""
        self.steps = [self._second, *self.steps[1:]]

    def _second(self, slots: Tensors) -> None:
        """Ahead of the second run: tracing and compiling are over, and left memory behind."""
        self.steps = self.steps[1:]
        give_back()

    def __call__(self, args: Tensors) -> Tensors:
        slots = [*args, *([None] * self.more)]
        args.clear()
        for slot, value in self.constants:
            slots[slot] = value
        for step in self.steps:
            step(slots)
        for slot, value, placed in self.updates:
            if not (placed and slots[value] is slots[slot]):
                slots[slot].copy_(slots[value])
        return [None if r is None else slots[r] for r in self.recipe.results]


def _then_free(step: Callable[[Tensors], None], last: Sequence[int]) -> Callable[[Tensors], None]:
    """A step that is the last one to read some slots."""
    def run(slots: Tensors) -> None:
        step(slots)
        for slot in last:
            slots[slot] = None
    return run


def _alias(step: Alias) -> Callable[[Tensors], None]:
    slot, base, shape, strides, offset = (
        step.slot, step.base, step.shape, step.strides, step.offset)

    def run(slots: Tensors) -> None:
        slots[slot] = reinterpret(slots[base], shape, strides, offset)

    def share(slots: Tensors) -> None:
        whole = slots[base]
        if shape != whole.shape or strides != whole.stride() or offset:
            whole = whole.as_strided(shape, strides, whole.storage_offset() + offset)
        slots[slot] = whole.detach()  # no view to autograd, but one counter of versions
    return share if step.counted else run


def _call(step: Eager) -> Callable[[Tensors], None]:
    run = _eager(step)
    if step.target not in LOOKS:
        return run
    at = step.args[0][0].index

    def look(slots: Tensors) -> None:
        if slots[at].any():
            run(slots)
    return look


def _eager(step: Eager) -> Callable[[Tensors], None]:
    def fill(value: Any, slots: Tensors) -> Any:
        if isinstance(value, Slot):
            return slots[value.index]
        if isinstance(value, tuple | list):
            return type(value)(fill(v, slots) for v in value)
        if isinstance(value, dict):
            return {k: fill(v, slots) for k, v in value.items()}
        return value

    def run(slots: Tensors) -> None:
        args, kwargs = fill(step.args, slots)
        result = step.target(*args, **kwargs)
        results = result if step.several else (result,)
        for slot, value, strides in zip(step.outs, results, step.strides, strict=True):
            if slot is None:
                continue
            if strides is not None and value.stride() != strides:
                made = torch.empty_strided(value.shape, strides, dtype=value.dtype)
                value = made.copy_(value)
            slots[slot] = value
    return run
