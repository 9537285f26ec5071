"""Products of groups of rows, as of experts: where one group ends and the next begins is data.

An einsum of three tensors, of which the third is 1 where a row belongs to a group and 0 elsewhere:

    product    result[row, n] = sum of x[row, k] * y[group of the row, k, n] over k
    outer      result[group, k, n] = sum of x[row, k] * y[row, n] over the rows of the group

Group g has the rows from ``ends[g - 1]`` (0 for the first) to ``ends[g]``. Ends that decrease, are
negative or lie beyond the last row mean the largest end so far, none or all rows. A row behind the
last end belongs to no group. Each form's gradients are products of groups as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.ir import meaning
from tilewright.ir.attrs import ContractAttrs, IotaAttrs, ScanAttrs
from tilewright.ir.build import broadcast, cast, contract, reduce, shifted, take, where
from tilewright.ir.graph import Node, apply, full, make
from tilewright.ir.infer import same_dtypes
from tilewright.ir.sizes import Dim, product
from tilewright.ir.types import FLOATS, TensorType, i64


def is_outer(attrs: ContractAttrs) -> bool:
    """Whether the result has an axis of groups, rather than the second operand."""
    return len(attrs.out) == 3


def group_label(attrs: ContractAttrs) -> int:
    """The label of the groups."""
    large, small = (attrs.out, attrs.rhs) if is_outer(attrs) else (attrs.rhs, attrs.out)
    (label,) = set(large) - set(attrs.lhs) - set(small)
    return label


def row_label(attrs: ContractAttrs) -> int:
    """The label of the rows."""
    (label,) = set(attrs.lhs) & set(attrs.rhs if is_outer(attrs) else attrs.out)
    return label


def contract_groups(
    x: Node, y: Node, ends: Node, lhs: Sequence[int], rhs: Sequence[int], out: Sequence[int]
) -> Node:
    """A product of groups, by labels; see above."""
    return make("contract_groups", (x, y, ends), ContractAttrs(tuple(lhs), tuple(rhs), tuple(out)))


def infer(attrs: ContractAttrs, x: TensorType, y: TensorType, ends: TensorType) -> TensorType:
    """The type of the result."""
    same_dtypes("contract_groups", (x, y), FLOATS)
    if ends.dtype is not i64 or ends.rank != 1:
        raise TypeError(f"contract_groups: the ends have type {ends}, not i64 along one axis")
    each = attrs.lhs, attrs.rhs, attrs.out
    ranks, names = tuple(map(len, each)), [set(labels) for labels in each]
    shared = [len(names[a] & names[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    fits = ranks in ((2, 2, 3), (2, 3, 2)) and ranks[:2] == (x.rank, y.rank)
    if not fits or shared != [1, 1, 1] or [len(n) for n in names] != list(ranks) or len(
            set().union(*names)) != 4:
        raise ValueError(
            f"contract_groups: {attrs.lhs}, {attrs.rhs} -> {attrs.out} is no product of groups")
    sizes = {group_label(attrs): ends.shape[0]}
    for labels, t in ((attrs.lhs, x), (attrs.rhs, y)):
        for label, d in zip(labels, t.shape, strict=True):
            if sizes.setdefault(label, d) != d:
                raise ValueError(
                    f"contract_groups: label {label} has the sizes {sizes[label]} and {d}")
    return x.with_shape(tuple(sizes[label] for label in attrs.out))


def products(node: Node) -> Dim:
    """Products of numbers that are formed if every row belongs to a group."""
    labels = (*node.attrs.lhs, *node.attrs.rhs)
    sizes = dict(zip(labels, node.inputs[0].shape + node.inputs[1].shape, strict=True))
    sizes.pop(group_label(node.attrs), None)
    return product(sizes.values())


def compute(
    attrs: ContractAttrs, type: TensorType, x: np.ndarray, y: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """One group after another."""
    row, group = row_label(attrs), group_label(attrs)
    rows = x.shape[attrs.lhs.index(row)]
    stops = np.clip(np.maximum.accumulate(ends), 0, rows)
    result = np.zeros(type.shape, type.dtype.numpy)
    start = 0
    for number, stop in enumerate(stops):
        arrays = [_part(array, labels, row, slice(start, stop), group, number) for array, labels in
                  ((x, attrs.lhs), (y, attrs.rhs), (result, attrs.out))]
        labels = [tuple(label for label in of if label != group)
                  for of in (attrs.lhs, attrs.rhs, attrs.out)]
        part = TensorType(type.dtype, arrays[2].shape)
        arrays[2][...] = meaning.contract(ContractAttrs(*labels), part, *arrays[:2])
        start = stop
    return result


def _part(
    array: np.ndarray, labels: tuple[int, ...], row: int, rows: slice, group: int, number: int
) -> Any:
    """What a group sees of an array, which is not copied."""
    whole: Any = slice(None)
    return array[tuple(
        rows if label == row else number if label == group else whole for label in labels)]


def transpose(node: Node, ct: Node) -> tuple[Node | None, ...]:
    """The cotangents of both operands are products of groups."""
    (x, y, ends), a = node.inputs, node.attrs
    if is_outer(a):
        of_x = contract_groups(y, ct, ends, a.rhs, a.out, a.lhs)
        of_y = contract_groups(x, ct, ends, a.lhs, a.out, a.rhs)
    else:
        of_x = contract_groups(ct, y, ends, a.out, a.rhs, a.lhs)
        of_y = contract_groups(x, ct, ends, a.lhs, a.out, a.rhs)
    return of_x, of_y, None


def expand(node: Node) -> Node:
    """The same, of rows each with the matrix of its group, or of all rows masked for each group."""
    (x, y, ends), a = node.inputs, node.attrs
    row, group = row_label(a), group_label(a)
    axis = a.lhs.index(row)
    rows, groups = x.shape[axis], ends.shape[0]
    shape = (groups, rows)
    if groups == 0:
        return full(node.type, 0)
    number = make("iota", (), IotaAttrs(1), type=TensorType(i64, shape))
    stops = apply("max", make("cummax", (ends,), ScanAttrs(0)), 0)
    passed = apply("le", broadcast(stops, shape, (0,)), number)
    if not is_outer(a):
        own = reduce("sum", cast(passed, i64), (0,))
        nobody = apply("ge", own, groups)
        each = take(y, apply("min", own, groups - 1), a.rhs.index(group))
        rhs = tuple(row if label == group else label for label in a.rhs)
        found = contract(x, each, a.lhs, rhs, a.out)
        return where(broadcast(nobody, node.shape, (a.out.index(row),)), 0, found)
    before = apply("gt", broadcast(shifted(stops, 0, 1, 0), shape, (0,)), number)
    inside = apply("logical_not", apply("logical_or", passed, before))
    masked = []
    for operand, labels in ((x, a.lhs), (y, a.rhs)):
        wide = (groups, *operand.shape)
        belongs = broadcast(inside, wide, (0, 1 + labels.index(row)))
        masked.append(where(belongs, broadcast(operand, wide, (1, 2)), 0))
    left, right = masked
    return contract(left, right, (group, *a.lhs), (group, *a.rhs), a.out)
