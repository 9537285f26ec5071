"""What the tests of the op table share: inputs for every row, executors, and the comparison.

An executor is a function (graph, arrays) -> arrays. The interpreter is the definition; the expanded
graph and the compiled program are compared with it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
import pytest
from group_cases import GROUPED, ends_of
from on_gpus import on_gpu, on_hardware

from tilewright.codegen.cpu import build, host_target
from tilewright.compiler.pipeline import compile_graph
from tilewright.errors import UserError
from tilewright.ir import ops
from tilewright.ir.attrs import (
    BroadcastAttrs,
    ConcatAttrs,
    ContractAttrs,
    FlipAttrs,
    IndexAttrs,
    IotaAttrs,
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
from tilewright.ir.expansions import expand_all
from tilewright.ir.graph import OPS, Graph, Node, Op, input_node, make
from tilewright.ir.groups import row_label
from tilewright.ir.interp import run_graph
from tilewright.ir.types import (
    DType,
    TensorType,
    accumulator,
    bool_,
    dtype_of,
    f64,
    i32,
)
from tilewright.runtime.executable import Executable

assert ops  # the import fills the table

SIZES = (0, 1, 7, 15, 16, 17, 33, 100)
"""Around every vector width."""

ULPS: dict[str, float] = {
    **dict.fromkeys((
        "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin",
        "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "cbrt",
        "pow", "float_power", "rsqrt", "hypot",
    ), 2),
    "degrees": 1, "rad2deg": 1, "radians": 1, "deg2rad": 1, "sigmoid": 4, "sinc": 4,
    "logaddexp": 4, "logaddexp2": 4, "ldexp": 1,
}
"""Allowed distance from the exact result, in units in the last place; 0 for all others."""

COMMON = [0.0, -0.0, 1, -1, 0.5, -0.5, 2, 3.7, -3.7, 1e-3, 7, np.nan, np.inf, -np.inf]
EXTREME = {
    "f16": [6e-8, 6.1e-5, 65504, 1e4], "bf16": [1e-40, 1.2e-38, 3e38, 1e4],
    "f32": [1e-45, 1.1754944e-38, 3.4028235e38, 1e20, 1e-30],
    "f64": [5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 1e40, 1e-200],
}


def special_values(dtype: DType) -> np.ndarray:
    """NaN, infinities, signed zeros, denormals, extremes, and ordinary numbers."""
    if dtype is bool_:
        return np.array([False, True])
    if dtype.is_float:
        extreme = EXTREME[dtype.name]
        return np.array(COMMON + extreme + [-x for x in extreme]).astype(dtype.numpy)
    info = np.iinfo(dtype.numpy)
    low = {-1, -2, -3, -7} if dtype.kind == "i" else set()
    chosen = {0, 1, 2, 3, 5, 7, info.bits, info.max, info.max - 1, info.min, info.min + 1} | low
    return np.array(sorted(chosen), dtype=object).astype(dtype.numpy)


def rng_of(*key: object) -> np.random.Generator:
    """Random numbers that depend only on the key."""
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def random_values(dtype: DType, shape: Any, rng: np.random.Generator, op: Op | None) -> np.ndarray:
    """Ordinary numbers, floats within the row's domain."""
    if dtype.is_float:
        low, high = op.domain if op is not None else (-3.0, 3.0)
        return rng.uniform(low, high, shape).astype(dtype.numpy)
    if dtype is bool_:
        return rng.integers(0, 2, shape).astype(bool)
    return rng.integers(0 if dtype.kind == "u" else -9, 10, shape).astype(dtype.numpy)


def input_dtypes(op: Op, dtype: DType) -> list[DType]:
    """The inputs' element types of an elementwise row for the element type ``dtype``."""
    found = [dtype] * (op.arity or 1)
    if op.name == "where":
        found[0] = bool_
    if op.name == "ldexp":
        found[1] = i32
    return found


def special_inputs(op: Op, dtype: DType) -> list[np.ndarray]:
    """Every combination of special values."""
    columns = [special_values(d) for d in input_dtypes(op, dtype)]
    if op.name == "ldexp":
        columns[1] = np.array([0, 1, -1, 5, -20, 2**31 - 1, -2**31], np.int32)
    if len(columns) == 3:
        columns = [c[::3] if len(c) > 12 else c for c in columns]
    grids = [np.ascontiguousarray(g).ravel() for g in np.meshgrid(*columns, indexing="ij")]
    keep = meaningful(op, grids)
    return [g[keep] for g in grids]


