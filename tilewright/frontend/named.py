"""Named sizes: how a jitted function declares them, and what its trace decides by their numbers.

A size that has a name is not compiled in. While the function is traced, ``x.shape`` has
:class:`NamedSize` in its place: a whole number to Python code, whose arithmetic stays symbolic.
What asks for the number itself (``if x.shape[0] > 8``, ``range(x.shape[0])``) is answered for the
call at hand, and noted as a :class:`Guard` of the compiled program, which serves the calls of which
all guards hold.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilewright.errors import Location, ShapeError, TraceError
from tilewright.frontend.build import wrap
from tilewright.frontend.location import here
from tilewright.frontend.tracer import HOOKS, USER_SIZES, Tracer
from tilewright.ir.decide import decide
from tilewright.ir.graph import full
from tilewright.ir.sizes import Dim, Size, evaluate, named
from tilewright.ir.types import TensorType, i64

RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Guard:
    """What must hold of the named sizes for a compiled program to serve a call."""

    a: Dim
    relation: str
    b: Dim
    loc: Location | None = field(default=None, compare=False)

    def holds(self, values: Mapping[str, int]) -> bool:
        """Whether it does for these numbers."""
        return RELATIONS[self.relation](evaluate(self.a, values), evaluate(self.b, values))

    def __str__(self) -> str:
        return f"{self.a} {self.relation} {self.b}"


OPPOSITE = {"==": "!=", "<": ">=", "<=": ">", ">": "<=", ">=": "<", "!=": "=="}


class Decisions:
    """Answers questions about named sizes by their numbers, and notes the answers."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self.values = values
        self.guards: dict[Guard, None] = {}

    def __call__(self, a: Dim, relation: str, b: Dim) -> bool:
        """Whether the relation holds."""
        answer = Guard(a, relation, b).holds(self.values)
        said = relation if answer else OPPOSITE[relation]
        self.guards.setdefault(Guard(a, said, b, here()))
        return answer


    def number(self, size: Size) -> int:
        """The number of a size, which the program is then compiled for."""
        number = evaluate(size, self.values)
        self.guards.setdefault(Guard(plain(size), "==", number, here()))
        return number


class NamedSize(Size):
    """A size in a user's hands: it compares by its number, and is a number among arrays."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, int | Size) or Size.__eq__(self, other):
            return isinstance(other, int | Size)
        answer = decide(plain(self), "==", plain(other))
        return False if answer is None else answer

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = Size.__hash__

    def __bool__(self) -> bool:
        return self != 0

    def __float__(self) -> float:
        return float(operator.index(self))

    def __int__(self) -> int:
        return operator.index(self)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        inputs = tuple(traced(x) if isinstance(x, NamedSize) else x for x in inputs)
        return HOOKS["ufunc"](ufunc, method, inputs, kwargs)


def _symbolic(name: str) -> Callable[[NamedSize, Any], Any]:
    """An operator: a size for whole numbers, else an operation on arrays."""
    on_sizes, on_arrays = getattr(Size, name), getattr(operator, name.replace("__r", "__", 1))

    def apply(self: NamedSize, other: Any) -> Any:
        if isinstance(other, np.integer):
            other = int(other)
        if isinstance(other, int | Size) and not isinstance(other, bool):
            return user(on_sizes(self, other))
        if isinstance(other, Tracer | np.ndarray | np.generic | float):
            pair = (other, traced(self)) if name.startswith("__r") else (traced(self), other)
            return on_arrays(*pair)
        return NotImplemented
    return apply


for _name in ("add", "sub", "mul", "floordiv", "mod"):
    for _dunder in (f"__{_name}__", f"__r{_name}__"):
        setattr(NamedSize, _dunder, _symbolic(_dunder))


def _comparison(name: str) -> Callable[[NamedSize, Any], Any]:
    on_sizes, on_numbers = getattr(Size, name), getattr(operator, name)

    def apply(self: NamedSize, other: Any) -> Any:
        if isinstance(other, int | Size):
            return on_sizes(self, plain(other))
        if isinstance(other, float | np.number):
            return on_numbers(operator.index(self), other)
        return NotImplemented
    return apply


for _dunder in ("__lt__", "__le__", "__gt__", "__ge__"):
    setattr(NamedSize, _dunder, _comparison(_dunder))


def _on_arrays(name: str) -> None:
    def forward(self: NamedSize, other: Any) -> Any:
        return getattr(operator, name)(traced(self), other)

    def backward(self: NamedSize, other: Any) -> Any:
        return getattr(operator, name)(other, traced(self))
    setattr(NamedSize, f"__{name}__", forward)
    setattr(NamedSize, f"__r{name}__", backward)


for _name in ("truediv", "pow"):
    _on_arrays(_name)


def user(dim: Dim) -> Dim:
    """A size for a user's hands."""
    return NamedSize(dim.terms) if isinstance(dim, Size) else dim


