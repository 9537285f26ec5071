"""NumPy's ufuncs on traced values: the rows of the op table, and the few that are not one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.errors import DTypeError, ShapeError
from tilewright.frontend.build import (
    as_node,
    broadcast_to,
    cast,
    check_alive,
    checked_dtype,
    common_shape,
    contains_traced,
    describe_value,
    emit,
    number,
    scalar,
    wrap,
)
from tilewright.frontend.location import here
from tilewright.frontend.tracer import FUNCTIONS, HOOKS, Tracer, refuse
from tilewright.ir.graph import OPS, Node
from tilewright.ir.sizes import Size
from tilewright.ir.types import bool_, dtype_of, i64, u64

Special = Callable[..., Any]

ROWS: dict[np.ufunc, str] = {
    row.ufunc: name for name, row in OPS.items() if isinstance(row.ufunc, np.ufunc)
}
"""The op of each ufunc that is one row of the op table."""

SPECIAL: dict[np.ufunc, Special] = {}
"""Ufuncs that are not: (ufunc, inputs) -> traced values."""

COMPARISONS = (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal)
PYTHON_NUMBERS = (bool, int, float)


def python_number(value: Any) -> bool:
    """True for a number whose type follows its partner's; NumPy treats a bool as an array."""
    return isinstance(value, (int, float)) and not isinstance(value, (bool, np.generic))


def kind_of(value: Any) -> Any:
    """What ``ufunc.resolve_dtypes`` takes for an operand: a dtype, or ``int``/``float`` if weak."""
    if isinstance(value, Tracer):
        if value.weak and value.dtype.kind in "if":
            return int if value.dtype.kind == "i" else float
        return value.dtype
    if python_number(value):
        return type(value) if type(value) in PYTHON_NUMBERS else int
    return np.asarray(value).dtype


def regular(value: Any, name: str) -> Any:
    """An operand as a traced value, an array or a Python number. Raises for anything else."""
    if isinstance(value, Tracer):
        check_alive(value)
        return value
    if python_number(value):
        return value
    if isinstance(value, Size):
        return wrap(scalar(i64, Size(value.terms)), weak=True)
    if isinstance(value, (list, tuple)) and contains_traced(value):
        return wrap(as_node(value))
    array = np.asarray(value)
    checked_dtype(array.dtype, f"an operand of {name}")
    return array


def convert(value: Any, dtype: np.dtype, shape: tuple[int, ...]) -> Node:
    """An operand as a node of this type and shape."""
    target = dtype_of(dtype)
    if python_number(value):
        return number(value, target, shape)
    node = as_node(value)
    return broadcast_to(cast(node, target), shape)


def resolve(
    ufunc: np.ufunc, kinds: list[Any], values: list[Any], dtype: Any = None
) -> tuple[Any, ...]:
    """The element types of a ufunc's loop. Raises ``DTypeError`` if there is none."""
    slots = (*kinds, *(None,) * ufunc.nout)
    options: dict[str, Any] = {}
    if dtype is not None:
        options["signature"] = (None,) * ufunc.nin + (np.dtype(dtype),) * ufunc.nout
    try:
        return ufunc.resolve_dtypes(slots, **options)
    except TypeError:
        listed = ", ".join(map(describe_value, values))
        raise DTypeError(
            f"np.{ufunc.__name__} has no meaning for these element types",
            got=listed,
            loc=here(),
            hint="NumPy does not define it either: convert with .astype",
        ) from None


def apply_ufunc(ufunc: np.ufunc, *inputs: Any, dtype: Any = None) -> Any:
    """A ufunc on operands of any kind, with NumPy's promotion and broadcasting."""
    values = [regular(x, f"np.{ufunc.__name__}") for x in inputs]
    if ufunc in SPECIAL:
        return SPECIAL[ufunc](ufunc, *values)
    name = ROWS.get(ufunc)
    if name is None:
        refuse(
            f"the NumPy function np.{ufunc.__name__} cannot be traced",
            "write it with functions that can (see dir(tw.numpy)), or call it outside the "
            "jitted function and pass the result in",
        )
    if ufunc in COMPARISONS:
        values = [widen(x, other) for x, other in zip(values, reversed(values), strict=True)]
    types = resolve(ufunc, [kind_of(x) for x in values], values, dtype)
    shape = common_shape(
        f"np.{ufunc.__name__}", [x if not isinstance(x, Tracer) else x.node for x in values]
    )
    nodes = [convert(x, t, shape) for x, t in zip(values, types[: ufunc.nin], strict=True)]
    if ufunc in COMPARISONS and nodes[0].dtype is not nodes[1].dtype:
        return wrap(compare_mixed(name, *nodes), *values)
    supported = OPS[name].types
    if supported and not any(n.dtype in supported for n in nodes):
        raise DTypeError(
            f"np.{ufunc.__name__} is not supported for this element type",
            got=str(nodes[0].dtype),
            expected=", ".join(d.name for d in supported),
            loc=here(),
            hint="convert with .astype",
        )
    return wrap(cast(emit(name, nodes), dtype_of(types[-1])), *values)


