"""NumPy's reductions on traced values, made of sum, prod, max and min."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.errors import ShapeError
from tilewright.frontend.build import (
    as_node,
    axes_of,
    axis_of,
    broadcast_in,
    broadcast_to,
    cast,
    checked_dtype,
    count,
    emit,
    iota,
    number,
    reduce,
    reshape,
    scalar,
    wrap,
)
from tilewright.frontend.elementwise import check_keywords, python_number
from tilewright.frontend.location import here
from tilewright.frontend.tracer import Tracer, describe, implements, refuse
from tilewright.ir.graph import Node
from tilewright.ir.meaning import highest, lowest
from tilewright.ir.types import DType, bf16, bool_, dtype_of, f16, f32, f64, i32, i64


def kept(node: Node, shape: tuple[Any, ...], axes: tuple[int, ...], keepdims: Any) -> Node:
    """The result of a reduction, with axes of size 1 in the place of the reduced ones if asked."""
    if keepdims in (False, None, np._NoValue):
        return node
    return reshape(node, tuple(1 if i in axes else d for i, d in enumerate(shape)))


def accumulation(ufunc: np.ufunc, node: Node, dtype: Any) -> DType:
    """The element type in which NumPy adds up or multiplies."""
    if dtype is not None:
        return checked_dtype(np.dtype(dtype), "the dtype of a reduction")
    return dtype_of(ufunc.resolve_dtypes((None, node.dtype.numpy, None), reduction=True)[-1])


def masked(node: Node, where: Any, identity: Any) -> Node:
    """The node with ``identity`` where the mask is false."""
    if where is True or where is np._NoValue:
        return node
    mask = broadcast_to(cast(as_node(where), bool_), node.shape)
    return emit("where", (mask, node, scalar(node.dtype, identity, node.shape)))


def combine_initial(op: str, node: Node, initial: Any) -> Node:
    """The result of a reduction with a starting value."""
    if initial is None or initial is np._NoValue:
        return node
    start = (
        number(initial, node.dtype)
        if python_number(initial)
        else cast(as_node(initial), node.dtype)
    )
    return emit(op, (node, broadcast_to(start, node.shape)))


def fold(
    ufunc: np.ufunc,
    op: str,
    after: str,
    a: Any,
    axis: Any,
    dtype: Any,
    keepdims: Any,
    initial: Any,
    where: Any,
) -> Tracer:
    """A sum or a product."""
    x = as_node(a)
    x = cast(x, accumulation(ufunc, x, dtype))
    boolean = x.dtype is bool_
    if boolean:
        op, after = ("reduce_max", "max") if op == "sum" else ("reduce_min", "min")
    axes = axes_of(axis, len(x.shape), f"np.{op}")
    x = masked(x, where, 0 if after in ("add", "max") else 1)
    result = combine_initial(after, reduce(op, x, axes), initial)
    return wrap(kept(result, x.shape, axes, keepdims), a, where)


@implements(np.sum)
def sum_(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = None,
    where: Any = True,
) -> Tracer:
    """``np.sum``."""
    check_keywords("np.sum", {"out": out}, ())
    return fold(np.add, "sum", "add", a, axis, dtype, keepdims, initial, where)


@implements(np.prod)
def prod(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = None,
    where: Any = True,
) -> Tracer:
    """``np.prod``."""
    check_keywords("np.prod", {"out": out}, ())
    return fold(np.multiply, "prod", "mul", a, axis, dtype, keepdims, initial, where)


def extremum(name: str, a: Any, axis: Any, keepdims: Any, initial: Any, where: Any) -> Tracer:
    """A largest or smallest element."""
    x = as_node(a)
    axes = axes_of(axis, len(x.shape), f"np.{name}")
    given = initial is not None and initial is not np._NoValue
    if not given:
        no_identity(name, x, axes, where)
    bound = (lowest if name == "max" else highest)(x.dtype.numpy)
    result = reduce(f"reduce_{name}", masked(x, where, bound), axes)
    return wrap(kept(combine_initial(name, result, initial), x.shape, axes, keepdims), a, where)


def no_identity(name: str, x: Node, axes: tuple[int, ...], where: Any = True) -> None:
    """Raise ``ShapeError`` if there is nothing to choose from."""
    if where is not True and where is not np._NoValue:
        refuse(f"np.{name} with where= needs initial=", "give the value for rows without elements")
    if count(x.shape, axes) == 0:
        raise ShapeError(
            f"np.{name} of no elements has no value",
            got=describe(x),
            loc=here(),
            hint="give initial=, or reduce over an axis that has elements",
        )


@implements(np.max, np.amax)
def max_(
    a: Any,
    axis: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = None,
    where: Any = True,
) -> Tracer:
    """``np.max``: NaN if there is one."""
    check_keywords("np.max", {"out": out}, ())
    return extremum("max", a, axis, keepdims, initial, where)


@implements(np.min, np.amin)
def min_(
    a: Any,
    axis: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = None,
    where: Any = True,
) -> Tracer:
    """``np.min``: NaN if there is one."""
    check_keywords("np.min", {"out": out}, ())
    return extremum("min", a, axis, keepdims, initial, where)


def truth_of(a: Any) -> Node:
    """The truth value of each element."""
    return cast(as_node(a), bool_)


@implements(np.any)
def any_(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True
) -> Tracer:
    """``np.any``."""
    check_keywords("np.any", {"out": out}, ())
    x = masked(truth_of(a), where, False)
    axes = axes_of(axis, len(x.shape), "np.any")
    return wrap(kept(reduce("reduce_max", x, axes), x.shape, axes, keepdims), a, where)


@implements(np.all)
def all_(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True
) -> Tracer:
    """``np.all``."""
    check_keywords("np.all", {"out": out}, ())
    x = masked(truth_of(a), where, True)
    axes = axes_of(axis, len(x.shape), "np.all")
    return wrap(kept(reduce("reduce_min", x, axes), x.shape, axes, keepdims), a, where)


@implements(np.count_nonzero)
def count_nonzero(a: Any, axis: Any = None, *, keepdims: bool = False) -> Tracer:
    """``np.count_nonzero``."""
    return sum_(wrap(truth_of(a), a), axis=axis, dtype=np.int64, keepdims=keepdims)


def working(node: Node, dtype: Any) -> tuple[DType, DType]:
    """The element types in which a mean is computed and given, as NumPy chooses them."""
    if dtype is not None:
        given = checked_dtype(np.dtype(dtype), "the dtype of a mean")
        return (f32 if given in (f16, bf16) else given), given
    if not node.dtype.is_float:
        return f64, f64
    return (f32 if node.dtype in (f16, bf16) else node.dtype), node.dtype


def average_of(x: Node, axes: tuple[int, ...], where: Any) -> tuple[Node, Node]:
    """(sum / count, count) over axes, where count leaves out masked elements."""
    total = reduce("sum", masked(x, where, 0), axes)
    if where is True or where is np._NoValue:
        places = scalar(x.dtype, count(x.shape, axes), total.shape)
    else:
        mask = broadcast_to(cast(as_node(where), bool_), x.shape)
        places = reduce("sum", cast(mask, x.dtype), axes)
    return emit("div", (total, places)), places


@implements(np.mean)
def mean(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    *,
    where: Any = True,
) -> Tracer:
    """``np.mean``: of integers in f64, of the 16-bit floats in f32, rounded once."""
    check_keywords("np.mean", {"out": out}, ())
    x = as_node(a)
    inner, outer = working(x, dtype)
    axes = axes_of(axis, len(x.shape), "np.mean")
    result, _ = average_of(cast(x, inner), axes, where)
    return wrap(kept(cast(result, outer), x.shape, axes, keepdims), a, where)


def variance(
    a: Any,
    axis: Any,
    dtype: Any,
    ddof: Any,
    keepdims: Any,
    where: Any,
    root: bool,
    middle: Any,
) -> Tracer:
    """``np.var``, or its square root."""
    x = as_node(a)
    inner, outer = working(x, dtype)
    axes = axes_of(axis, len(x.shape), "np.var")
    wide = cast(x, inner)
    rest = [i for i in range(len(x.shape)) if i not in axes]
    average, places = average_of(wide, axes, where)
    if middle is not None:
        center = broadcast_to(cast(as_node(middle), inner), x.shape)
    else:
        center = broadcast_in(average, x.shape, rest)
    apart = emit("sub", (wide, center))
    squares = reduce("sum", masked(emit("mul", (apart, apart)), where, 0), axes)
    free = emit("sub", (places, scalar(inner, ddof, places.shape))) if ddof else places
    zero = scalar(inner, 0, free.shape)
    result = emit("div", (squares, emit("max", (free, zero)) if ddof else free))
    result = emit("sqrt", (result,)) if root else result
    return wrap(kept(cast(result, outer), x.shape, axes, keepdims), a, where)


def _spread(root: bool) -> Callable[..., Tracer]:
    def run(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        ddof: Any = 0,
        keepdims: Any = False,
        *,
        where: Any = True,
        mean: Any = None,
        correction: Any = None,
    ) -> Tracer:
        name = "np.std" if root else "np.var"
        check_keywords(name, {"out": out}, ())
        freedom = ddof if correction in (None, np._NoValue) else correction
        middle = None if mean is np._NoValue else mean
        return variance(a, axis, dtype, freedom, keepdims, where, root, middle)

    return run


implements(np.var)(_spread(root=False))
implements(np.std)(_spread(root=True))


def position(name: str, a: Any, axis: Any, keepdims: Any) -> Tracer:
    """The place of the first largest or smallest element; of the first NaN if there is one."""
    x = as_node(a)
    rank = len(x.shape)
    flat = reshape(x, (x.type.size,)) if axis is None else x
    along = 0 if axis is None else axis_of(axis, rank, f"np.arg{name}")
    no_identity(f"arg{name}", flat, (along,))
    best = reduce(f"reduce_{name}", flat, (along,))
    rest = [i for i in range(len(flat.shape)) if i != along]
    chosen = emit("eq", (flat, broadcast_in(best, flat.shape, rest)))
    if flat.dtype.is_float:
        chosen = emit("or", (chosen, emit("ne", (flat, flat))))
    length = flat.shape[along]
    kind = i32 if length < 2**31 - 1 else i64
    places = emit(
        "where", (chosen, iota(flat.shape, along, kind), scalar(kind, length, flat.shape))
    )
    result = cast(reduce("reduce_min", places, (along,)), i64)
    reduced = tuple(range(rank)) if axis is None else (along,)
    return wrap(kept(result, x.shape, reduced, keepdims), a)


@implements(np.argmax)
def argmax(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Tracer:
    """``np.argmax``: the first of equals, i64."""
    check_keywords("np.argmax", {"out": out}, ())
    return position("max", a, axis, keepdims)


@implements(np.argmin)
def argmin(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Tracer:
    """``np.argmin``: the first of equals, i64."""
    check_keywords("np.argmin", {"out": out}, ())
    return position("min", a, axis, keepdims)
