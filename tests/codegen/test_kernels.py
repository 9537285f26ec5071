"""Every construct of the Kernel language: machine code against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from native import HOST_TIERS, check, loop, native, parallel

from tilewright.errors import CompilerBug
from tilewright.ir.interp import run_kernel
from tilewright.ir.loops import (
    Accumulate, Alloc, Buffer, Call, Check, Const, Expr, For, If, Kernel, Let, Load, Stmt, Store, Var,
    add, compare, floordiv, mod, mul, sub,
)
from tilewright.ir.types import DTYPES, DType, bf16, bool_, f16, f32, f64, i32, i64, u8

pytestmark = pytest.mark.parametrize("tier", HOST_TIERS)
RANDOM = np.random.default_rng(3)
I, J, K, P, S, U = map(Var, ("i", "j", "k", "p", "s", "u"))


def buffer(name: str, size: int, access: str = "in", dtype: DType = f32) -> Buffer:
    return Buffer(name, dtype, size, access=access)  # type: ignore[arg-type]


def numbers(n: int, dtype: DType = f32) -> np.ndarray:
    if dtype is bool_:
        return RANDOM.integers(0, 2, n).astype(bool)
    if dtype.is_int:
        return RANDOM.integers(0, 9, n).astype(dtype.numpy)
    return RANDOM.standard_normal(n).astype(dtype.numpy)


def plus(a: Expr, b: Expr, dtype: DType = f32) -> Expr:
    return Call("add", (a, b), dtype)


def times(a: Expr, b: Expr, dtype: DType = f32) -> Expr:
    return Call("mul", (a, b), dtype)


def serial(var: Var, n: int, *body: Stmt, kind: str = "serial", step: int = 1) -> For:
    return For(var, Const(0), Const(n), tuple(body), kind, step)  # type: ignore[arg-type]


def kernel(name: str, params: tuple[Buffer, ...], *body: Stmt) -> Kernel:
    return Kernel(name, params, (parallel(*body),))


@pytest.mark.parametrize("interleave", [1, 3])
def test_vector_tails(tier: str, interleave: int) -> None:
    width = 4
    for n in range(2 * width * interleave + 2):
        x, out = buffer("x", max(1, n)), buffer("out", max(1, n), "inout")
        body = loop("i", n, Store(out, I, plus(x[I], Const(1.0, f32))), width=width, interleave=interleave)
        check(kernel(f"tail{n}", (x, out), body), [numbers(max(1, n)), numbers(max(1, n))], tier)


@pytest.mark.parametrize("interleave", [1, 2, 3])
@pytest.mark.parametrize("dtype", [f32, f16, u8], ids=str)
def test_dynamic_bounds(tier: str, interleave: int, dtype: DType) -> None:
    """Rows of lengths 0, 1, 2 ... in one kernel: the bounds are variables."""
    rows, width = 2 * 4 * interleave + 3, 4
    x, out = buffer("x", rows * rows, "in", dtype), buffer("out", rows * rows, "inout", dtype)
    place = add(mul(S, rows), I)
    one = Const(1, dtype)
    inner = For(I, Const(0), S, (Store(out, place, plus(x[place], one, dtype)),), "vector", 1, width, interleave)
    check(kernel("dynamic", (x, out), serial(S, rows, inner)),
          [numbers(rows * rows, dtype), numbers(rows * rows, dtype)], tier)


def test_nonzero_start(tier: str) -> None:
    x, out = buffer("x", 40), buffer("out", 40, "inout")
    body = For(I, Const(3), Const(38), (Store(out, I, plus(x[I], x[sub(I, 3)])),), "vector", 1, 8, 2)
    check(kernel("start", (x, out), body), [numbers(40), numbers(40)], tier)


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_parallel_shares(tier: str, threads: int) -> None:
    """Also more threads than iterations, and a step."""
    x, out, strided = buffer("x", 70), buffer("out", 70, "out"), buffer("strided", 30, "inout")
    rows = parallel(loop("i", 10, Store(out, add(mul(P, 10), I), times(x[add(mul(P, 10), I)], Const(2.0, f32)))), n=7)
    steps = For(P, Const(2), Const(29), (Store(strided, P, x[P]),), "parallel", 9)
    check(Kernel("shares", (x, out, strided), (rows, steps)), [numbers(70), numbers(70), numbers(30)], tier,
          threads=threads)


def test_contiguous_reversed_strided_gathered(tier: str) -> None:
    n = 45
    x, index = buffer("x", 3 * n), buffer("index", n, "in", i64)
    outs = tuple(buffer(f"o{k}", n, "out") for k in range(6))
    reads = (I, sub(n - 1, I), mul(I, 3), index[I], mod(I, 7), add(sub(2 * n, mul(I, 2)), 1))
    body = loop("i", n, *(Store(o, I, x[e]) for o, e in zip(outs, reads, strict=True)), width=8, interleave=2)
    check(kernel("gather", (x, index, *outs), body),
          [numbers(3 * n), RANDOM.integers(0, 3 * n, n), *(numbers(n) for _ in outs)], tier)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_gather_and_scatter_of_every_type(tier: str, dtype: DType) -> None:
    n = 21
    x, index = buffer("x", n, "in", dtype), buffer("index", n, "in", i32)
    there, back = buffer("there", n, "inout", dtype), buffer("back", n, "out", dtype)
    at = Call("cast", (index[I],), i64)
    body = loop("i", n, Store(there, at, x[I]), Store(back, sub(n - 1, I), x[at]), width=4, interleave=2)
    check(kernel("scatter", (x, index, there, back), body),
          [numbers(n, dtype), RANDOM.permutation(n).astype(np.int32), numbers(n, dtype), numbers(n, dtype)], tier)


@pytest.mark.parametrize("dtype", [bf16, f16, u8], ids=str)
def test_single_lanes_write_their_own_bytes(tier: str, dtype: DType) -> None:
    """One active lane, known when the code is made, of a value that was narrowed."""
    x, out, other = (buffer(b, 8, a, dtype) for b, a in (("x", "in"), ("out", "inout"), ("other", "inout")))
    wide = Call("cast", (Call("cast", (x[I],), i32),), dtype)
    body = loop("i", 8, Store(out, I, wide, compare("lt", I, 1)), Store(other, I, wide, compare("eq", I, 3)), width=8)
    last = loop("i", 1, Store(out, add(I, 5), wide), width=8)
    check(kernel("single", (x, out, other), body, last), [numbers(8, dtype) for _ in range(3)], tier)


def test_strided_store_leaves_the_rest(tier: str) -> None:
    x, out = buffer("x", 19), buffer("out", 40, "inout")
    check(kernel("strided", (x, out), loop("i", 19, Store(out, mul(I, 2), x[I]), width=8)),
          [numbers(19), numbers(40)], tier)


def test_broadcasts(tier: str) -> None:
    """A scalar per row and a row for all rows."""
    rows, columns = 5, 19
    x, scale, bias = buffer("x", rows * columns), buffer("scale", rows), buffer("bias", columns)
    out = buffer("out", rows * columns, "out")
    place = add(mul(S, columns), I)
    value = plus(times(x[place], scale[S]), bias[I])
    check(kernel("broadcast", (x, scale, bias, out),
                 serial(S, rows, loop("i", columns, Store(out, place, value), width=8))),
          [numbers(rows * columns), numbers(rows), numbers(columns), numbers(rows * columns)], tier)


def test_index_as_value(tier: str) -> None:
    n = 23
    a, b = buffer("a", n, "out", i64), buffer("b", n, "out")
    c = buffer("c", n, "out", i64)
    body = loop("i", n, Store(a, I, mul(add(I, 5), -3)), Store(b, I, Call("cast", (I,), f32)),
                Store(c, I, Call("add", (floordiv(I, 5), mul(mod(I, 5), 100)), i64)), width=8, interleave=2)
    check(kernel("iota", (a, b, c), body), [numbers(n, i64), numbers(n), numbers(n, i64)], tier)


def test_flattened_index_divides_exactly(tier: str) -> None:
    """Blocked indices whose quotients and remainders follow from the loops' bounds."""
    x, out = buffer("x", 96), buffer("out", 96, "out")
    flat = add(add(mul(S, 32), mul(U, 8)), I)
    place = add(mul(mod(flat, 32), 3), floordiv(flat, 32))
    check(kernel("flat", (x, out), serial(S, 3, serial(U, 4, loop(
        "i", 8, Store(out, add(mul(floordiv(flat, 8), 8), mod(flat, 8)), x[place]), width=8)))),
        [numbers(96), numbers(96)], tier)


