"""Sums, means and maxima of bags of rows of a table, and their gradients.

Bags lie one after another in ``indices``, each from its offset on. Bags of equal size are an axis
of their own; others are summed by a scatter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tilewright.ir import build, ordered
from tilewright.ir.graph import Node, make
from tilewright.ir.types import TensorType, i64
from tilewright.torch.nodes import cast, expand, from_start, iota, number, reduce, wide
from tilewright.torch.ops.creation import progression
from tilewright.torch.ops.reductions import position
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten

SUM, MEAN, MAX = range(3)


@dataclass(frozen=True)
class _Bags:
    """The bags of a call. ``even``: how many indices each has, if that is the same."""

    indices: Node
    offsets: Node
    count: int
    even: int | None

    @staticmethod
    def of(indices: Node, offsets: Node, last: bool) -> _Bags:
        """``last``: the end of the last bag stands in ``offsets`` too."""
        total, count = int(indices.shape[0]), int(offsets.shape[0]) - last
        each = total // count if count and not total % count else 0
        starts = cast(offsets, i64)
        equal = each > 0 and not last and starts is progression(
            TensorType(i64, (count,)), 0, each)
        return _Bags(indices, starts, count, each if equal else None)

    def bag_of(self) -> Node:
        """The bag that each index is in."""
        places = iota(self.indices.shape, 0)
        if self.even:
            return make("floordiv", (places, number(self.even, i64, places.shape)))
        found = ordered.searchsorted(self.offsets, places, right=True)
        return cast(found, i64) - 1

    def total(self, rows: Node) -> Node:
        """The sums of rows (one per index) in each bag."""
        rest = rows.shape[1:]
        if self.even:
            split = build.reshape(rows, (self.count, self.even, *rest))
            return reduce("sum", split, (1,))
        zeros = number(0, rows.dtype, (self.count, *rest))
        return build.put(zeros, self.bag_of(), rows, 0, "add")


def _shares(bags: _Bags, samples: Node | None, padding: int, like: Node) -> Node | None:
    """By what each index counts; None where all count once."""
    share = None if samples is None else cast(samples, like.dtype)
    if padding < 0:
        return share
    counts = make("ne", (bags.indices, number(padding, bags.indices.dtype, bags.indices.shape)))
    kept = cast(counts, like.dtype)
    return kept if share is None else share * kept


def _scaled(rows: Node, share: Node | None) -> Node:
    return rows if share is None else rows * build.broadcast(share, rows.shape, (0,))


def _sizes(bags: _Bags, padding: int, like: Node) -> Node:
    """How many indices of each bag count."""
    ones = _shares(bags, None, padding, like)
    if ones is None:
        ones = number(1, like.dtype, bags.indices.shape)
    return bags.total(ones)


@row(aten._embedding_bag, aten._embedding_bag_forward_only)
def embedding_bag(
    call: Call, weight: Node, indices: Node, offsets: Node, scale_grad_by_freq: bool = False,
    mode: int = SUM, sparse: bool = False, per_sample_weights: Node | None = None,
    include_last_offset: bool = False, padding_idx: int = -1,
) -> list[Node]:
    bags = _Bags.of(indices, offsets, include_last_offset)
    table = cast(weight, wide(weight.dtype))
    rows = build.take(table, from_start(indices), 0)
    sizes = _sizes(bags, padding_idx, table)
    places = number(0, i64, call.out[3].shape)
    if mode == MAX:
        if not bags.even or padding_idx >= 0:
            raise NotCompiled("the maximum of bags of different sizes")
        split = build.reshape(rows, (bags.count, bags.even, *rows.shape[1:]))
        out = reduce("reduce_max", split, (1,))
        which = position(split, 1, build.reshape(out, (bags.count, 1, *rows.shape[1:])), False)
        table_rows = build.reshape(cast(indices, i64), (bags.count, bags.even))
        places = build.take_along(table_rows, which, 1)
    else:
        out = bags.total(_scaled(rows, _shares(bags, per_sample_weights, padding_idx, table)))
        if mode == MEAN:
            out = out / expand(build.reshape(_divisor(sizes), (bags.count, 1)), out.shape)
    bag_of = bags.bag_of() if call.out[1].size else number(0, i64, call.out[1].shape)
    return [out, bag_of, build.reshape(sizes, call.out[2].shape), places]


def _divisor(sizes: Node) -> Node:
    return make("max", (sizes, number(1, sizes.dtype, sizes.shape)))


@row(aten._embedding_bag_backward, aten._embedding_bag_dense_backward)
def embedding_bag_backward(
    call: Call, grad: Node, indices: Node, *rest: object, padding_idx: int = -1
) -> Node:
    # The dense operator is not told the offsets, only the bag of each index.
    dense = call.target is aten._embedding_bag_dense_backward.default
    offsets = None if dense else rest[0]
    bag_of, _, places, count, by_frequency, mode, *more = rest[0 if dense else 1:]
    sparse, samples, *padding = (False, *more) if dense else more
    padding_idx = int(padding[0]) if padding else padding_idx  # type: ignore[call-overload]
    if by_frequency or sparse:
        raise NotCompiled("gradients that are sparse or scaled by frequency")
    if not isinstance(offsets, Node):
        raise NotCompiled("gradients of bags by the bag of each index")
    bags = _Bags.of(indices, offsets, int(offsets.shape[0]) != int(grad.shape[0]))
    g = cast(grad, wide(grad.dtype))
    zeros = number(0, g.dtype, (int(count), g.shape[1]))  # type: ignore[call-overload]
    if mode == MAX:
        if not isinstance(places, Node) or places.shape != g.shape:
            raise NotCompiled("the maximum of bags of different sizes")
        return build.put_along(zeros, places, g, 0, "add")
    if mode == MEAN:
        sizes = _divisor(_sizes(bags, padding_idx, g))
        g = g / build.broadcast(sizes, g.shape, (0,))
    weights = samples if isinstance(samples, Node) else None
    rows = _scaled(_repeated(bags, g), _shares(bags, weights, padding_idx, g))
    return build.put(zeros, indices, rows, 0, "add")


def _repeated(bags: _Bags, g: Node) -> Node:
    """The row of each index's bag."""
    if not bags.even:
        return build.take(g, bags.bag_of(), 0)
    shape = (bags.count, bags.even, g.shape[1])
    return build.reshape(build.broadcast(g, shape, (0, 2)), (bags.count * bags.even, g.shape[1]))


@row(aten._embedding_bag_per_sample_weights_backward)
def per_sample_weights_backward(
    call: Call, grad: Node, weight: Node, indices: Node, offsets: Node, bag_of: Node, mode: int,
    padding_idx: int = -1,
) -> Node:
    bags = _Bags.of(indices, offsets, int(offsets.shape[0]) != int(grad.shape[0]))
    g, table = (cast(x, wide(x.dtype)) for x in (grad, weight))
    products = _repeated(bags, g) * build.take(table, from_start(indices), 0)
    return _scaled(reduce("sum", products, (1,)), _shares(bags, None, padding_idx, g))
