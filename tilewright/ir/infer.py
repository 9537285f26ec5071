"""The type rules of the op table: (attributes, input types) -> result type.

They raise ``TypeError`` or ``ValueError`` with a plain sentence; the frontend checks a user's
arguments before it builds a node, so these speak to the compiler's own authors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, overload

from tilewright.ir.attrs import (
    BroadcastAttrs,
    CastAttrs,
    ConcatAttrs,
    ContractAttrs,
    FlipAttrs,
    IndexAttrs,
    Mode,
    PadAttrs,
    PutAttrs,
    ReduceAttrs,
    ReshapeAttrs,
    ScanAttrs,
    SearchAttrs,
    SliceAttrs,
    SortAttrs,
    TransposeAttrs,
    WindowAttrs,
)
from tilewright.ir.sizes import Dim, ceil_div, largest, less, may_equal
from tilewright.ir.types import (
    FLOATS,
    INTS,
    DType,
    Shape,
    TensorType,
    bool_,
    i64,
    size_of,
    u8,
)

ALL = (bool_, *INTS, *FLOATS)
NUMBERS = (*INTS, *FLOATS)
BITS = (bool_, *INTS)


def same_shapes(name: str, types: tuple[TensorType, ...]) -> None:
    """Raise ``ValueError`` unless all shapes are equal: broadcasting is explicit in a Graph."""
    for t in types[1:]:
        if t.shape != types[0].shape:
            raise ValueError(f"{name}: shapes {types[0].shape} and {t.shape} differ")


def same_dtypes(name: str, types: tuple[TensorType, ...], allowed: tuple[DType, ...]) -> None:
    """Raise ``TypeError`` unless all element types are equal and allowed: promotion is explicit."""
    for t in types:
        if t.dtype is not types[0].dtype:
            raise TypeError(f"{name}: element types {types[0].dtype} and {t.dtype} differ")
    if types[0].dtype not in allowed:
        names = ", ".join(d.name for d in allowed)
        raise TypeError(f"{name}: element type {types[0].dtype} is not one of {names}")


def like_inputs(name: str, allowed: tuple[DType, ...]) -> Callable[..., TensorType]:
    """The rule of an op whose result has its inputs' type."""
    def infer(attrs: Any, *types: TensorType) -> TensorType:
        same_shapes(name, types)
        same_dtypes(name, types, allowed)
        return types[0]
    return infer


def truth(name: str, allowed: tuple[DType, ...]) -> Callable[..., TensorType]:
    """The rule of a comparison."""
    def infer(attrs: Any, *types: TensorType) -> TensorType:
        same_shapes(name, types)
        same_dtypes(name, types, allowed)
        return types[0].with_dtype(bool_)
    return infer


