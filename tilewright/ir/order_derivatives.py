"""Cotangents of the inputs of scans and sorts: (node, cotangent) -> one node per input."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.ir.attrs import ScanAttrs
from tilewright.ir.build import cast, put_along, shifted
from tilewright.ir.graph import Node, full, make
from tilewright.ir.transposes import Cotangents
from tilewright.ir.types import accumulator


def cumsum(node: Node, ct: Node) -> Cotangents:
    """Each element is in every sum from its place on."""
    return (make("cumsum", (ct,), backwards(node.attrs)),)


def backwards(attrs: ScanAttrs) -> ScanAttrs:
    """From the other end."""
    return ScanAttrs(attrs.axis, not attrs.reverse)


def cumprod(node: Node, ct: Node) -> Cotangents:
    """The product of what is before an element, times the sum over the results from its place on
    of their cotangents times what stands between; that sum is a recurrence. Zeros do no harm.
    """
    axis, reverse = node.attrs.axis, node.attrs.reverse
    wide = accumulator(node.dtype)
    x = cast(node.inputs[0], wide)
    before = shifted(make("cumprod", (x,), node.attrs), axis, -1 if reverse else 1, 1)
    following = shifted(x, axis, 1 if reverse else -1, 1)
    after = make("recurrence", (following, cast(ct, wide)), backwards(node.attrs))
    return (cast(before * after, node.dtype),)


def recurrence(node: Node, ct: Node) -> Cotangents:
    """The cotangent runs back through the same factors, each of which moved one place."""
    axis, reverse = node.attrs.axis, node.attrs.reverse
    following = shifted(node.inputs[0], axis, 1 if reverse else -1, 0)
    back = make("recurrence", (following, ct), backwards(node.attrs))
    return back * shifted(node, axis, -1 if reverse else 1, 0), back


def running(place: str) -> Callable[[Node, Node], Cotangents]:
    """The cotangent goes to where the running extreme stands."""
    def transposed(node: Node, ct: Node) -> Cotangents:
        x = node.inputs[0]
        return (scattered(x, make(place, (x,), node.attrs), ct, node.attrs.axis),)
    return transposed


def sort(node: Node, ct: Node) -> Cotangents:
    """The cotangent goes to where each element came from."""
    x = node.inputs[0]
    return (scattered(x, make("argsort", (x,), node.attrs), ct, node.attrs.axis),)


def scattered(x: Node, places: Node, ct: Node, axis: int) -> Node:
    """Zeros like ``x`` with ``ct`` added at these places along an axis."""
    return put_along(full(x.type, 0), places, ct, axis, "add")
