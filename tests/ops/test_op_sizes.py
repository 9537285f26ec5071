"""Every row of the op table with named sizes: compiled once, right for every number."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from group_cases import ends_of
from op_harness import (
    MODES,
    SCANS,
    SUMS,
    ULPS,
    complaint,
    elementwise_rows,
    input_dtypes,
    interpreted,
    random_values,
    reference,
    rng_of,
    sum_distance,
)

from tilewright.codegen.cpu import build, host_target
from tilewright.compiler.interp import run_plan
from tilewright.compiler.pipeline import Compiled, compile_graph
from tilewright.ir.attrs import (
    BroadcastAttrs,
    ConcatAttrs,
    ContractAttrs,
    FlipAttrs,
    IndexAttrs,
    IotaAttrs,
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
from tilewright.ir.graph import OPS, Graph, Node, Op, SizeAttrs, full, input_node, make
from tilewright.ir.groups import row_label
from tilewright.ir.sizes import Dim, evaluate, named, product
from tilewright.ir.symbolic import specialise
from tilewright.ir.text import parse, show
from tilewright.ir.types import DTYPES, DType, TensorType, accumulator, dtype_of, f32, f64, i64
from tilewright.ir.verify import verify
from tilewright.runtime.executable import SizedExecutable

n, m = named("n"), named("m")
Shapes = tuple[tuple[Dim, ...], ...]

SIZES = [{"n": a, "m": b} for a, b in ((0, 3), (1, 1), (2, 5), (7, 33), (130, 17), (64, 64))]
"""Nothing, one, around the width of a vector, and more than one tile."""

SCANNED = [
    (ScanAttrs(0), (n,)), (ScanAttrs(1), (n, m)), (ScanAttrs(0, True), (n, m)),
    (ScanAttrs(1, True), (2, n, m)), (ScanAttrs(1, True), (n, 17)), (ScanAttrs(0), (9, m)),
    (ScanAttrs(1), (3, m)),
]
SORTED = [
    (SortAttrs(1, False, 0, 17), ((n, 17),)), (SortAttrs(0, True, 0, 5), ((17, n),)),
    (SortAttrs(1, True, 0, 70), ((n, 70, 2),)), (SortAttrs(0, False, 40, 41), ((80, 3, n),)),
    (SortAttrs(0, True, 0, n), ((n,),)), (SortAttrs(1, False, 0, 1), ((3, m),)),
    (SortAttrs(0, False, 0, n), ((n, 2),)), (SortAttrs(1, False, 0, m), ((2, m),)),
]

SIZED: dict[str, list[tuple[Any, Shapes]]] = {
    **{name: [
        (ReduceAttrs((0,)), ((n,),)), (ReduceAttrs((1,)), ((n, 17),)),
        (ReduceAttrs((1,)), ((3, m),)), (ReduceAttrs((0,)), ((n, 5),)),
        (ReduceAttrs((0,)), ((17, n),)), (ReduceAttrs((0,)), ((n, m),)),
        (ReduceAttrs((0, 2)), ((n, 4, m),)), (ReduceAttrs((1,)), ((2, n, m),)),
        (ReduceAttrs((0, 1)), ((n, m),)),
    ] for name in ("sum", "prod", "reduce_max", "reduce_min")},
    "reshape": [
        (ReshapeAttrs((6 * n,)), ((n, 2, 3),)), (ReshapeAttrs((n, m, 4)), ((n, 4 * m),)),
        (ReshapeAttrs((m, 4, n)), ((2 * m, 2, n),)), (ReshapeAttrs((n, 1, 3)), ((n, 3),)),
        (ReshapeAttrs((2 * n, m)), ((n, 2 * m),)),
    ],
    "transpose": [
        (TransposeAttrs((1, 0)), ((n, 17),)), (TransposeAttrs((1, 0)), ((n, m),)),
        (TransposeAttrs((2, 0, 1)), ((2, n, m),)), (TransposeAttrs((0, 2, 1)), ((n, m, 6),)),
    ],
    "broadcast": [
        (BroadcastAttrs((n, 3), (1,)), ((3,),)), (BroadcastAttrs((n, m), (0,)), ((n,),)),
        (BroadcastAttrs((n, 3), (0, 1)), ((n, 1),)), (BroadcastAttrs((n, m), ()), ((),)),
        (BroadcastAttrs((2, n, 1, m), (1, 2)), ((n, 1),)),
    ],
    "slice": [
        (SliceAttrs((1,), (n + 1,), (1,)), ((n + 2,),)),
        (SliceAttrs((0, 2), (n, m + 1), (1, 3)), ((n, m + 4),)),
        (SliceAttrs((n,), (n + m,), (1,)), ((n + m,),)),
        (SliceAttrs((0, 0), (n, 3), (2, 1)), ((n, 4),)),
    ],
    "flip": [
        (FlipAttrs((0,)), ((n,),)), (FlipAttrs((1,)), ((3, m),)), (FlipAttrs((0, 2)), ((n, 3, m),)),
    ],
    "pad": [
        (PadAttrs((1,), (2,), (0,)), ((n,), ())), (PadAttrs((0, 1), (3, 0), (2, 1)), ((n, m), ())),
        (PadAttrs((m,), (n,), (0,)), ((n + 2,), ())),
    ],
    "window": [
        (WindowAttrs((1,), (3,), (1,), (1,)), ((n, m + 2),)),
        (WindowAttrs((1,), (2,), (2,), (1,)), ((n, 7, m),)),
        (WindowAttrs((0, 1), (2, 3), (2, 1), (1, 2)), ((n + 4, m + 9),)),
    ],
    "concat": [
        (ConcatAttrs(0), ((n,), (4,))), (ConcatAttrs(1), ((2, n), (2, 0), (2, m))),
        (ConcatAttrs(0), ((n, m), (1, m), (n, m))),
    ],
    "contract": [
        (ContractAttrs((0, 1), (1, 2), (0, 2)), ((n, 17), (17, 5))),
        (ContractAttrs((0, 1), (1, 2), (0, 2)), ((n, 70), (70, m))),
        (ContractAttrs((0, 1), (2, 1), (0, 2)), ((n, m), (33, m))),
        (ContractAttrs((1, 0), (1, 2), (2, 0)), ((n, 40), (n, 50))),
        (ContractAttrs((0, 1, 2), (0, 2, 3), (0, 1, 3)), ((n, 3, m), (n, m, 5))),
        (ContractAttrs((0, 1, 2), (0, 3, 2), (0, 1, 3)), ((2, n, 16), (2, m, 16))),
        (ContractAttrs((0,), (0,), ()), ((n,), (n,))),
        (ContractAttrs((0,), (1,), (0, 1)), ((n,), (m,))),
        (ContractAttrs((0, 1), (1,), (0,)), ((n, m), (m,))),
        (ContractAttrs((0, 1, 2), (3, 1, 2), (3, 0)), ((n, 3, m), (5, 3, m))),
        (ContractAttrs((0, 1, 4), (1, 2, 4), (2, 4, 0)), ((2, n, 5), (n, m, 5))),
    ],
    "contract_groups": [
        (ContractAttrs((0, 1), (2, 1, 3), (0, 3)), ((n, 17), (4, 17, 5), (4,))),
        (ContractAttrs((0, 1), (2, 3, 1), (0, 3)), ((n, m), (3, 40, m), (3,))),
        (ContractAttrs((0, 1), (2, 1, 3), (3, 0)), ((70, 5), (m, 5, n), (m,))),
        (ContractAttrs((0, 1), (0, 3), (2, 1, 3)), ((n, 17), (n, 33), (4,))),
        (ContractAttrs((0, 1), (0, 3), (2, 1, 3)), ((90, n), (90, m), (3,))),
        (ContractAttrs((1, 0), (0, 3), (3, 1, 2)), ((6, n), (n, 5), (m,))),
    ],
    "take": [
        (IndexAttrs(0), ((5,), (n,))), (IndexAttrs(0), ((n + 1, 17), (2, m))),
        (IndexAttrs(1), ((n, 4), (m,))), (IndexAttrs(1), ((3, m, n), ())),
    ],
    "take_along": [
        (IndexAttrs(0), ((5,), (n,))), (IndexAttrs(1), ((n, m), (n, 1))),
        (IndexAttrs(1), ((n, 4, m), (n, 6, m))),
    ],
    **{name: [(attrs, (shape,)) for attrs, shape in SCANNED] for name in SCANS},
    "recurrence": [(attrs, (shape, shape)) for attrs, shape in SCANNED],
    "sort": SORTED, "argsort": SORTED,
    "searchsorted": [
        (SearchAttrs(False), ((n,), (m,))), (SearchAttrs(True), ((n, 16), (n, m))),
        (SearchAttrs(True), ((m, n), (m, 5))),
    ],
    "put": [(PutAttrs(axis, mode), shapes) for mode in MODES for axis, shapes in (
        (0, ((5,), (n,), (n,))), (0, ((n + 1, 17), (2, m), (2, m, 17))),
        (1, ((n, 4), (m,), (n, m))),
    )],
    "put_along": [(PutAttrs(axis, mode), shapes) for mode in MODES for axis, shapes in (
        (0, ((5,), (n,), (n,))), (1, ((n, m), (n, 3), (n, 3))),
        (1, ((n, 4, m), (n, 6, m), (n, 6, m))),
    )],
}
"""Attributes and input shapes by row."""


def is_sum(op: Op, attrs: Any) -> bool:
    """Whether the order of additions or multiplications may show in the result."""
    return op.name in SUMS or getattr(attrs, "mode", "") in ("add", "mul")


class Case:
    """One row on inputs with named sizes."""

    def __init__(self, op: Op, attrs: Any, types: Sequence[TensorType], number: int) -> None:
        self.op, self.attrs, self.types = op, attrs, types
        self.inputs = [input_node(f"c{number}_{i}", t) for i, t in enumerate(types)]
        self.output = make(op, self.inputs, *(() if attrs is None else (attrs,)))

    def arrays(self, sizes: dict[str, int]) -> list[np.ndarray]:
        """Arguments for these sizes, with indices within their axis."""
        shapes = [tuple(evaluate(d, sizes) for d in t.shape) for t in self.types]
        rng = rng_of(self.op.name, repr(self.attrs), shapes)
        op = self.op if self.op.kind == "elementwise" else None
        arrays = [
            random_values(t.dtype, shape, rng, op)
            for t, shape in zip(self.types, shapes, strict=True)
        ]
        if self.op.name in ("prod", "cumprod") or getattr(self.attrs, "mode", "") == "mul":
            # Thousands of factors stay within the type.
            arrays = [
                (1 + a / 300).astype(a.dtype) if dtype_of(a).is_float else a for a in arrays]
        if self.op.name == "recurrence":
            arrays[0] = (arrays[0] / 4).astype(arrays[0].dtype)
        if self.op.kind == "search":
            wide = arrays[0].astype(accumulator(self.types[0].dtype).numpy)
            arrays[0] = np.sort(wide).astype(arrays[0].dtype)
        if self.op.kind == "grouped":
            rows = shapes[0][self.attrs.lhs.index(row_label(self.attrs))]
            arrays[2] = ends_of(rows, shapes[2][0], rng)
        if self.op.kind == "index":
            size = shapes[0][self.attrs.axis]
            arrays[1] = rng.integers(-size, max(size, 1), shapes[1]).astype(np.int64)
        return arrays

    def complaint(
        self, sizes: dict[str, int], arrays: list[np.ndarray], got: np.ndarray
    ) -> str:
        """Empty, or how the result differs from the meaning of the row for these numbers."""
        graph = specialise(Graph(tuple(self.inputs), (self.output,)), sizes)
        want = interpreted(graph, arrays)[0]
        attrs = graph.outputs[0].attrs
        where = f"{self.op.name} {self.attrs} {[str(t) for t in self.types]} {sizes}"
        if got.shape != want.shape or got.dtype != want.dtype:
            return f"{where}: got {got.dtype}{got.shape}, expected {want.dtype}{want.shape}"
        if is_sum(self.op, self.attrs) and dtype_of(want).is_float:
            distance, room = sum_distance(self.op, attrs, arrays, got)
            if self.op.name in ("prod", "cumprod") or getattr(self.attrs, "mode", "") == "mul":
                # Every factor may round, and no sign cancels what that leaves.
                room = room * max(1, arrays[-1].size / max(1, got.size) / 16)
            return "" if (distance <= room).all() else f"{where}: off by {distance.max()}"
        if self.op.kind == "elementwise":
            want = reference(self.op, None, arrays, want)
            room = ULPS[self.op.name] + (self.types[-1].dtype is f64) if (
                self.op.name in ULPS) else 0
            return complaint(self.op, where, arrays, got, want, room)
        return complaint(self.op, where, arrays, got, want, 0)


def compile_cases(cases: Sequence[Case]) -> tuple[Compiled, SizedExecutable]:
    """All cases as one program, whose kernels are verified."""
    inputs = [node for case in cases for node in case.inputs]
    graph = Graph(tuple(inputs), tuple(case.output for case in cases))
    verify(graph)
    assert parse(show(graph)).outputs == graph.outputs
    target = host_target()
    compiled = compile_graph(graph, target, hints={"n": 40, "m": 20})
    for lowered in compiled.kernels:
        verify(lowered.kernel)
    for launch in compiled.plan.launches:
        assert parse(show(launch.kernel)) == launch.kernel
    return compiled, SizedExecutable(compiled.plan, build(compiled.plan, target))


@functools.cache
def structured(dtype: DType) -> tuple[list[Case], Compiled, SizedExecutable]:
    cases = []
    for name, variants in SIZED.items():
        for attrs, shapes in variants if dtype in OPS[name].types else ():
            types = [TensorType(dtype, shape) for shape in shapes]
            if OPS[name].kind == "index":
                types[1] = types[1].with_dtype(i64)
            if OPS[name].kind == "grouped":
                types[2] = types[2].with_dtype(i64)
            cases.append(Case(OPS[name], attrs, types, len(cases)))
    return cases, *compile_cases(cases)


def check(cases: list[Case], run: Any, sizes: dict[str, int]) -> None:
    arrays = [case.arrays(sizes) for case in cases]
    results = run([a for group in arrays for a in group])
    wrong = [
        case.complaint(sizes, group, got)
        for case, group, got in zip(cases, arrays, results, strict=True)
    ]
    assert not any(wrong), "\n".join(filter(None, wrong))


def inside(cases: list[Case], sizes: dict[str, int]) -> bool:
    """Whether every indexed axis has an element."""
    return all(
        evaluate(case.types[0].shape[case.attrs.axis], sizes) > 0
        or evaluate(product(case.types[1].shape), sizes) == 0
        for case in cases if case.op.kind == "index"
    )


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [f32, f64, *map(DTYPES.get, ("bf16", "i32", "bool"))], ids=str)
def test_structured_rows(dtype: DType, sizes: dict[str, int]) -> None:
    cases, _, run = structured(dtype)
    assert inside(cases, sizes)
    check(cases, run, sizes)


@pytest.mark.parametrize("sizes", SIZES[:4], ids=str)
def test_structured_rows_as_plans(sizes: dict[str, int]) -> None:
    """The kernels in the interpreter: every access is inside, every barrier is there."""
    cases, compiled, _ = structured(f32)
    for backwards in (False, True):
        check(cases, lambda a: run_plan(compiled.plan, a, 3, backwards), sizes)


@pytest.mark.parametrize("dtype", [f32, *map(DTYPES.get, ("f16", "i64", "u8"))], ids=str)
def test_elementwise_rows(dtype: DType) -> None:
    cases = [
        Case(op, None, [TensorType(d, (n, 5)) for d in input_dtypes(op, dtype)], number)
        for number, op in enumerate(elementwise_rows(dtype))
    ]
    _, run = compile_cases(cases)
    for sizes in SIZES:
        sizes = {"n": sizes["n"]}
        check(cases, run, sizes)


def test_sources() -> None:
    x = input_node("x", TensorType(f32, (n, m)))
    outputs: list[Node] = [
        make("iota", (), IotaAttrs(axis), type=TensorType(dtype, (n, m)))
        for axis in (0, 1) for dtype in (i64, f32)
    ]
    outputs += [full(TensorType(f32, (m, 3)), 2.5), full(TensorType(f64, (2,)), 3 * n + m)]
    outputs.append(make("size", (), SizeAttrs(n * m), type=TensorType(i64, ())))
    graph = Graph((x,), tuple(outputs))
    target = host_target()
    plan = compile_graph(graph, target).plan
    run = SizedExecutable(plan, build(plan, target))
    for sizes in SIZES:
        array = np.zeros((sizes["n"], sizes["m"]), np.float32)
        for got, want in zip(
            run([array]), interpreted(specialise(graph, sizes), [array]), strict=True
        ):
            assert got.dtype == want.dtype and np.array_equal(got, want)