def infer_where(attrs: Any, condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    same_shapes("where", (condition, x, y))
    if condition.dtype is not bool_:
        raise TypeError(f"where: the condition has element type {condition.dtype}, not bool")
    same_dtypes("where", (x, y), ALL)
    return x


def infer_cast(attrs: CastAttrs, x: TensorType) -> TensorType:
    return x.with_dtype(attrs.dtype)


def infer_bitcast(attrs: CastAttrs, x: TensorType) -> TensorType:
    if attrs.dtype.bits != x.dtype.bits:
        raise TypeError(f"bitcast: {x.dtype} and {attrs.dtype} differ in size")
    return x.with_dtype(attrs.dtype)


def infer_bitwise_count(attrs: Any, x: TensorType) -> TensorType:
    same_dtypes("bitwise_count", (x,), INTS)
    return x.with_dtype(u8)


def infer_ldexp(attrs: Any, x: TensorType, n: TensorType) -> TensorType:
    same_shapes("ldexp", (x, n))
    same_dtypes("ldexp", (x,), FLOATS)
    same_dtypes("ldexp", (n,), INTS)
    return x


def infer_reduce(attrs: ReduceAttrs, x: TensorType) -> TensorType:
    check_axes("reduction", attrs.axes, x.rank)
    return x.with_shape(tuple(d for i, d in enumerate(x.shape) if i not in attrs.axes))


def check_axes(name: str, axes: tuple[int, ...], rank: int) -> None:
    """Raise ``ValueError`` unless ``axes`` are increasing and within the rank."""
    if list(axes) != sorted(set(axes)) or any(not 0 <= a < rank for a in axes):
        raise ValueError(f"{name}: axes {axes} are not increasing numbers below the rank {rank}")


def infer_reshape(attrs: ReshapeAttrs, x: TensorType) -> TensorType:
    if not may_equal(size_of(attrs.shape), x.size):
        raise ValueError(f"reshape: {x.size} elements do not fill the shape {attrs.shape}")
    return x.with_shape(attrs.shape)


def infer_transpose(attrs: TransposeAttrs, x: TensorType) -> TensorType:
    if sorted(attrs.perm) != list(range(x.rank)):
        raise ValueError(f"transpose: {attrs.perm} does not permute {x.rank} axes")
    return x.with_shape(tuple(x.shape[p] for p in attrs.perm))


def infer_broadcast(attrs: BroadcastAttrs, x: TensorType) -> TensorType:
    check_axes("broadcast", attrs.axes, len(attrs.shape))
    if len(attrs.axes) != x.rank:
        raise ValueError(f"broadcast: {len(attrs.axes)} axes for an operand of rank {x.rank}")
    for d, a in zip(x.shape, attrs.axes, strict=True):
        if d != 1 and d != attrs.shape[a]:
            raise ValueError(f"broadcast: size {d} does not stretch to {attrs.shape[a]}")
    return x.with_shape(attrs.shape)


def infer_slice(attrs: SliceAttrs, x: TensorType) -> TensorType:
    shape = []
    for start, stop, step, d in zip(
        attrs.starts, attrs.stops, attrs.steps, x.shape, strict=True
    ):
        outside = less(start, 0) or less(stop, start) or less(d, stop)
        if outside or step < 1:
            raise ValueError(f"slice: {start}:{stop}:{step} is not within an axis of size {d}")
        shape.append(ceil_div(stop - start, step))
    return x.with_shape(tuple(shape))


def infer_flip(attrs: FlipAttrs, x: TensorType) -> TensorType:
    check_axes("flip", attrs.axes, x.rank)
    return x


def infer_pad(attrs: PadAttrs, x: TensorType, value: TensorType) -> TensorType:
    if value.rank or value.dtype is not x.dtype:
        raise TypeError(f"pad: the value is {value}, not {x.dtype}[]")
    shape = []
    for low, high, gap, d in zip(
        attrs.low, attrs.high, attrs.interior, x.shape, strict=True
    ):
        if less(low, 0) or less(high, 0) or gap < 0:
            raise ValueError("pad: a width is negative")
        gaps = gap and largest(0, d - 1) * gap
        shape.append(low + d + gaps + high)
    return x.with_shape(tuple(shape))


@overload
def windows(size: int, taps: int, stride: int, dilation: int) -> int: ...
@overload
def windows(size: Dim, taps: int, stride: int, dilation: int) -> Dim: ...
def windows(size: Dim, taps: int, stride: int, dilation: int) -> Dim:
    """How many windows there are along an axis of ``size`` elements; a named size has one."""
    count = (size - dilation * (taps - 1) - 1) // stride + 1
    return max(0, count) if isinstance(count, int) else count


def infer_window(attrs: WindowAttrs, x: TensorType) -> TensorType:
    check_axes("window", attrs.axes, x.rank)
    if {len(attrs.sizes), len(attrs.strides), len(attrs.dilations)} != {len(attrs.axes)}:
        raise ValueError("window: a size, stride or dilation per axis, no more and no fewer")
    if min((*attrs.sizes, *attrs.strides, *attrs.dilations), default=1) < 1:
        raise ValueError("window: a size, stride or dilation is below 1")
    shape = list(x.shape)
    for axis, taps, stride, dilation in zip(
        attrs.axes, attrs.sizes, attrs.strides, attrs.dilations, strict=True
    ):
        shape[axis] = windows(shape[axis], taps, stride, dilation)
    return x.with_shape((*shape, *attrs.sizes))


def without(shape: Shape, axis: int) -> Shape:
    """The sizes off this axis."""
    return shape[:axis] + shape[axis + 1:]


def infer_concat(attrs: ConcatAttrs, *types: TensorType) -> TensorType:
    if not types:
        raise ValueError("concat: no operands")
    same_dtypes("concat", types, ALL)
    first = types[0]
    check_axes("concat", (attrs.axis,), first.rank)
    for t in types:
        if t.rank != first.rank or without(t.shape, attrs.axis) != without(first.shape, attrs.axis):
            raise ValueError(
                f"concat: shapes {first.shape} and {t.shape} differ off axis {attrs.axis}")
    total: Dim = 0
    for t in types:
        total = total + t.shape[attrs.axis]
    return first.with_shape(first.shape[:attrs.axis] + (total,) + first.shape[attrs.axis + 1:])


def infer_contract(attrs: ContractAttrs, x: TensorType, y: TensorType) -> TensorType:
    same_dtypes("contract", (x, y), ALL)
    sizes: dict[int, Any] = {}
    for labels, t in ((attrs.lhs, x), (attrs.rhs, y)):
        if len(labels) != t.rank or len(set(labels)) != len(labels):
            raise ValueError(f"contract: labels {labels} do not name the axes of {t}")
        for label, d in zip(labels, t.shape, strict=True):
            if sizes.setdefault(label, d) != d:
                raise ValueError(
                    f"contract: label {label} has the sizes {sizes[label]} and {d}")
    both = set(attrs.lhs) & set(attrs.rhs)
    alone = (set(attrs.lhs) | set(attrs.rhs)) - both
    if len(set(attrs.out)) != len(attrs.out) or not alone <= set(attrs.out) <= both | alone:
        raise ValueError(
            f"contract: result labels {attrs.out} do not follow from {attrs.lhs}, {attrs.rhs}")
    return x.with_shape(tuple(sizes[label] for label in attrs.out))


def check_index(name: str, axis: int, x: TensorType, index: TensorType) -> None:
    check_axes(name, (axis,), x.rank)
    if not index.dtype.is_int:
        raise TypeError(f"{name}: the index has element type {index.dtype}, not an integer")


def infer_take(attrs: IndexAttrs, x: TensorType, index: TensorType) -> TensorType:
    check_index("take", attrs.axis, x, index)
    return x.with_shape(x.shape[:attrs.axis] + index.shape + x.shape[attrs.axis + 1:])


def infer_take_along(attrs: IndexAttrs, x: TensorType, index: TensorType) -> TensorType:
    check_index("take_along", attrs.axis, x, index)
    axis = attrs.axis
    if index.rank != x.rank or without(index.shape, axis) != without(x.shape, axis):
        raise ValueError(
            f"take_along: index shape {index.shape} does not fit {x.shape} off axis {axis}")
    return x.with_shape(index.shape)


def infer_put(rule: Callable[..., TensorType]) -> Callable[..., TensorType]:
    """The rule of the writing twin of a gather: the data's type."""
    def infer(
        attrs: PutAttrs, x: TensorType, index: TensorType, values: TensorType
    ) -> TensorType:
        if attrs.mode not in get_args(Mode):
            raise ValueError(f"put: the mode {attrs.mode!r} is not one of {get_args(Mode)}")
        read = rule(IndexAttrs(attrs.axis), x, index)
        if values != read:
            raise ValueError(f"put: values {values} where {read} is read")
        return x
    return infer


def infer_scan(name: str, allowed: tuple[DType, ...]) -> Callable[..., TensorType]:
    """The rule of a scan: the type of its inputs, which are equal."""
    def infer(attrs: ScanAttrs, *types: TensorType) -> TensorType:
        same_shapes(name, types)
        same_dtypes(name, types, allowed)
        check_axes(name, (attrs.axis,), types[0].rank)
        return types[0]
    return infer


def infer_argscan(attrs: ScanAttrs, x: TensorType) -> TensorType:
    check_axes("a running extreme", (attrs.axis,), x.rank)
    return x.with_dtype(i64)


def infer_sort(attrs: SortAttrs, x: TensorType) -> TensorType:
    axis = attrs.axis
    check_axes("sort", (axis,), x.rank)
    size = x.shape[axis]
    limits = (0, attrs.start, attrs.stop, size)
    if any(less(b, a) for a, b in zip(limits, limits[1:], strict=False)):
        raise ValueError(
            f"sort: {attrs.start} to {attrs.stop} is not within an axis of size {size}")
    return x.with_shape((*x.shape[:axis], attrs.stop - attrs.start, *x.shape[axis + 1:]))


def infer_argsort(attrs: SortAttrs, x: TensorType) -> TensorType:
    return infer_sort(attrs, x).with_dtype(i64)


def infer_searchsorted(attrs: SearchAttrs, x: TensorType, values: TensorType) -> TensorType:
    same_dtypes("searchsorted", (x, values), ALL)
    if x.rank != 1 and (x.rank != values.rank or x.shape[:-1] != values.shape[:-1]):
        raise ValueError(f"searchsorted: the rows of {x} are not those of {values}")
    if not x.rank:
        raise ValueError("searchsorted: the sorted values have no axis")
    return values.with_dtype(i64)


def no_inference(attrs: Any) -> TensorType:
    raise TypeError("the type of a source is given, not inferred")
