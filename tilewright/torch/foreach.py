"""PyTorch's operators on lists of tensors, as the operators on each of them.

Optimisers with ``foreach=True`` and the clipping of gradients call them. Every one gives what the
operator of the same name gives per tensor; the compiler joins small kernels itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

aten = torch.ops.aten

NAMES: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(torch, name) for name in (
        "abs", "acos", "add", "addcdiv", "addcmul", "asin", "atan", "ceil", "clamp_max",
        "clamp_min", "cos", "cosh", "div", "erf", "erfc", "exp", "expm1", "floor", "frac", "lerp",
        "lgamma", "log", "log10", "log1p", "log2", "mul", "neg", "pow", "reciprocal",
        "round", "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt", "sub", "tan", "tanh", "trunc",
    )},
    "maximum": torch.clamp_min, "minimum": torch.clamp_max, "copy": aten.copy,
    "zero": torch.zeros_like,
    "norm": lambda x, ord=2, dtype=None: torch.linalg.vector_norm(x, ord, dtype=dtype),
}
"""What is done with each tensor, by the operator's name behind ``_foreach_``."""

BY_NAME = ("addcdiv", "addcmul")
"""Operators that take the factor by name on one tensor and by position on lists."""


def _each(overload: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The decomposition of one overload."""
    parameters = overload._schema.arguments
    by_name = overload._schema.name.rpartition("_")[2] in BY_NAME

    def each(*args: Any, **kwargs: Any) -> Any:
        given = [(p.name, p, a) for p, a in zip(parameters, args, strict=False)]
        given += [(p.name, p, kwargs[p.name]) for p in parameters if p.name in kwargs]
        count = len(next(a for _, p, a in given if _is_list(p)))
        made = []
        for i in range(count):
            positional, named = [], {}
            for name, parameter, value in given:
                one = value[i] if _is_list(parameter) else value
                if by_name and name in ("value", "scalars"):
                    named["value"] = one
                elif parameter.kwarg_only:
                    named[name] = one
                else:
                    positional.append(one)
            made.append(function(*positional, **named))
        return made
    return each


def _is_list(parameter: Any) -> bool:
    return isinstance(parameter.type, torch.ListType)


def _overloads(name: str) -> Sequence[Any]:
    packet = getattr(aten, f"_foreach_{name}", None)
    found = [] if packet is None else [getattr(packet, o) for o in packet.overloads()]
    # Numbers in a tensor of their own would be read one by one.
    return [o for o in found if not o._schema.is_mutable and not (
        name in BY_NAME and o._overloadname == "Tensor")]


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    overload: _each(overload, function)
    for name, function in NAMES.items() for overload in _overloads(name)
}
