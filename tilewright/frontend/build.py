"""From NumPy's implicit rules to explicit graph nodes: capture, promotion, casts, broadcasting."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.errors import DTypeError, ShapeError, TraceError, UserError
from tilewright.frontend.location import here
from tilewright.frontend.tracer import Trace, Tracer, current, describe
from tilewright.ir.attrs import (
    BroadcastAttrs,
    CastAttrs,
    ConcatAttrs,
    IotaAttrs,
    ReduceAttrs,
    ReshapeAttrs,
)
from tilewright.ir.build import place
from tilewright.ir.graph import (
    NO_ATTRS,
    Attrs,
    Node,
    captured,
    full,
    full_value,
    make,
)
from tilewright.ir.sizes import Dim, Size
from tilewright.ir.types import (
    DTYPES,
    DType,
    Shape,
    TensorType,
    broadcast_shapes,
    dtype_of,
    i64,
    size_of,
)

SUPPORTED = ", ".join(DTYPES)


def emit(
    op: str, inputs: Sequence[Node] = (), attrs: Attrs = NO_ATTRS, type: TensorType | None = None
) -> Node:
    """A node that carries the user's line."""
    return make(op, inputs, attrs, here(), type)


def located(node: Node, *below: Node) -> Node:
    """A node whose builder knows no lines, with the user's line down to the nodes ``below``."""
    return place(node, below, here())


def wrap(node: Node, *operands: Any, weak: bool = False) -> Tracer:
    """The traced value of a node: it belongs to the innermost trace among its operands'."""
    traces = [x.scope for x in operands if isinstance(x, Tracer)]
    trace = max(traces, key=lambda t: t.level) if traces else current()
    if trace is None:
        raise TraceError("a traced value is needed while nothing is traced", loc=here())
    return Tracer(node, trace, weak)


def checked_dtype(value: Any, what: str) -> DType:
    """The element type of an array, dtype or name. Raises ``DTypeError`` if there is none here."""
    try:
        return dtype_of(value)
    except TypeError:
        got = getattr(value, "dtype", value)
        raise DTypeError(
            f"{what} has an element type that is not supported",
            expected=f"one of {SUPPORTED}",
            got=got,
            loc=here(),
            hint="convert it with .astype before it goes in",
        ) from None


def as_node(value: Any, what: str = "a value") -> Node:
    """The node of a traced value, an array, a number or a nested sequence of them.

    Arrays are copied: what happens to them later does not change the graph.
    Raises ``TraceError`` for a value whose trace has ended, ``DTypeError`` for an unsupported type.
    """
    if isinstance(value, Tracer):
        check_alive(value)
        return value.node
    if isinstance(value, (list, tuple)) and contains_traced(value):
        rows = [as_node(item, what) for item in value]
        return stack_nodes(rows)
    array = np.asarray(value)
    return capture(array, checked_dtype(array.dtype, what))


def check_alive(value: Tracer) -> None:
    """Raise ``TraceError`` if the trace of this value has ended."""
    trace: Trace = value.scope
    if not trace.alive:
        path = trace.paths.get(value.node)
        raise TraceError(
            f"use of a traced value after the trace of {trace.name} has ended",
            got=f"{value.node.type} (argument {path})" if path else str(value.node.type),
            loc=here(),
            hint="a traced function must return its results, not store them in an outer variable",
        )


def contains_traced(value: Any) -> bool:
    """True if a traced value is in a nested list or tuple."""
    if isinstance(value, (list, tuple)):
        return any(map(contains_traced, value))
    return isinstance(value, Tracer)


def common_dtype(name: str, *operands: Any) -> np.dtype:
    """``np.result_type``. Raises ``DTypeError`` where NumPy has no common type, as with bf16."""
    try:
        return np.result_type(*operands)
    except TypeError:
        kinds = (str(dtype_of(np.result_type(x))) for x in operands)
        raise DTypeError(
            f"{name}: the operands have no common element type",
            got=" and ".join(dict.fromkeys(kinds)),
            loc=here(),
            hint="convert one of them with .astype",
        ) from None


def stack_nodes(rows: Sequence[Node]) -> Node:
    """Nodes of one shape side by side along a new first axis."""
    dtype = dtype_of(common_dtype("a nested sequence", *(row.dtype.numpy for row in rows)))
    shape = rows[0].shape
    if any(row.shape != shape for row in rows):
        raise ShapeError(
            "a nested sequence has rows of different shapes",
            loc=here(),
            got=", ".join(str(row.type) for row in rows),
        )
    return concat([reshape(cast(row, dtype), (1, *shape)) for row in rows], 0)


def capture(array: np.ndarray, dtype: DType) -> Node:
    """A constant of a snapshot of this array; one value everywhere becomes a ``full`` node."""
    return captured(array, TensorType(dtype, array.shape), here())


def scalar(dtype: DType, value: Any, shape: Shape = ()) -> Node:
    """One value everywhere."""
    return full(TensorType(dtype, shape), value, here())


