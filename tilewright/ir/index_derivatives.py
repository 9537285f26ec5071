"""Cotangents of the inputs of gathers and scatters, like those in ``transposes.py``.

Equal extremes share the cotangent, as everywhere; of several values for one place, ``set`` gives it
to the one that stayed. A product is divided by each of its factors, zeros counted apart, as PyTorch
does it: exact but for rounding, and of any order where no factor is zero.
"""

from __future__ import annotations

from collections.abc import Callable

from tilewright.ir.attrs import IndexAttrs, Mode, PutAttrs
from tilewright.ir.build import broadcast, cast, iota, reshape, where
from tilewright.ir.build import put as put_node
from tilewright.ir.build import take as take_node
from tilewright.ir.graph import Node, Operand, apply, full, make
from tilewright.ir.transposes import Cotangents
from tilewright.ir.types import accumulator

TWINS = {"take": "put", "take_along": "put_along", "put": "take", "put_along": "take_along"}


def take(node: Node, ct: Node) -> Cotangents:
    """The cotangent of the data is added up at the places that were read."""
    x, index = node.inputs
    attrs = PutAttrs(node.attrs.axis, "add")
    return make(TWINS[node.op.name], (full(x.type, 0), index, ct), attrs), None


def take_along(node: Node, ct: Node) -> Cotangents:
    """One index per row: an elementwise choice that joins other kernels; else a scatter."""
    x, index = node.inputs
    axis = node.attrs.axis
    if index.shape[axis] != 1:
        return take(node, ct)
    size = x.shape[axis]
    # Looked up in 0, 1, 2 ...: counted from the start, and an error if it is outside.
    counted = take_node(iota(size), index, 0)
    every = list(range(len(x.shape)))
    hits = apply("eq", iota(size, x.shape, axis), broadcast(counted, x.shape, every))
    return where(hits, broadcast(ct, x.shape, every), 0), None


def put(node: Node, ct: Node) -> Cotangents:
    """By mode."""
    data, values = _RULES[node.attrs.mode](node, ct)
    return data, None, values


def _read(node: Node, x: Node) -> Node:
    """What the places of a scatter hold in ``x``."""
    return make(TWINS[node.op.name], (x, node.inputs[1]), IndexAttrs(node.attrs.axis))


def _write(node: Node, x: Operand, values: Operand, mode: Mode, like: Node | None = None) -> Node:
    """Another scatter to the same places; numbers are typed as ``like`` is."""
    dtype = (like if like is not None else node).dtype
    data, index, added = node.inputs
    x, values = (
        v if isinstance(v, Node) else full(n.type.with_dtype(dtype), v)
        for n, v in ((data, x), (added, values))
    )
    return make(node.op, (x, index, values), PutAttrs(node.attrs.axis, mode))


def _set(node: Node, ct: Node) -> tuple[Node, Node]:
    """What was written over has no influence, nor has a value that was."""
    stayed = _stayed(node)
    read = _read(node, ct)
    return _write(node, ct, 0, "set"), read if stayed is None else where(stayed, read, 0)


def _stayed(node: Node) -> Node | None:
    """Which values of a ``set`` hold their places in the end; None: certainly all."""
    _, index, values = node.inputs
    axis = node.attrs.axis
    if node.op.name == "put_along":
        if index.shape[axis] == 1:
            return None
        order = iota(index.shape[axis], index.shape, axis)
        last = _write(node, 0, order, "set", order)
        return apply("eq", _read(node, last), order)
    if index.type.size == 1:
        return None
    order = reshape(iota(index.type.size), index.shape)
    size = node.shape[axis]
    last = put_node(full(order.type.with_shape((size,)), 0), index, order, 0, "set")
    stayed = apply("eq", take_node(last, index, 0), order)
    return broadcast(stayed, values.shape, range(axis, axis + index.type.rank))


def _add(node: Node, ct: Node) -> tuple[Node, Node]:
    return ct, _read(node, ct)


def _mul(node: Node, ct: Node) -> tuple[Node, Node]:
    """Each factor's is the product of all the others."""
    x, values = (cast(n, accumulator(node.dtype)) for n in (node.inputs[0], node.inputs[2]))
    wide, zero, none = cast(ct, x.dtype), apply("eq", x, 0), apply("eq", values, 0)
    count = _read(node, _write(node, cast(zero, x.dtype), cast(none, x.dtype), "add", x))
    product = _read(node, _write(node, where(zero, 1, x), where(none, 1, values), "mul", x))
    others = where(
        none, where(apply("eq", count, 1), product, 0),
        where(apply("eq", count, 0), product / where(none, 1, values), 0))
    data = wide * _write(node, 1, values, "mul", x)
    return cast(data, node.dtype), cast(_read(node, wide) * others, node.dtype)


def _extreme(node: Node, ct: Node) -> tuple[Node, Node]:
    """Equal extremes share the cotangent."""
    x, _, values = node.inputs
    wide = accumulator(node.dtype)
    hits = apply("eq", x, node), apply("eq", values, _read(node, node))
    count = _write(node, cast(hits[0], wide), cast(hits[1], wide), "add", cast(x, wide))
    # A place with NaN has no hit.
    share = cast(cast(ct, wide) / apply("max", count, 1), node.dtype)
    return where(hits[0], share, 0), where(hits[1], _read(node, share), 0)


_RULES: dict[str, Callable[[Node, Node], tuple[Node, Node]]] = {
    "set": _set, "add": _add, "mul": _mul, "max": _extreme, "min": _extreme,
}
