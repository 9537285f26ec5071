"""Serial algorithms: each item of a batch, a matrix or a number, is the work of one thread.

Matrices are copied into memory of the thread, in f64; they are small, for larger ones a library
that works in blocks is the quicker one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.access import Index, unflatten
from tilewright.compiler.schedules.group import Group, finish, output_buffers
from tilewright.compiler.schedules.item import Cells, Code, Value
from tilewright.compiler.schedules.pointwise import store_all
from tilewright.compiler.schedules.reduction import hold
from tilewright.compiler.schedules.routines import (
    complex_numbers,
    eigen,
    factors,
    recurrences,
    spectral,
    symmetric,
)
from tilewright.compiler.target import Target
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.sizes import Dim, product
from tilewright.ir.types import as_number, f64

MATRICES: dict[str, Callable[..., list[Cells]]] = {
    "cholesky": factors.cholesky, "lu": factors.lu, "qr": factors.qr,
    "reflect": factors.reflect, "exchange": factors.exchange,
    "triangular_solve": factors.triangular_solve,
    "ldl": symmetric.ldl, "ldl_solve": symmetric.ldl_solve,
    "eig": eigen.eig, "complex_lu": complex_numbers.complex_lu,
    "complex_triangular_solve": complex_numbers.complex_triangular_solve,
    "eigh": spectral.eigh, "svd": spectral.svd, "matrix_exp": spectral.matrix_exp,
}
"""(code, attributes, a matrix per input) -> the rows of the result, in one or several parts."""

NUMBERS: dict[str, Callable[..., Value]] = {
    "polynomial": recurrences.polynomial, "zeta": recurrences.zeta,
    "incomplete_gamma": recurrences.incomplete_gamma,
}
"""(code, attributes, a number per input) -> the result."""


def lower_routine(group: Group, target: Target) -> LoweredKernel:
    """One algorithm on each item."""
    (node,), w = group.anchors, group.writer()
    outputs = output_buffers(group)
    code = Code(w)
    matrices = node.op.name in MATRICES
    lead = node.shape[:-2] if matrices else node.shape

    def store(value: Value, index: Index) -> None:
        hold(w, node, w.let("r", value.to(node.dtype).e), index)
        store_all(group, w, outputs, index)
        w.bound.pop(node)

    with w.loop("p", 0, product(lead), "parallel") as p:
        at = tuple(w.let("o", e) for e in unflatten(p, lead))
        if not matrices:
            numbers = [code.name(Value(w.value(n, at))) for n in node.inputs]
            store(NUMBERS[node.op.name](code, node.attrs, *numbers), at)
        else:
            first = 0
            inputs = [_copied(code, n, at) for n in node.inputs]
            for part in MATRICES[node.op.name](code, node.attrs, *inputs):
                with code.loop(0, part.rows) as i, code.loop(0, part.columns) as j:
                    store(part[i, j], (*at, *_element((i + first, j), node.shape[-2:])))
                first += part.rows
    return finish(group, w, outputs)


def _element(place: tuple[Value, Value], shape: Sequence[Dim]) -> Index:
    """Where a number of a matrix stands; an axis of size 1 has one place."""
    return tuple(k.Const(0) if d == 1 else v.e for v, d in zip(place, shape, strict=True))


def _copied(code: Code, node: Node, at: Index) -> Cells:
    """A matrix in memory of the thread."""
    rows, columns = map(as_number, node.shape[-2:])
    made = code.cells(rows, columns)
    with code.loop(0, rows) as i, code.loop(0, columns) as j:
        value = Value(code.w.value(node, (*at, *_element((i, j), node.shape[-2:]))))
        made[i, j] = value.to(f64)
    return made