def number(value: Any, dtype: DType, shape: Shape = ()) -> Node:
    """A Python number as this type. Raises ``DTypeError`` for an integer that does not fit."""
    if dtype.is_int:
        limits = np.iinfo(dtype.numpy)
        if not limits.min <= value <= limits.max:
            raise DTypeError(
                f"the Python integer {value} does not fit its partner's element type",
                expected=f"{limits.min} to {limits.max} ({dtype})",
                got=value,
                loc=here(),
                hint="convert the array to a wider type first, with .astype",
            )
    return scalar(dtype, value, shape)


def cast(node: Node, dtype: DType) -> Node:
    """The node with its elements converted."""
    if node.dtype is dtype:
        return node
    if node.op.name == "full":
        return scalar(dtype, full_value(node), node.shape)
    return emit("cast", (node,), CastAttrs(dtype))


def broadcast_to(node: Node, shape: Shape) -> Node:
    """The node stretched to ``shape``, aligned at the last axis. The shapes must fit."""
    if node.shape == shape:
        return node
    if node.op.name == "full":
        return scalar(node.dtype, full_value(node), shape)
    first = len(shape) - len(node.shape)
    return broadcast_in(node, shape, tuple(range(first, len(shape))))


def broadcast_in(node: Node, shape: Shape, axes: Sequence[int]) -> Node:
    """Operand axis i becomes axis ``axes[i]`` of ``shape``."""
    if node.shape == tuple(shape):
        return node
    if node.op.name == "full":
        return scalar(node.dtype, full_value(node), tuple(shape))
    return emit("broadcast", (node,), BroadcastAttrs(tuple(shape), tuple(axes)))


def reshape(node: Node, shape: Shape) -> Node:
    """The node in another shape of the same size."""
    shape = tuple(int(d) if not isinstance(d, Size) else d for d in shape)
    if node.shape == shape:
        return node
    if node.op.name == "full":
        return scalar(node.dtype, full_value(node), shape)
    return emit("reshape", (node,), ReshapeAttrs(shape))


def concat(nodes: Sequence[Node], axis: int) -> Node:
    """Nodes of one element type one after another."""
    return nodes[0] if len(nodes) == 1 else emit("concat", nodes, ConcatAttrs(axis))


def reduce(op: str, node: Node, axes: Sequence[int]) -> Node:
    """sum, prod, reduce_max, reduce_min over axes."""
    return emit(op, (node,), ReduceAttrs(tuple(sorted(axes)))) if axes else node


def iota(shape: Shape, axis: int, dtype: DType = i64) -> Node:
    """0, 1, 2 ... along an axis."""
    return emit("iota", (), IotaAttrs(axis), TensorType(dtype, tuple(shape)))


def common_shape(name: str, nodes: Sequence[Any]) -> tuple[int, ...]:
    """The shape that the operands broadcast to. Raises ``ShapeError`` that names them."""
    try:
        return broadcast(*(np.shape(x) if not isinstance(x, Node) else x.shape for x in nodes))
    except ValueError:
        pass
    listed = " and ".join(describe(x) if isinstance(x, Node) else describe_value(x) for x in nodes)
    raise ShapeError(
        f"{name}: the shapes do not broadcast",
        expected="sizes that are equal or 1, aligned at the last axis",
        got=listed,
        loc=here(),
        hint="insert an axis with x[:, None], or check the transposes",
    )


def broadcast(*shapes: Shape) -> tuple[int, ...]:
    """The shape that all of these broadcast to. Raises ``ValueError`` if there is none."""
    for shape in shapes:
        for d in shape:
            if type(d) is not int:
                return broadcast_shapes(*shapes)  # type: ignore[return-value]
    return np.broadcast_shapes(*shapes)  # type: ignore[arg-type]


def describe_value(value: Any) -> str:
    """A value of any kind in a message."""
    if isinstance(value, Tracer):
        return describe(value.node)
    if isinstance(value, np.ndarray):
        try:
            return str(TensorType(dtype_of(value.dtype), value.shape))
        except TypeError:
            return f"{value.dtype}{list(value.shape)}"
    return repr(value)


def axis_of(axis: Any, rank: int, name: str) -> int:
    """An axis counted from the start. Raises ``ShapeError`` if there is no such axis."""
    try:
        number = operator.index(axis)
    except TypeError as error:
        if isinstance(error, UserError):
            raise
        raise DTypeError(
            f"{name}: an axis is not an integer", expected="an int", got=repr(axis), loc=here()
        ) from None
    if not -rank <= number < rank:
        raise ShapeError(
            f"{name}: there is no axis {number}",
            expected=f"-{rank} to {rank - 1}" if rank else "a value with axes",
            got=number,
            loc=here(),
        )
    return number % rank


def axes_of(axis: Any, rank: int, name: str) -> tuple[int, ...]:
    """The sorted axes that ``axis`` (None for all, a number or a tuple) names."""
    if axis is None:
        return tuple(range(rank))
    listed = axis if isinstance(axis, (tuple, list)) else (axis,)
    found = sorted(axis_of(a, rank, name) for a in listed)
    if len(set(found)) != len(found):
        raise ShapeError(f"{name}: an axis is named twice", got=tuple(listed), loc=here())
    return tuple(found)


def count(shape: Shape, axes: Sequence[int]) -> Dim:
    """Number of elements along these axes."""
    return size_of(tuple(shape[a] for a in axes))
