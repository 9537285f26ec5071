"""Recipes with named sizes, for the numbers of a run."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from tilewright.ir.sizes import Size, evaluate
from tilewright.torch.recipe import Alias, Export, Loop, Part, Recipe, Step

Numbers = Mapping[str, int]


def at(recipe: Recipe, values: Numbers) -> Recipe:
    """The recipe with numbers in the places of names; its graphs stay as they are."""
    number = functools.partial(_number, values)

    def exports(given: tuple[Export, ...]) -> tuple[Export, ...]:
        return tuple(
            replace(e, **{f: number(getattr(e, f)) for f in ("shape", "strides", "copied")})
            for e in given)

    steps: list[Step] = []
    for step in recipe.steps:
        if isinstance(step, Part):
            steps.append(replace(step, exports=exports(step.exports)))
        elif isinstance(step, Loop):
            part = replace(step.part, exports=exports(step.part.exports))
            steps.append(replace(
                step, part=part, buffers=exports(step.buffers), steps=number(step.steps)))
        elif isinstance(step, Alias):
            steps.append(replace(
                step, shape=number(step.shape), strides=number(step.strides),
                offset=number(step.offset)))
        else:
            steps.append(replace(step, args=number(step.args), strides=number(step.strides)))
    constants = {slot: number(value) for slot, value in recipe.constants.items()}
    return replace(recipe, steps=tuple(steps), constants=constants)


def _number(values: Numbers, value: Any) -> Any:
    if isinstance(value, Size):
        return evaluate(value, values)
    if type(value) in (tuple, list, torch.Size):
        made = [_number(values, v) for v in value]
        return made if isinstance(value, list) else tuple(made)
    if isinstance(value, dict):
        return {k: _number(values, v) for k, v in value.items()}
    return value
