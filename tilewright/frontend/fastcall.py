"""Trees of arguments and results in the words of the runtime's native call."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tilewright.frontend import tree
from tilewright.frontend.signature import NUMBERS, Parameters
from tilewright.runtime import spec


class _Unknown(Exception):
    """A tree that the native call does not match: Python does."""


FORMS = {float: "float", int: "int", bool: "bool"}


def argument_trees(
    parameters: Parameters, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> spec.Arguments | None:
    """What a call must look like to be the same as this one; ``None`` if only Python can tell."""
    numbers: dict[str, Iterator[int]] = {}
    named = list(kwargs.items())
    placed = [(parameters.name(i), value) for i, value in enumerate(args)]
    # Inputs are numbered as the signature orders them: positional ones first, then by name.
    by_place, rest = parameters.by_position(args, kwargs)
    order = [(parameters.name(i), value) for i, value in enumerate(by_place)]
    order += [(name, rest[name]) for name in sorted(rest)]
    count = 0
    for name, value in order:
        leaves = 0 if name in parameters.static else len(tree.leaves(value))
        numbers[name] = iter(range(count, count + leaves))
        count += leaves
    try:

        def matched(name: str, value: Any) -> spec.Tree:
            if name in parameters.static:
                return spec.Static(value)
            return argument_tree(value, numbers[name])

        return spec.Arguments(
            tuple(matched(name, value) for name, value in placed),
            tuple((name, matched(name, value)) for name, value in named),
        )
    except _Unknown:
        return None


def argument_tree(value: Any, numbers: Iterator[int]) -> spec.Tree:
    """The tree of an argument; leaves take the next number each, in the order of the signature."""
    kind = type(value)
    if value is None:
        return spec.Static(None)
    if kind is np.ndarray:
        return spec.Leaf(next(numbers), "array")
    if kind in NUMBERS:
        return spec.Leaf(next(numbers), FORMS[kind])  # type: ignore[arg-type]
    if isinstance(value, np.generic):
        return spec.Leaf(next(numbers), "number")
    if kind is list:
        return spec.List(tuple(argument_tree(v, numbers) for v in value))
    if kind is tuple or (isinstance(value, tuple) and hasattr(kind, "_fields")):
        return spec.Tuple(tuple(argument_tree(v, numbers) for v in value), kind)
    if kind is dict:
        keys = tuple(tree.structure(value).entries())
        return spec.Dict(keys, tuple(argument_tree(value[k], numbers) for k in keys))
    if dataclasses.is_dataclass(kind) and all(
        not f.metadata.get("static") for f in dataclasses.fields(kind)
    ):
        names = tuple(f.name for f in dataclasses.fields(kind))
        children = tuple(argument_tree(getattr(value, name), numbers) for name in names)
        return spec.Attributes(kind, names, children)
    raise _Unknown


def result_tree(out: tree.TreeSpec) -> spec.Tree:
    """The tree of a result whose leaves are the executable's results in order."""
    return _result(out, itertools.count())


def _result(out: tree.TreeSpec, places: Iterator[int]) -> spec.Tree:
    if out.is_leaf():
        return spec.Leaf(next(places))
    if out.type is type(None) or out.type is None:
        return spec.Static(None)
    children = tuple(_result(child, places) for child in out.children())
    if out.type is tuple:
        return spec.Tuple(children)
    if out.type is list:
        return spec.List(children)
    if out.type is dict:
        by_key = dict(zip(out.entries(), children, strict=True))
        # A rebuilt dict has its keys in the order in which the function made it.
        keys = tuple(_joiner(out.one_level())(children))
        return spec.Dict(keys, tuple(by_key[key] for key in keys))
    return spec.Build(_joiner(out.one_level()), children)


def _joiner(level: Any) -> Callable[[tuple[Any, ...]], Any]:
    def join(children: tuple[Any, ...]) -> Any:
        return tree.unflatten(level, children)

    return join