def plain(dim: Any) -> Any:
    """A size as the compiler knows it; anything else as it is."""
    return Size(dim.terms) if isinstance(dim, NamedSize) else dim


def traced(size: Size) -> Any:
    """A size as a traced whole number."""
    return wrap(full(TensorType(i64, ()), plain(size), here()), weak=True)


USER_SIZES.append(user)


# --- declarations ---------------------------------------------------------------------------
class Declared:
    """Which axes of which arguments have named sizes.

    Raises ``TraceError`` for a declaration that makes no sense.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        if not isinstance(given, Mapping):
            raise TraceError(
                "dynamic takes a dict", expected="parameter name -> names of its axes",
                got=repr(given), loc=here())
        self.axes = {name: _axes(name, spec) for name, spec in given.items()}

    def named(
        self, owners: Sequence[str], paths: Sequence[str], leaves: Sequence[Any]
    ) -> tuple[list[tuple[Dim, ...] | None], dict[str, int]]:
        """The shapes of the leaves with names (None: a leaf without), and the names' numbers.

        An axis of size 0 or 1 keeps its number: NumPy's rules treat these unlike all others.
        Raises ``ShapeError`` for a name with two numbers, or an axis that does not exist.
        """
        shapes: list[tuple[Dim, ...] | None] = []
        said: dict[str, tuple[int, int, str]] = {}
        for owner, path, leaf in zip(owners, paths, leaves, strict=True):
            spec = self.axes.get(path, self.axes.get(owner))
            shape = getattr(leaf, "shape", ())
            if not spec or not shape:
                shapes.append(None)
                continue
            dims: list[Dim] = list(shape)
            for axis, name in spec.items():
                if not -len(shape) <= axis < len(shape):
                    raise ShapeError(
                        f"dynamic names axis {axis} of {path}, which does not exist",
                        expected=f"an axis of an array of shape {shape}", got=axis, loc=here())
                at = axis % len(shape)
                earlier = said.setdefault(name, (shape[at], at, path))
                if earlier[0] != shape[at]:
                    raise ShapeError(
                        f"the size {name!r} has two numbers",
                        expected=f"{earlier[0]}, from axis {earlier[1]} of {earlier[2]}",
                        got=f"{shape[at]} in axis {at} of {path}", loc=here())
                if shape[at] > 1:
                    dims[at] = named(name)
            shapes.append(tuple(dims))
        return shapes, {name: number for name, (number, _, _) in said.items() if number > 1}


def parameter_of(path: str) -> str:
    """The parameter to which a leaf belongs: x for ``x['w'][0]``."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def _axes(parameter: str, spec: Any) -> dict[int, str]:
    """The names by axis of one argument's declaration."""
    if isinstance(spec, str):
        words = spec.replace(",", " ").split()
        before, *after = (list(part) for part in _parts(parameter, words))
        found = dict(enumerate(before))
        for part in after:
            found |= {i - len(part): word for i, word in enumerate(part)}
    elif isinstance(spec, Mapping):
        found = dict(spec)
    elif isinstance(spec, list | tuple):
        found = dict(enumerate(spec))
    else:
        raise _bad(parameter, spec)
    result = {axis: name for axis, name in found.items() if name not in (None, "_")}
    for axis, name in result.items():
        if not isinstance(axis, int) or not isinstance(name, str) or isinstance(axis, bool):
            raise _bad(parameter, spec)
        try:
            named(name)
        except ValueError as problem:
            raise TraceError(
                str(problem), expected="a Python name", got=repr(name), loc=here()) from None
    return result


def _parts(parameter: str, words: list[str]) -> list[list[str]]:
    """What stands before and after the ``...``."""
    if words.count("...") > 1:
        raise _bad(parameter, " ".join(words))
    if "..." not in words:
        return [words]
    at = words.index("...")
    return [words[:at], words[at + 1:]]


def _bad(parameter: str, spec: Any) -> TraceError:
    return TraceError(
        f"dynamic: the axes of {parameter!r} are not named in a way that is known",
        expected="{axis: name}, a list of names and None, or text such as 'batch, _, ...'",
        got=repr(spec), loc=here())
