"""The attribute records of the ops that are not elementwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from tilewright.ir.graph import Attrs
from tilewright.ir.sizes import Dim
from tilewright.ir.types import DType, Shape


@dataclass(frozen=True)
class CastAttrs(Attrs):
    """cast, bitcast: the element type of the result."""

    dtype: DType


@dataclass(frozen=True)
class IotaAttrs(Attrs):
    """iota: counts 0, 1, 2 ... along ``axis``, constant along the others."""

    axis: int


@dataclass(frozen=True)
class ReduceAttrs(Attrs):
    """sum, prod, max, min: the axes, sorted, that disappear."""

    axes: tuple[int, ...]


@dataclass(frozen=True)
class ReshapeAttrs(Attrs):
    """reshape: the new shape, in row-major order."""

    shape: Shape


@dataclass(frozen=True)
class TransposeAttrs(Attrs):
    """transpose: result axis i is operand axis ``perm[i]``."""

    perm: tuple[int, ...]


@dataclass(frozen=True)
class BroadcastAttrs(Attrs):
    """broadcast: operand axis i becomes result axis ``axes[i]`` (increasing); size 1 stretches."""

    shape: Shape
    axes: tuple[int, ...]


@dataclass(frozen=True)
class SliceAttrs(Attrs):
    """slice: per axis start <= stop within the operand, step >= 1."""

    starts: tuple[Dim, ...]
    stops: tuple[Dim, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True)
class FlipAttrs(Attrs):
    """flip: the axes that run backwards."""

    axes: tuple[int, ...]


@dataclass(frozen=True)
class PadAttrs(Attrs):
    """pad: places added before, after and between the elements of each axis, all >= 0."""

    low: tuple[Dim, ...]
    high: tuple[Dim, ...]
    interior: tuple[int, ...]


@dataclass(frozen=True)
class WindowAttrs(Attrs):
    """window: what a window of ``sizes`` elements, ``dilations`` apart, sees along ``axes``.

    A windowed axis of n elements becomes one of max(0, (n - dilation * (size - 1) - 1) // stride
    + 1) windows; behind all axes of the operand, one of ``size`` taps per windowed axis follows.
    Tap j of window i is the operand's element i * stride + j * dilation.
    """

    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]


@dataclass(frozen=True)
class ConcatAttrs(Attrs):
    """concat: the axis along which the operands stand one after another."""

    axis: int


@dataclass(frozen=True)
class ContractAttrs(Attrs):
    """contract: einsum on two operands; a number names each axis.

    Every label of ``out`` is in ``lhs`` or ``rhs``; labels of both that are missing in ``out`` are
    summed; no label stands in one operand alone without standing in ``out``; none repeats.
    """

    lhs: tuple[int, ...]
    rhs: tuple[int, ...]
    out: tuple[int, ...]


@dataclass(frozen=True)
class IndexAttrs(Attrs):
    """take, take_along: the indexed axis of the data.

    take(x, i)            result shape x[:axis] + i.shape + x[axis+1:]
    take_along(x, i)      i has x's shape but for ``axis``; result has i's shape

    Indices count from the end when negative; one outside the axis is an error of the run.
    """

    axis: int


Mode: TypeAlias = Literal["set", "add", "mul", "max", "min"]


@dataclass(frozen=True)
class PutAttrs(Attrs):
    """put, put_along: the indexed axis of the data, and how values meet what is there.

    put(x, i, v)          x with v brought to the places that take(x, i) reads
    put_along(x, i, v)    likewise for take_along

    A place that is named several times takes every value, in the row-major order of the index: of
    ``set`` the last one stays. Sums and products of 16-bit floats are rounded once; those of bools
    are "or" and "and". max and min are NaN where one value is.
    """

    axis: int
    mode: Mode


@dataclass(frozen=True)
class ScanAttrs(Attrs):
    """cumsum, cumprod, cummax ... recurrence: along ``axis``, from its end if ``reverse``."""

    axis: int
    reverse: bool = False


@dataclass(frozen=True)
class SortAttrs(Attrs):
    """sort, argsort: the places ``start`` to ``stop`` of the sorted ``axis``.

    Equal elements keep their order, -0.0 equals 0.0, and NaN counts as larger than any number: it
    stands last, or first if ``descending``.
    """

    axis: int
    descending: bool
    start: Dim
    stop: Dim


@dataclass(frozen=True)
class SearchAttrs(Attrs):
    """searchsorted: whether a value goes behind (``right``) or before those equal to it."""

    right: bool