def test_column_sums_in_registers(tier: str) -> None:
    """A serial loop inside a vector loop: one accumulator per lane."""
    rows, columns = 7, 43
    x, out = buffer("x", rows * columns), buffer("out", columns, "out")
    acc = Buffer("acc", f32, 1, "register")
    body = loop(
        "i", columns, Alloc(acc), Store(acc, Const(0), Const(0.0, f32)),
        serial(S, rows, Accumulate(acc, Const(0), "add", x[add(mul(S, columns), I)])),
        Store(out, I, acc[0]), width=8, interleave=2,
    )
    check(kernel("columns", (x, out), body), [numbers(rows * columns), numbers(columns)], tier)


@pytest.mark.parametrize("order", ["row", "lane"])
@pytest.mark.parametrize("tile", [(4, 16), (3, 8), (1, 24)])
def test_register_tile(tier: str, order: str, tile: tuple[int, int]) -> None:
    """A small matrix product on packed panels."""
    m, n = tile
    k = 13
    a, b, c = buffer("a", m * k), buffer("b", n * k), buffer("c", m * n, "inout")
    acc = Buffer("acc", f32, m * n, "register")

    def tiled(s: Stmt) -> Stmt:
        if order == "row":
            return serial(U, m, loop("i", n, s, width=8, interleave=n // 8), kind="unroll")
        return loop("i", n, serial(U, m, s, kind="unroll"), width=8, interleave=n // 8)

    at = add(mul(U, n), I)
    step = Accumulate(acc, at, "add", times(a[add(mul(K, m), U)], b[add(mul(K, n), I)]))
    check(kernel("tile", (a, b, c), Alloc(acc), tiled(Store(acc, at, Const(0.0, f32))),
                 serial(K, k, tiled(step)), tiled(Store(c, at, plus(c[at], acc[at])))),
          [numbers(m * k), numbers(n * k), numbers(m * n)], tier, atol=1e-5)


def test_register_elements_of_a_vector(tier: str) -> None:
    """Single elements of a vector slot are read, and single slots are read as a vector."""
    x, out, sums = buffer("x", 8), buffer("out", 8, "out"), buffer("sums", 1, "out")
    vector, single = Buffer("vector", f32, 8, "register"), Buffer("single", f32, 8, "register")
    check(kernel(
        "elements", (x, out, sums), Alloc(vector), Alloc(single),
        loop("i", 8, Store(vector, I, x[I]), width=8),
        Store(sums, Const(0), plus(vector[3], vector[6])),
        serial(U, 8, Store(single, U, times(x[U], Const(2.0, f32))), kind="unroll"),
        loop("i", 8, Store(out, I, single[I]), width=8),
    ), [numbers(8), numbers(8), numbers(1)], tier)


OPS = [("add", f32), ("mul", f32), ("max", f32), ("min", f32), ("add", f64), ("max", i32), ("min", u8),
       ("and", i64), ("or", u8), ("and", bool_), ("or", bool_), ("max", bool_), ("add", bool_), ("add", i32)]


@pytest.mark.parametrize("n", [1, 7, 64, 129])
@pytest.mark.parametrize("space", ["register", "stack", "global"])
def test_full_reductions(tier: str, space: str, n: int) -> None:
    for op, dtype in OPS:
        x, out = buffer("x", n, "in", dtype), buffer("out", 1, "inout", dtype)
        total = Buffer("total", dtype, 1, space) if space != "global" else out  # type: ignore[arg-type]
        start = {"add": 0, "or": 0, "mul": 1, "and": -1}.get(op, 3 if dtype.is_float else 1)
        first = Const(bool(start) if dtype is bool_ else start, dtype)
        body: list[Stmt] = [Alloc(total)] if space != "global" else []
        body += [Store(total, Const(0), first),
                 loop("i", n, Accumulate(total, Const(0), op, x[I]), width=8, interleave=4)]
        if space != "global":
            body.append(Store(out, Const(0), total[0]))
        check(kernel(f"reduce_{op}", (x, out), *body), [numbers(n, dtype), numbers(1, dtype)], tier, rtol=2e-4)


@pytest.mark.parametrize("at", [0, 9, 63, 70])
def test_extremes_keep_nan(tier: str, at: int) -> None:
    x, out = buffer("x", 71), buffer("out", 2, "out")
    data = numbers(71)
    data[at] = np.nan
    compiled = check(kernel(
        "nan", (x, out), Store(out, Const(0), Const(-np.inf, f32)), Store(out, Const(1), Const(np.inf, f32)),
        loop("i", 71, Accumulate(out, Const(0), "max", x[I]), Accumulate(out, Const(1), "min", x[I]),
             width=8, interleave=4),
    ), [data, numbers(2)], tier)
    assert compiled.kernels[0].name == "nan"


def test_several_reductions_of_rows(tier: str) -> None:
    """Softmax: a maximum, a sum over the difference, a quotient; each row in three passes."""
    rows, columns = 4, 37
    x, out = buffer("x", rows * columns), buffer("out", rows * columns, "out")
    high, total = Buffer("high", f32, 1, "register"), Buffer("total", f32, 1, "register")
    row = Buffer("row", f32, columns, "stack")
    at = add(mul(S, columns), I)
    check(kernel("softmax", (x, out), Alloc(row), serial(
        S, rows, Alloc(high), Alloc(total), Store(high, Const(0), Const(-np.inf, f32)),
        Store(total, Const(0), Const(0.0, f32)),
        loop("i", columns, Accumulate(high, Const(0), "max", x[at]), width=8, interleave=4),
        loop("i", columns, Let(Var("e", f32), Call("exp", (Call("sub", (x[at], high[0]), f32),), f32)),
             Store(row, I, Var("e", f32)), Accumulate(total, Const(0), "add", Var("e", f32)), width=8, interleave=2),
        loop("i", columns, Store(out, at, Call("div", (row[I], total[0]), f32)), width=8),
    )), [numbers(rows * columns), numbers(rows * columns)], tier)


def test_accumulate_into_places_per_lane(tier: str) -> None:
    rows, columns = 6, 29
    x, out, back = buffer("x", rows * columns), buffer("out", columns, "inout"), buffer("back", columns, "inout")
    body = serial(S, rows, loop(
        "i", columns, Accumulate(out, I, "add", x[add(mul(S, columns), I)]),
        Accumulate(back, sub(columns - 1, I), "max", x[add(mul(S, columns), I)],
                   Call("gt", (x[I], Const(0.0, f32)), bool_)), width=8, interleave=2))
    check(kernel("bylane", (x, out, back), body), [numbers(rows * columns), numbers(columns), numbers(columns)], tier)


def test_accumulate_at_places_known_inside(tier: str) -> None:
    """The place depends on a loop inside the vector loop: joined at once."""
    x, out = buffer("x", 5 * 27), buffer("out", 5, "inout")
    body = loop("i", 27, serial(S, 5, Accumulate(out, S, "add", x[add(mul(S, 27), I)])), width=8, interleave=2)
    check(kernel("inside", (x, out), body), [numbers(5 * 27), numbers(5)], tier, rtol=1e-4)


def test_accumulate_under_a_branch(tier: str) -> None:
    x, out = buffer("x", 4 * 50), buffer("out", 2, "inout")
    body = serial(S, 4, loop("i", 50, If(
        compare("lt", mod(S, 2), 1),
        (Accumulate(out, Const(0), "add", x[add(mul(S, 50), I)]),),
        (Accumulate(out, Const(1), "max", x[add(mul(S, 50), I)], Call("lt", (x[I], Const(0.5, f32)), bool_)),)),
        width=8, interleave=2))
    check(kernel("branches", (x, out), body), [numbers(200), numbers(2)], tier, rtol=1e-4)


def test_serial_histogram(tier: str) -> None:
    index, out = buffer("index", 60, "in", i64), buffer("out", 9, "inout")
    body = serial(S, 60, Accumulate(out, index[S], "add", Const(1.0, f32), compare("lt", S, 50)))
    check(kernel("histogram", (index, out), body), [RANDOM.integers(0, 9, 60), numbers(9)], tier)


@pytest.mark.parametrize("dtype", [f32, f64, f16, u8, bool_], ids=str)
def test_masks(tier: str, dtype: DType) -> None:
    """Loads and stores beyond the ends are masked off, per lane and for all lanes."""
    n = 30
    x, out, shifted = (buffer(b, n, a, dtype) for b, a in (("x", "in"), ("out", "inout"), ("shifted", "out")))
    inside = Call("and", (compare("ge", I, 3), compare("lt", I, 25)), bool_)
    there = Load(x, sub(I, 3), compare("ge", I, 3), Const(1, dtype))
    beyond = Load(x, add(I, 1000), compare("lt", S, 0))
    mixed = plus(there, beyond, dtype)
    body = serial(S, 2, loop("i", n, Store(shifted, I, mixed), Store(out, I, x[I], inside), width=8, interleave=2))
    check(kernel("masks", (x, out, shifted), body), [numbers(n, dtype) for _ in range(3)], tier)


def test_scalar_masks(tier: str) -> None:
    x, out = buffer("x", 10), buffer("out", 12, "inout")
    value = Load(x, S, compare("lt", S, 10), Const(7.0, f32))
    check(kernel("scalar", (x, out), serial(S, 12, Store(out, S, value, compare("ne", S, 5)))),
          [numbers(10), numbers(12)], tier)


def test_masked_gather(tier: str) -> None:
    x, index, out = buffer("x", 20), buffer("index", 26, "in", i64), buffer("out", 26, "out")
    at = index[I]
    fits = Call("and", (compare("ge", at, 0), compare("lt", at, 20)), bool_)
    body = loop("i", 26, Store(out, I, Load(x, at, fits, Const(-1.0, f32))), width=8)
    check(kernel("fits", (x, index, out), body), [numbers(20), RANDOM.integers(-9, 40, 26), numbers(26)], tier)


def test_branches_join_registers(tier: str) -> None:
    x, out = buffer("x", 24), buffer("out", 24, "out")
    acc = Buffer("acc", f32, 2, "register")
    body = serial(
        S, 3, Alloc(acc), Store(acc, Const(1), Const(0.0, f32)),
        If(compare("eq", S, 1), (Store(acc, Const(0), Const(5.0, f32)),),
           (Store(acc, Const(0), x[S]), Accumulate(acc, Const(1), "add", x[add(S, 1)]))),
        loop("i", 8, Store(out, add(mul(S, 8), I), plus(x[I], plus(acc[0], acc[1]))), width=8),
    )
    check(kernel("join", (x, out), body), [numbers(24), numbers(24)], tier)


def test_branches_join_lanes_and_loops(tier: str) -> None:
    """A running value per lane that only some iterations of a loop change."""
    x, out = buffer("x", 5 * 20), buffer("out", 20, "out")
    acc = Buffer("acc", f32, 1, "register")
    body = loop(
        "i", 20, Alloc(acc), Store(acc, Const(0), x[I]),
        serial(S, 5, If(compare("ne", mod(S, 3), 0), (
            serial(K, 2, Accumulate(acc, Const(0), "max", times(x[add(mul(S, 20), I)], x[add(K, S)]))),))),
        Store(out, I, acc[0]), width=8, interleave=2,
    )
    check(kernel("lanes", (x, out), body), [numbers(100), numbers(20)], tier)


def test_loop_that_may_not_run(tier: str) -> None:
    x, out = buffer("x", 9), buffer("out", 9, "out")
    acc = Buffer("acc", f32, 1, "register")
    inner = For(K, Const(0), S, (Accumulate(acc, Const(0), "add", x[K]),))
    check(kernel("prefix", (x, out), serial(
        S, 9, Alloc(acc), Store(acc, Const(0), Const(1.0, f32)), inner, Store(out, S, acc[0]))),
        [numbers(9), numbers(9)], tier)


def test_checks(tier: str) -> None:
    """The code of the failed check is left; lanes beyond the end do not count."""
    index, out = buffer("index", 21, "in", i64), buffer("out", 21, "out")
    inside = Call("and", (compare("ge", index[I], 0), compare("lt", index[I], 10)), bool_)
    body = loop("i", 21, Check(inside, 5), Store(out, I, Const(1.0, f32)), width=8)
    k = kernel("checked", (index, out), body)
    good = RANDOM.integers(1, 10, 21)
    check(k, [good, numbers(21)], tier)
    good[20] = 10
    check(k, [good, numbers(21)], tier)
    positive = loop("i", 21, Check(compare("gt", add(index[I], 1), 0), 6), Store(out, I, Const(1.0, f32)), width=8)
    check(kernel("tail", (index, out), positive), [np.zeros(21, np.int64), numbers(21)], tier)


@pytest.mark.parametrize("offset", [0, 4])
def test_streaming(tier: str, offset: int) -> None:
    """Streaming stores where the place is aligned, plain ones where it is not."""
    x, out = buffer("x", 300), buffer("out", 300, "out")
    body = loop("i", 300, Store(out, I, plus(x[I], x[I]), None, True), width=16, interleave=2)
    compiled = native(kernel("stream", (x, out), body), tier)
    assert "!nontemporal" in compiled.text and "sfence" in compiled.text
    memory = np.zeros(2048, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    result = memory[start:start + 1200].view(np.float32)
    data = numbers(300)
    compiled.run(0, [data, result])
    np.testing.assert_array_equal(result, data + data)


def test_scratch_and_stack(tier: str) -> None:
    """A large buffer lives in the thread's scratch memory, a small one on the stack."""
    n = 9000
    x, out = buffer("x", n), buffer("out", n, "out")
    large, small = Buffer("large", f32, n, "stack"), Buffer("small", f32, 8, "stack")
    compiled = check(kernel(
        "scratch", (x, out), Alloc(large), Alloc(small),
        loop("i", n, Store(large, I, times(x[I], x[I])), width=8),
        loop("j", 8, Store(small, J, large[add(J, 100)]), width=8),
        loop("i", n, Store(out, sub(n - 1, I), plus(large[I], small[mod(I, 8)])), width=8),
    ), [numbers(n), numbers(n)], tier)
    assert compiled.emitted[0].scratch == 36032


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_sixteen_bit_floats_round_every_step(tier: str, dtype: DType) -> None:
    x, y, out = (buffer(b, 41, a, dtype) for b, a in (("x", "in"), ("y", "in"), ("out", "out")))
    total, wide = buffer("total", 1, "inout", dtype), buffer("wide", 1, "inout")
    value = Call("div", (plus(times(x[I], y[I], dtype), x[I], dtype), y[I]), dtype)
    check(kernel("halves", (x, y, out, total, wide), loop(
        "i", 41, Store(out, I, value), Accumulate(wide, Const(0), "add", Call("cast", (x[I],), f32)), width=8),
        serial(S, 41, Accumulate(total, Const(0), "add", x[S]))),
        [numbers(41, dtype), numbers(41, dtype), numbers(41, dtype), numbers(1, dtype), numbers(1)], tier)


def test_barriers_between_phases(tier: str) -> None:
    x, out = buffer("x", 40), buffer("out", 40, "out")
    middle = buffer("middle", 40, "workspace")
    first = parallel(loop("i", 10, Store(middle, add(mul(P, 10), I), x[add(mul(P, 10), I)]), width=4), n=4)
    second = parallel(loop("i", 10, Store(out, add(mul(P, 10), I), middle[sub(39, add(mul(P, 10), I))]), width=4), n=4)
    check(Kernel("phases", (x, out, middle), (first, second)), [numbers(40), numbers(40), numbers(40)], tier)


def test_equal_kernels_have_equal_names(tier: str) -> None:
    def make(name: str, n: int) -> str:
        x, out = buffer("x", n), buffer("out", n, "out")
        return native(kernel(name, (x, out), loop("i", n, Store(out, I, x[I]), width=4)), tier).emitted[0].name
    assert make("one", 9) == make("two", 9) != make("three", 10)


BAD = {
    "store to one place": lambda x, out: loop("i", 8, Store(out, Const(0), x[I]), width=8),
    "differ on": lambda x, out: loop("i", 8, Store(Buffer("r", f32, 1, "register"), Const(0), x[I]), width=8),
    "read before it is written": lambda x, out: Store(out, Const(0), Buffer("r", f32, 1, "register")[0]),
    "is not constant": lambda x, out: serial(S, 4, Store(Buffer("r", f32, 4, "register"), S, x[S])),
    "inside another": lambda x, out: loop("i", 8, loop("j", 8, Store(out, J, x[J])), width=8),
}


@pytest.mark.parametrize("message", BAD)
def test_broken_kernels_are_refused(tier: str, message: str) -> None:
    x, out = buffer("x", 8), buffer("out", 8, "out")
    with pytest.raises(CompilerBug, match=message):
        native(kernel("bad", (x, out), BAD[message](x, out)), tier)


def test_interpreter_agrees_on_what_is_written(tier: str) -> None:
    """The comparison itself: a wrong result is noticed."""
    x, out = buffer("x", 8), buffer("out", 8, "out")
    right = kernel("right", (x, out), loop("i", 8, Store(out, I, plus(x[I], x[I])), width=8))
    data, got, want = numbers(8), np.zeros(8, np.float32), np.zeros(8, np.float32)
    native(right, tier).run(0, [data, got])
    run_kernel(kernel("wrong", (x, out), loop("i", 8, Store(out, I, x[I]), width=8)), [data, want])
    assert not np.array_equal(got, want)
