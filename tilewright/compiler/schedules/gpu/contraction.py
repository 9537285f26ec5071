"""Contractions on a GPU: a thread for each element of the result."""

from __future__ import annotations

from contextlib import ExitStack

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, unflatten
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.pointwise import store_all
from tilewright.compiler.schedules.reduction import converted, hold, number
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.sizes import product
from tilewright.ir.types import accumulator


def lower_contraction(group: Group, target: Target) -> LoweredKernel:
    """Each thread sums the products of its element, and goes on with what is made of the sum."""
    (node,) = group.anchors
    w, attrs = group.writer(), node.attrs
    outputs = output_buffers(group)
    dtype = accumulator(node.dtype)
    sizes = dict(zip(attrs.lhs, node.inputs[0].shape, strict=True))
    summed = [label for label in attrs.lhs if label not in attrs.out]
    with w.loop("p", 0, product(group.shape), "parallel") as p:
        index: Index = tuple(w.let("o", e) for e in unflatten(p, group.shape))
        places = dict(zip(attrs.out, index, strict=True))
        total = w.alloc("acc", dtype, 1, "register")
        w.write(k.Store(total, k.Const(0), number(0, dtype)))
        with ExitStack() as loops:
            for label in summed:
                places[label] = loops.enter_context(w.loop("k", 0, sizes[label]))
            factors = [
                converted(w.value(operand, tuple(places[label] for label in labels)), dtype)
                for operand, labels in zip(node.inputs, (attrs.lhs, attrs.rhs), strict=True)
            ]
            w.write(k.Accumulate(total, k.Const(0), "add", k.Call("mul", tuple(factors), dtype)))
        hold(w, node, w.let("r", converted(k.Load(total, k.Const(0)), node.dtype)), index)
        store_all(group, w, outputs, index)
    return finish(group, w, outputs)