def widen(value: Any, other: Any) -> Any:
    """A Python integer outside its partner's type as an i64 or u64: it compares by its value."""
    if not python_number(value) or not isinstance(value, int):
        return value
    kind = kind_of(other)
    if not isinstance(kind, np.dtype) or kind.kind not in "iu":
        return value
    limits = np.iinfo(kind)
    if limits.min <= value <= limits.max:
        return value
    wide = np.iinfo(np.int64)
    return np.float64(value) if not wide.min <= value <= wide.max else np.int64(value)


def compare_mixed(name: str, x: Node, y: Node) -> Node:
    """An i64 compared with a u64, by value: a negative number is below all unsigned ones."""
    signed, unsigned = (x, y) if x.dtype is i64 else (y, x)
    negative = emit("lt", (signed, scalar(i64, 0, x.shape)))
    inside = emit(name, (cast(x, u64), cast(y, u64)))
    outside = {"eq": False, "ne": True}.get(name, (name in ("lt", "le")) == (signed is x))
    return emit("where", (negative, scalar(bool_, outside, unsigned.shape), inside))


def dispatch(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A ufunc or one of its methods, as NumPy hands it over."""
    out = kwargs.pop("out", None)
    out = out[0] if isinstance(out, tuple) and len(out) == 1 else out
    if out is not None and not isinstance(out, Tracer):
        refuse(
            "in-place assignment of a traced value to a NumPy array",
            "a traced function cannot change an array in place: write x = x + y instead of "
            "x += y or out=x, or create x with tw.numpy",
            got=describe_value(out),
        )
    result = run_method(ufunc, method, inputs, kwargs)
    return result if out is None else assign(out, result)


def run_method(
    ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The result of a ufunc's method."""
    if method == "__call__":
        check_keywords(f"np.{ufunc.__name__}", kwargs, ("dtype",))
        if ufunc in MATRIX:
            return FUNCTIONS[ufunc](*inputs)
        return apply_ufunc(ufunc, *inputs, **{k: v for k, v in kwargs.items() if k == "dtype"})
    if method == "outer":
        left, right = (regular(x, f"np.{ufunc.__name__}.outer") for x in inputs)
        rank = len(np.shape(right))
        wide = np.reshape(left, (*np.shape(left), *(1,) * rank))
        return apply_ufunc(ufunc, wide, right)
    if method == "reduce" and ufunc in REDUCTIONS:
        array, *rest = inputs
        options = dict(
            zip(("axis", "dtype", "out", "keepdims", "initial", "where"), rest, strict=False)
        )
        options = {"axis": 0, **options, **kwargs}
        return FUNCTIONS[REDUCTIONS[ufunc]](array, **options)
    if method in ACCUMULATIONS:
        return ACCUMULATIONS[method](ufunc, *inputs, **kwargs)
    hint = (
        "it changes an array in place: use y = x.at[indices].add(values), or .multiply, .max, .min"
        if method == "at"
        else "write it with slices and reductions"
    )
    refuse(f"the ufunc method np.{ufunc.__name__}.{method} cannot be traced", hint)


ACCUMULATIONS: dict[str, Callable[..., Any]] = {}
"""Methods of ufuncs that run along an axis: (ufunc, array, ...) -> traced value."""

REDUCTIONS = {
    np.add: np.sum,
    np.multiply: np.prod,
    np.maximum: np.max,
    np.minimum: np.min,
    np.logical_and: np.all,
    np.logical_or: np.any,
}
MATRIX = tuple(
    getattr(np, name) for name in ("matmul", "vecdot", "matvec", "vecmat") if hasattr(np, name)
)

_DEFAULTS = {
    "where": True,
    "casting": "same_kind",
    "order": "K",
    "subok": True,
    "signature": None,
    "out": None,
    "keepdims": np._NoValue,
}


def check_keywords(name: str, kwargs: dict[str, Any], allowed: tuple[str, ...]) -> None:
    """Refuse keyword arguments that change the meaning and are not implemented."""
    for key, value in kwargs.items():
        if key in allowed or (key in _DEFAULTS and _DEFAULTS[key] is value) or value is None:
            continue
        if isinstance(value, str) and _DEFAULTS.get(key) == value:
            continue
        refuse(
            f"the argument {key}= of {name} cannot be traced",
            _HINTS.get(key, "leave it out, or write the function with others"),
            got=describe_value(value),
        )


_HINTS = {
    "where": "choose with np.where(condition, a, b) afterwards",
    "out": "a traced function cannot change an array in place: use the returned value",
    "casting": "convert with .astype",
}


def assign(target: Tracer, result: Any) -> Tracer:
    """``target += ...``: what the name and all its other names stand for from now on.

    An argument, and a value that shares memory with another one that is still in use, cannot be
    changed: NumPy would change more than this one value.
    """
    check_alive(target)
    if target.node in target.scope.paths:
        refuse(
            "in-place assignment to a traced array",
            "NumPy would change the caller's array: write x = x + y instead of x += y",
            got=describe_value(target),
        )
    if any(other() is not None and other() is not target for other in target.memory or ()):
        refuse(
            "in-place assignment to a traced array that shares memory with another (a view)",
            "write x = x + y instead of x += y",
            got=describe_value(target),
        )
    if result.shape != target.shape:
        raise ShapeError(
            "in-place assignment cannot change the shape of an array",
            expected=describe_value(target),
            got=describe_value(result),
            loc=here(),
        )
    if not np.can_cast(result.dtype, target.dtype, "same_kind"):
        raise DTypeError(
            "in-place assignment cannot change the element type of an array",
            expected=describe_value(target),
            got=describe_value(result),
            loc=here(),
            hint="write x = x + y instead of x += y, or convert with .astype",
        )
    target.node = cast(result.node, dtype_of(target.dtype))
    target.scope, target.weak = result.scope, False
    return target


HOOKS["ufunc"] = dispatch
HOOKS["assign"] = assign


# --- ufuncs that are not one row ----------------------------------------------------------
def special(*ufuncs: np.ufunc) -> Callable[[Special], Special]:
    """Enter a function into :data:`SPECIAL`."""

    def enter(function: Special) -> Special:
        for ufunc in ufuncs:
            SPECIAL[ufunc] = function
        return function

    return enter


def typed(ufunc: np.ufunc, x: Any) -> Node:
    """The operand of a ufunc in the element type that NumPy computes in."""
    return cast(as_node(x), dtype_of(resolve(ufunc, [kind_of(x)], [x])[0]))


@special(np.positive, np.conjugate)
def _same(ufunc: np.ufunc, x: Any) -> Any:
    return wrap(typed(ufunc, x), x)


@special(np.divmod)
def _divmod(ufunc: np.ufunc, x: Any, y: Any) -> Any:
    return apply_ufunc(np.floor_divide, x, y), apply_ufunc(np.remainder, x, y)


@special(np.modf)
def _modf(ufunc: np.ufunc, x: Any) -> Any:
    value = wrap(typed(ufunc, x), x)
    whole = np.trunc(value)
    rest = np.where(np.isinf(value), value.dtype.type(0), value - whole)
    return np.copysign(rest, value), whole


@special(np.float_power)
def _float_power(ufunc: np.ufunc, x: Any, y: Any) -> Any:
    wide = [np.float64(v) if python_number(v) else v.astype(np.float64) for v in (x, y)]
    return apply_ufunc(np.power, *wide)


@special(np.floor, np.ceil, np.trunc)
def _round(ufunc: np.ufunc, x: Any) -> Any:
    node = typed(ufunc, x)
    return wrap(emit(ROWS[ufunc], (node,)) if node.dtype.is_float else node, x)


@special(np.absolute, np.fabs)
def _absolute(ufunc: np.ufunc, x: Any) -> Any:
    node = typed(ufunc, x)
    return wrap(node if node.dtype is bool_ else emit("abs", (node,)), x)
