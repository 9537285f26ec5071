"""Builders of scans, sorts, selections and searches along one axis, with PyTorch's conventions.

Positions are i64. An axis may be negative; a tensor without axes counts as one of a single element.
Wherever elements are put in order, equal ones keep their order, and NaN is larger than any number.
A builder raises ``ValueError`` for an axis or a place that does not exist.
"""

from __future__ import annotations

import math

from tilewright.ir.attrs import IndexAttrs, IotaAttrs, ScanAttrs, SearchAttrs, SortAttrs
from tilewright.ir.build import nan_test, reduce, reshape, shifted, unreduce, where
from tilewright.ir.graph import Node, apply, make
from tilewright.ir.sizes import Dim
from tilewright.ir.types import TensorType, i64

SCANS = {"add": "cumsum", "mul": "cumprod", "max": "cummax", "min": "cummin"}


def along(x: Node, axis: int) -> tuple[Node, int]:
    """``x`` with at least one axis, and the axis counted from the start."""
    rank = max(1, x.type.rank)
    if not -rank <= axis < rank:
        raise ValueError(f"no axis {axis} in {x.type}")
    return (x if x.type.rank else reshape(x, (1,))), axis % rank


def scan(op: str, x: Node, axis: int, reverse: bool = False) -> Node:
    """Running results of ``op`` ('add', 'mul', 'max', 'min'), from the other end if ``reverse``.

    f16 and bf16 accumulate in f32, integers wrap, an extreme is NaN from the first NaN on.
    """
    row, at = along(x, axis)
    return reshape(make(SCANS[op], (row,), ScanAttrs(at, reverse)), x.shape)


def cumulative_extreme(op: str, x: Node, axis: int, reverse: bool = False) -> tuple[Node, Node]:
    """The running 'max' or 'min' and where it stands: the last of equals, the last NaN."""
    row, at = along(x, axis)
    places = make(f"argcum{op}", (row,), ScanAttrs(at, reverse))
    return scan(op, x, axis, reverse), reshape(places, x.shape)


def recurrence(factors: Node, terms: Node, axis: int, reverse: bool = False) -> Node:
    """y[i] = factors[i] * y[i - 1] + terms[i] along an axis, with y[-1] = 0."""
    (a, at), (b, _) = along(factors, axis), along(terms, axis)
    return reshape(make("recurrence", (a, b), ScanAttrs(at, reverse)), terms.shape)


def logcumsumexp(x: Node, axis: int, reverse: bool = False) -> Node:
    """log(cumsum(exp(x))), without overflow."""
    row, at = along(x, axis)
    return reshape(make("logcumsumexp", (row,), ScanAttrs(at, reverse)), x.shape)


def argsort(x: Node, axis: int, descending: bool = False) -> Node:
    """The positions of the elements in order."""
    return sort(x, axis, descending)[1]


def sort(x: Node, axis: int, descending: bool = False) -> tuple[Node, Node]:
    """The elements in order, and where they came from."""
    row, at = along(x, axis)
    values, places = places_of(row, at, descending, 0, row.shape[at])
    return reshape(values, x.shape), reshape(places, x.shape)


def places_of(
    x: Node, axis: int, descending: bool, start: Dim, stop: Dim
) -> tuple[Node, Node]:
    """The places ``start`` to ``stop`` of the sorted axis: elements, and where they came from."""
    attrs = SortAttrs(axis, descending, start, stop)
    return make("sort", (x,), attrs), make("argsort", (x,), attrs)


def topk(x: Node, k: Dim, axis: int, largest: bool = True) -> tuple[Node, Node]:
    """The ``k`` largest (or smallest) elements in order, and where they stand."""
    row, at = along(x, axis)
    values, places = places_of(row, at, largest, 0, k)
    shape = values.shape if x.type.rank or k != 1 else ()
    return reshape(values, shape), reshape(places, shape)


def kth_value(x: Node, k: Dim, axis: int) -> tuple[Node, Node]:
    """The element at place ``k`` (from 0) of the sorted axis, and where it stands; without
    that axis."""
    row, at = along(x, axis)
    values, places = places_of(row, at, False, k, k + 1)
    shape = row.shape[:at] + row.shape[at + 1:]
    return reshape(values, shape), reshape(places, shape)


def median(x: Node, axis: int) -> tuple[Node, Node]:
    """The lower median and where it stands; NaN, and where the first one stands, if there
    is one. Without that axis."""
    row, at = along(x, axis)
    size = row.shape[at]
    values, places = kth_value(x, (size - 1) // 2, axis)
    if not x.dtype.is_float:
        return values, places
    first = reduce("reduce_min", where(nan_test(row), counted(row, at), size), [at])
    none = apply("eq", first, size)
    return where(none, values, math.nan), where(none, places, first)


def mode(x: Node, axis: int) -> tuple[Node, Node]:
    """The most frequent element (the smallest of several) and the last place where it stands."""
    row, at = along(x, axis)
    if row.shape[at] == 0:
        raise ValueError(f"no mode along the empty axis {axis} of {x.type}")
    values, places = sort(row, at)
    position = counted(row, at)
    begins = apply("ne", values, shifted(values, at, 1, 0)) | apply("eq", position, 0)
    length = position - scan("max", where(begins, position, 0), at)
    longest = unreduce(reduce("reduce_max", length, [at]), row.shape, [at])
    found = reduce("reduce_min", where(apply("eq", length, longest), position, row.shape[at]), [at])
    shape = row.shape[:at] + row.shape[at + 1:]
    index = reshape(found, (*row.shape[:at], 1, *row.shape[at + 1:]))

    def chosen(data: Node) -> Node:
        return reshape(make("take_along", (data, index), IndexAttrs(at)), shape)
    return chosen(values), chosen(places)


def counted(x: Node, axis: int) -> Node:
    """0, 1, 2 ... along an axis of the shape of ``x``."""
    return make("iota", (), IotaAttrs(axis), type=TensorType(i64, x.shape))


def searchsorted(rows: Node, values: Node, right: bool = False) -> Node:
    """How many elements of the sorted row come before each value: those smaller, or, if ``right``,
    those not larger. ``rows`` has one axis, or the shape of ``values`` but for the last axis.
    """
    if rows.type.rank > 1 and not values.type.rank:
        raise ValueError(f"searchsorted: {values.type} has no row in {rows.type}")
    return make("searchsorted", (rows, values), SearchAttrs(right))