def meaningful(op: Op, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """False where the row promises nothing (each case is in the documentation of the op)."""
    if op.name in ("mod", "fmod") and arrays[0].dtype == np.float64:
        with np.errstate(all="ignore"):
            return ~(np.isfinite(arrays[0]) & (np.abs(arrays[0] / arrays[1]) > 2.0**190)
                     & (arrays[1] != 0))
    return np.ones(arrays[0].shape, bool)


def elementwise_rows(dtype: DType) -> list[Op]:
    """The rows with this element type whose attributes are empty."""
    return [
        op for op in OPS.values()
        if op.kind == "elementwise" and dtype in op.types and op.name not in ("cast", "bitcast")
    ]


def graph_of(op: Op, attrs: Any, arrays: Sequence[np.ndarray], prefix: str = "") -> Graph:
    """One node of the row on inputs that fit the arrays."""
    inputs = [
        input_node(f"{prefix}{op.name}_{i}", TensorType(dtype_of(a), a.shape))
        for i, a in enumerate(arrays)
    ]
    return Graph(tuple(inputs), (make(op, inputs, *(() if attrs is None else (attrs,))),))


def joined(graphs: Sequence[Graph]) -> Graph:
    """All of the graphs side by side."""
    inputs: list[Node] = []
    outputs: list[Node] = []
    for number, graph in enumerate(graphs):
        fresh = [input_node(f"g{number}_{n.attrs.name}", n.type) for n in graph.inputs]
        inputs += fresh
        outputs += [make(n.op, [fresh[graph.inputs.index(i)] for i in n.inputs], n.attrs,
                         type=n.type if n.op.kind == "source" else None)
                    for n in graph.outputs]
    return Graph(tuple(inputs), tuple(outputs))


# --- executors ----------------------------------------------------------------------------
Executor = Callable[[Graph, Sequence[np.ndarray]], list[np.ndarray]]


def interpreted(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The definition."""
    return run_graph(graph, arrays)


def expanded(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The definition of the primitives that the ops are made of."""
    with np.errstate(all="ignore"):
        return run_graph(expand_all(graph), arrays)


def compiled(tier: str) -> Executor:
    """Machine code for a tier. Skips the test where the host has no such tier."""
    if tier == "cuda":
        return on_hardware()
    if tier.startswith("sm_"):
        return on_gpu(tier)
    try:
        target = host_target(tier)
    except UserError as error:
        pytest.skip(str(error))

    def run(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        plan = compile_graph(graph, target).plan
        return Executable(plan, build(plan, target))(arrays)
    return run


def run_together(
    run: Executor, graphs: Sequence[Graph], arrays: Sequence[Sequence[np.ndarray]]
) -> list[np.ndarray]:
    """The result of each graph, all run as one; one by one if that fails, to name the guilty."""
    try:
        return run(joined(graphs), [a for group in arrays for a in group])
    except Exception:
        for graph, group in zip(graphs, arrays, strict=True):
            try:
                run(graph, group)
            except Exception as error:
                raise AssertionError(f"{graph.outputs[0]} fails alone") from error
        raise


# --- comparison ---------------------------------------------------------------------------
def reference(op: Op, attrs: Any, arrays: Sequence[np.ndarray], want: np.ndarray) -> np.ndarray:
    """The exact result: for a function with a tolerance on a narrow float, computed in f64."""
    if op.name not in ULPS or want.dtype == np.float64 or want.dtype.kind in "biu":
        return want
    wide = [a.astype(np.float64) if dtype_of(a).is_float else a for a in arrays]
    with np.errstate(all="ignore"):
        type_ = TensorType(f64, want.shape)
        return op.numpy(attrs, type_, *wide).astype(want.dtype)


CANCELS = {"logaddexp", "logaddexp2"}
"""Rows whose result is a difference that may be small: the operands' units count."""


def mismatches(
    got: np.ndarray, want: np.ndarray, ulps: float, scale: np.ndarray | None = None
) -> np.ndarray:
    """True where ``got`` is not ``want``: in NaN, sign of zero, or more than ``ulps`` off.

    The units are those of ``want``, or of ``scale`` where that is larger.
    """
    if want.dtype.kind in "biu":
        return got != want
    g, w = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(all="ignore"):
        same = (g == w) & ((g != 0) | (np.signbit(g) == np.signbit(w)))
        same |= np.isnan(g) & np.isnan(w)
        if ulps:
            room = ulps * spacing_of(want)
            if scale is not None:
                room = np.maximum(room, ulps * spacing_of(scale))
            # Results that underflow may lose their sign and their last bit.
            same |= np.isfinite(g) & np.isfinite(w) & (np.abs(g - w) <= room)
            largest = np.isfinite(w) & (np.abs(w) >= largest_of(want.dtype) * (1 - 1e-6))
            same |= largest & np.isinf(g) & (np.sign(g) == np.sign(w))
    return ~same


def spacing_of(x: np.ndarray) -> np.ndarray:
    """One unit in the last place, at least the smallest denormal, as f64."""
    bits, least = {
        "float16": (10, -24), "bfloat16": (7, -133), "float32": (23, -149), "float64": (52, -1074),
    }[x.dtype.name]
    _, exponent = np.frexp(np.abs(x.astype(np.float64)))
    return np.ldexp(1.0, np.maximum(exponent - 1 - bits, least))


def largest_of(dtype: np.dtype) -> float:
    """The largest finite number."""
    return {"float16": 65504.0, "bfloat16": 3.3895313892515355e38,
            "float32": 3.4028234663852886e38, "float64": 1.7976931348623157e308}[dtype.name]


def complaint(
    op: Op, dtype: object, arrays: Sequence[np.ndarray], got: np.ndarray, want: np.ndarray,
    ulps: float,
) -> str:
    """Empty, or what is wrong, with the first few places."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return (f"{op.name} {dtype}: got {got.dtype}{got.shape}, "
                f"expected {want.dtype}{want.shape}")
    with np.errstate(invalid="ignore"):
        scale = np.fmax(*map(np.abs, arrays)) if op.name in CANCELS else None
    bad = np.argwhere(mismatches(got, want, ulps, scale))
    if not len(bad):
        return ""
    lines = [f"{op.name} {dtype} {want.shape}: {len(bad)} of {want.size} wrong"]
    for place in map(tuple, bad[:4]):
        shown = ", ".join(repr(a[place]) for a in arrays if a.shape == want.shape)
        lines.append(f"    at {place} ({shown}): got {got[place]!r}, expected {want[place]!r}")
    return "\n".join(lines)


# --- rows that are not elementwise --------------------------------------------------------
def _slice(*parts: tuple[int, int, int]) -> SliceAttrs:
    return SliceAttrs(*(tuple(p[i] for p in parts) for i in range(3)))


def _pad(*parts: tuple[int, int, int]) -> PadAttrs:
    return PadAttrs(*(tuple(p[i] for p in parts) for i in range(3)))


MODES = get_args(Mode)
SUMS = (
    "sum", "prod", "contract", "contract_groups", "cumsum", "cumprod", "recurrence", "logcumsumexp")
"""Rows whose results depend on the order of additions or multiplications."""

SCANS = ("cumsum", "cumprod", "cummax", "cummin", "argcummax", "argcummin", "logcumsumexp")
SCANNED = [
    (ScanAttrs(0), (5,)), (ScanAttrs(1, True), (3, 17)), (ScanAttrs(0), (17, 3)),
    (ScanAttrs(1), (2, 5, 33)), (ScanAttrs(0, True), (33,)), (ScanAttrs(1), (9, 4)),
    (ScanAttrs(0), (1, 7)), (ScanAttrs(1), (3, 0)), (ScanAttrs(1, True), (2, 3, 2, 2)),
]
SORTED: list[tuple[SortAttrs, tuple[tuple[int, ...], ...]]] = [
    (SortAttrs(0, False, 0, 5), ((5,),)), (SortAttrs(1, True, 0, 17), ((3, 17),)),
    (SortAttrs(0, False, 0, 17), ((17, 3),)), (SortAttrs(1, True, 0, 2), ((2, 5, 3),)),
    (SortAttrs(1, False, 2, 3), ((3, 4),)), (SortAttrs(0, False, 0, 1), ((1, 7),)),
    (SortAttrs(1, False, 0, 0), ((3, 0),)), (SortAttrs(0, True, 0, 300), ((300,),)),
    (SortAttrs(0, False, 149, 151), ((300,),)),
]


STRUCTURED: dict[str, list[tuple[Any, tuple[tuple[int, ...], ...]]]] = {
    **{name: [
        (ReduceAttrs((0,)), ((5,),)), (ReduceAttrs((1,)), ((3, 17),)),
        (ReduceAttrs((0,)), ((17, 3),)), (ReduceAttrs((0, 2)), ((3, 4, 5),)),
        (ReduceAttrs((1,)), ((3, 0),)), (ReduceAttrs((0, 1)), ((2, 2),)),
        (ReduceAttrs((1,)), ((2, 5, 33),)), (ReduceAttrs((0,)), ((1, 7),)),
    ] for name in ("sum", "prod", "reduce_max", "reduce_min")},
    "reshape": [
        (ReshapeAttrs((6,)), ((2, 3),)), (ReshapeAttrs((3, 1, 2)), ((2, 3),)),
        (ReshapeAttrs((4, 9)), ((6, 6),)), (ReshapeAttrs(()), ((1, 1),)),
        (ReshapeAttrs((0, 5)), ((3, 0),)),
    ],
    "transpose": [
        (TransposeAttrs((1, 0)), ((5, 17),)), (TransposeAttrs((2, 0, 1)), ((2, 3, 4),)),
        (TransposeAttrs((0, 2, 1)), ((2, 9, 7),)), (TransposeAttrs((0,)), ((3,),)),
    ],
    "broadcast": [
        (BroadcastAttrs((4, 3), (1,)), ((3,),)), (BroadcastAttrs((4, 3), (0,)), ((4,),)),
        (BroadcastAttrs((4, 3), (0, 1)), ((4, 1),)), (BroadcastAttrs((2, 17), ()), ((),)),
        (BroadcastAttrs((2, 3, 1, 5), (1, 2)), ((3, 1),)), (BroadcastAttrs((3, 0), (1,)), ((1,),)),
    ],
    "slice": [
        (_slice((1, 4, 1)), ((5,),)), (_slice((0, 20, 3), (2, 9, 2)), ((20, 9),)),
        (_slice((2, 2, 1), (0, 3, 1)), ((4, 3),)), (_slice((1, 6, 4)), ((7,),)),
    ],
    "flip": [
        (FlipAttrs((0,)), ((5,),)), (FlipAttrs((1,)), ((3, 17),)),
        (FlipAttrs((0, 2)), ((2, 3, 4),)), (FlipAttrs(()), ((3,),)),
    ],
    "pad": [
        (_pad((1, 2, 0)), ((5,), ())), (_pad((0, 1, 2), (3, 0, 1)), ((3, 4), ())),
        (_pad((2, 1, 1)), ((0,), ())), (_pad((0, 0, 0), (0, 0, 1)), ((2, 9), ())),
    ],
    "window": [
        (WindowAttrs((0,), (3,), (1,), (1,)), ((9,),)),
        (WindowAttrs((1,), (3,), (2,), (1,)), ((2, 40),)),
        (WindowAttrs((0, 1), (3, 2), (1, 2), (2, 3)), ((7, 19, 2),)),
        (WindowAttrs((1, 2), (2, 3), (2, 1), (1, 1)), ((2, 5, 20),)),
        (WindowAttrs((0,), (4,), (4,), (1,)), ((13, 3),)),
        (WindowAttrs((0,), (2,), (3,), (1,)), ((11,),)),
        (WindowAttrs((1,), (9,), (1,), (1,)), ((2, 20),)),
        (WindowAttrs((1,), (5,), (1,), (1,)), ((3, 4),)),
        (WindowAttrs((), (), (), ()), ((3, 4),)),
    ],
    "concat": [
        (ConcatAttrs(0), ((3,), (4,))), (ConcatAttrs(1), ((2, 3), (2, 0), (2, 17))),
        (ConcatAttrs(0), ((2, 3), (1, 3))), (ConcatAttrs(0), ((4,),)),
    ],
    "contract": [
        (ContractAttrs((0, 1), (1, 2), (0, 2)), ((3, 17), (17, 5))),
        (ContractAttrs((0, 1), (2, 1), (0, 2)), ((4, 3), (5, 3))),
        (ContractAttrs((1, 0), (1, 2), (2, 0)), ((7, 3), (7, 4))),
        (ContractAttrs((0, 1, 2), (0, 2, 3), (0, 1, 3)), ((2, 3, 4), (2, 4, 5))),
        (ContractAttrs((0,), (0,), ()), ((9,), (9,))),
        (ContractAttrs((0,), (1,), (0, 1)), ((3,), (4,))),
        (ContractAttrs((0, 1), (1,), (0,)), ((5, 17), (17,))),
        (ContractAttrs((0, 1), (0, 1), (1,)), ((3, 4), (3, 4))),
        (ContractAttrs((0, 1, 2), (3, 1, 2), (3, 0)), ((2, 3, 4), (5, 3, 4))),
        (ContractAttrs((0, 1), (1, 2), (0, 2)), ((3, 0), (0, 5))),
        (ContractAttrs((), (0,), (0,)), ((), (3,))),
        (ContractAttrs((0, 1, 4), (1, 2, 4), (2, 4, 0)), ((2, 3, 5), (3, 4, 5))),
    ],
    "contract_groups": GROUPED,
    "take": [
        (IndexAttrs(0), ((5,), (3,))), (IndexAttrs(0), ((5, 17), (2, 3))),
        (IndexAttrs(1), ((3, 4), (6,))), (IndexAttrs(1), ((3, 4, 2), ())),
        (IndexAttrs(0), ((4, 3), (0,))),
    ],
    "take_along": [
        (IndexAttrs(0), ((5,), (3,))), (IndexAttrs(1), ((3, 4), (3, 1))),
        (IndexAttrs(0), ((4, 17), (2, 17))), (IndexAttrs(1), ((2, 3, 4), (2, 6, 4))),
    ],
    "put": [(PutAttrs(axis, mode), shapes) for mode in MODES for axis, shapes in (
        (0, ((5,), (3,), (3,))), (0, ((5, 17), (2, 3), (2, 3, 17))), (1, ((3, 4), (6,), (3, 6))),
        (0, ((4, 3), (0,), (0, 3))), (1, ((3, 4, 2), (), (3, 2))), (0, ((2, 130), (9,), (9, 130))),
        (0, ((300,), (40,), (40,))), (1, ((2, 3, 4, 2), (2, 4), (2, 2, 4, 4, 2))),
        (0, ((0, 3), (0,), (0, 3))), (0, ((5, 3), (40,), (40, 3))),
    )],
    "put_along": [(PutAttrs(axis, mode), shapes) for mode in MODES for axis, shapes in (
        (0, ((5,), (3,), (3,))), (1, ((3, 4), (3, 1), (3, 1))), (1, ((3, 4), (3, 9), (3, 9))),
        (1, ((2, 3, 4), (2, 6, 4), (2, 6, 4))), (0, ((3, 133), (5, 133), (5, 133))),
        (0, ((200, 3), (40, 3), (40, 3))), (1, ((3, 4), (3, 0), (3, 0))), (0, ((5,), (41,), (41,))),
    )],
    **{name: [(attrs, (shape,)) for attrs, shape in SCANNED] for name in SCANS},
    "recurrence": [(attrs, (shape, shape)) for attrs, shape in SCANNED],
    "sort": SORTED, "argsort": SORTED,
    "searchsorted": [
        (SearchAttrs(False), ((7,), (3, 5))), (SearchAttrs(True), ((16,), (33,))),
        (SearchAttrs(True), ((2, 5), (2, 17))), (SearchAttrs(False), ((1,), ())),
        (SearchAttrs(False), ((0,), (3,))), (SearchAttrs(True), ((5,), (0,))),
    ],
    "iota": [(IotaAttrs(0), ((7,),)), (IotaAttrs(1), ((3, 17),)), (IotaAttrs(0), ((3, 17),))],
}
"""Attributes and input shapes (for iota: the result's shape), by row."""

GIVEN = {"input", "full", "const", "size", "cast", "bitcast"} | {
    name for name, op in OPS.items() if op.kind == "routine"}
"""Rows whose tests are written out: sources, conversions and routines."""


def structured_inputs(
    op: Op, attrs: Any, shapes: Sequence[tuple[int, ...]], dtype: DType
) -> list[np.ndarray]:
    """Random data, with indices within their axis, negative ones too."""
    rng = rng_of(op.name, attrs, shapes, dtype)
    arrays = [random_values(dtype, shape, rng, None) for shape in shapes]
    if op.kind == "index":
        size = shapes[0][attrs.axis]
        arrays[1] = rng.integers(-size, size, shapes[1]).astype(np.int64)
    if op.kind == "grouped":
        arrays[2] = ends_of(shapes[0][attrs.lhs.index(row_label(attrs))], shapes[2][0], rng)
    if op.kind == "search":
        arrays[0] = np.sort(arrays[0].astype(accumulator(dtype).numpy)).astype(dtype.numpy)
    return arrays


def sum_distance(
    op: Op, attrs: Any, arrays: Sequence[np.ndarray], got: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """|got - exact result| and what adding or multiplying in another order may cost."""
    wide = [a.astype(np.float64) if dtype_of(a).is_float else a for a in arrays]
    sizes = [np.abs(a) if a.dtype == np.float64 else a for a in wide]
    result = TensorType(f64, got.shape)
    exact = op.numpy(attrs, result, *wide)
    size = 1 + abs(exact) if op.name == "logcumsumexp" else op.numpy(attrs, result, *sizes)
    bits = {"f64": 52, "f32": 23}[accumulator(dtype_of(got)).name]
    room = 16 * size * 2.0**-bits + spacing_of(exact.astype(got.dtype))
    return np.abs(got.astype(np.float64) - exact), room
