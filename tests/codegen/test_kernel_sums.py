"""Register buffers and accumulation: machine code against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_parts import (
    RANDOM,
    I,
    J,
    K,
    S,
    U,
    buffer,
    kernel,
    numbers,
    plus,
    rounding,
    serial,
    times,
)
from native import HOST_TIERS, check, loop

from tilewright.ir.loops import (
    Accumulate,
    Alloc,
    Buffer,
    Call,
    Const,
    If,
    Let,
    Stmt,
    Store,
    Var,
    add,
    compare,
    mod,
    mul,
    sub,
)
from tilewright.ir.types import bool_, f32, f64, i32, i64, u8

pytestmark = pytest.mark.parametrize("tier", HOST_TIERS)


def test_column_sums_in_registers(tier: str) -> None:
    """A serial loop inside a vector loop: one accumulator per lane."""
    rows, columns = 7, 43
    x, out = buffer("x", rows * columns), buffer("out", columns, "out")
    acc = Buffer("acc", f32, 1, "register")
    body = loop(
        "i",
        columns,
        Alloc(acc),
        Store(acc, Const(0), Const(0.0, f32)),
        serial(S, rows, Accumulate(acc, Const(0), "add", x[add(mul(S, columns), I)])),
        Store(out, I, acc[0]),
        width=8,
        interleave=2,
    )
    data = numbers(rows * columns)
    check(
        kernel("columns", (x, out), body), [data, numbers(columns)], tier,
        atol=rounding(data.reshape(rows, columns), 0))


def test_vector_loops_that_add_to_one_register(tier: str) -> None:
    """Each goes on where the one before ended: unrolled, in a serial loop, one after another."""
    x, out = buffer("x", 128), buffer("out", 1, "out")
    acc = Buffer("acc", f32, 1, "register")
    more = loop("i", 8, Accumulate(acc, Const(0), "add", x[add(mul(U, 8), I)]), width=4)
    body = (
        Alloc(acc), Store(acc, Const(0), Const(0.0, f32)), serial(U, 16, more, kind="unroll"),
        serial(J, 3, loop("i", 8, Accumulate(acc, Const(0), "add", x[add(J, I)]), width=4)),
        Store(out, Const(0), acc[0]),
    )
    arrays = [np.arange(128, dtype=np.float32), np.zeros(1, np.float32)]
    check(kernel("onwards", (x, out), *body), arrays, tier)


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
    arrays = [numbers(m * k), numbers(n * k), numbers(m * n)]
    products = arrays[0].reshape(k, m, 1) * arrays[1].reshape(k, 1, n)
    terms = np.concatenate([products, arrays[2].reshape(1, m, n)])
    check(
        kernel(
            "tile",
            (a, b, c),
            Alloc(acc),
            tiled(Store(acc, at, Const(0.0, f32))),
            serial(K, k, tiled(step)),
            tiled(Store(c, at, plus(c[at], acc[at]))),
        ),
        arrays,
        tier,
        atol=rounding(terms, 0),
    )


def test_register_elements_of_a_vector(tier: str) -> None:
    """Single elements of a vector slot are read, and single slots are read as a vector."""
    x, out, sums = buffer("x", 8), buffer("out", 8, "out"), buffer("sums", 1, "out")
    vector, single = Buffer("vector", f32, 8, "register"), Buffer("single", f32, 8, "register")
    check(
        kernel(
            "elements",
            (x, out, sums),
            Alloc(vector),
            Alloc(single),
            loop("i", 8, Store(vector, I, x[I]), width=8),
            Store(sums, Const(0), plus(vector[3], vector[6])),
            serial(U, 8, Store(single, U, times(x[U], Const(2.0, f32))), kind="unroll"),
            loop("i", 8, Store(out, I, single[I]), width=8),
        ),
        [numbers(8), numbers(8), numbers(1)],
        tier,
    )


OPS = [
    ("add", f32),
    ("mul", f32),
    ("max", f32),
    ("min", f32),
    ("add", f64),
    ("max", i32),
    ("min", u8),
    ("and", i64),
    ("or", u8),
    ("and", bool_),
    ("or", bool_),
    ("max", bool_),
    ("add", bool_),
    ("add", i32),
]


@pytest.mark.parametrize("n", [1, 7, 64, 129])
@pytest.mark.parametrize("space", ["register", "stack", "global"])
def test_full_reductions(tier: str, space: str, n: int) -> None:
    for op, dtype in OPS:
        x, out = buffer("x", n, "in", dtype), buffer("out", 1, "inout", dtype)
        total = out if space == "global" else Buffer("total", dtype, 1, space)  # type: ignore
        start = {"add": 0, "or": 0, "mul": 1, "and": -1}.get(op, 3 if dtype.is_float else 1)
        first = Const(bool(start) if dtype is bool_ else start, dtype)
        body: list[Stmt] = [Alloc(total)] if space != "global" else []
        body += [
            Store(total, Const(0), first),
            loop("i", n, Accumulate(total, Const(0), op, x[I]), width=8, interleave=4),
        ]
        if space != "global":
            body.append(Store(out, Const(0), total[0]))
        data, exact = numbers(n, dtype), op in ("max", "min") or not dtype.is_float
        check(
            kernel(f"reduce_{op}", (x, out), *body),
            [data, numbers(1, dtype)],
            tier,
            rtol=0 if exact else 2 * n * float(np.finfo(data.dtype).eps),
            atol=rounding(data) if op == "add" and not exact else 0,
        )


@pytest.mark.parametrize("at", [0, 9, 63, 70])
def test_extremes_keep_nan(tier: str, at: int) -> None:
    x, out = buffer("x", 71), buffer("out", 2, "out")
    data = numbers(71)
    data[at] = np.nan
    compiled = check(
        kernel(
            "nan",
            (x, out),
            Store(out, Const(0), Const(-np.inf, f32)),
            Store(out, Const(1), Const(np.inf, f32)),
            loop(
                "i",
                71,
                Accumulate(out, Const(0), "max", x[I]),
                Accumulate(out, Const(1), "min", x[I]),
                width=8,
                interleave=4,
            ),
        ),
        [data, numbers(2)],
        tier,
    )
    assert compiled.kernels[0].name == "nan"


def test_several_reductions_of_rows(tier: str) -> None:
    """Softmax: a maximum, a sum over the difference, a quotient; each row in three passes."""
    rows, columns = 4, 37
    x, out = buffer("x", rows * columns), buffer("out", rows * columns, "out")
    high, total = Buffer("high", f32, 1, "register"), Buffer("total", f32, 1, "register")
    row = Buffer("row", f32, columns, "stack")
    at = add(mul(S, columns), I)
    check(
        kernel(
            "softmax",
            (x, out),
            Alloc(row),
            serial(
                S,
                rows,
                Alloc(high),
                Alloc(total),
                Store(high, Const(0), Const(-np.inf, f32)),
                Store(total, Const(0), Const(0.0, f32)),
                loop("i", columns, Accumulate(high, Const(0), "max", x[at]), width=8, interleave=4),
                loop(
                    "i",
                    columns,
                    Let(Var("e", f32), Call("exp", (Call("sub", (x[at], high[0]), f32),), f32)),
                    Store(row, I, Var("e", f32)),
                    Accumulate(total, Const(0), "add", Var("e", f32)),
                    width=8,
                    interleave=2,
                ),
                loop("i", columns, Store(out, at, Call("div", (row[I], total[0]), f32)), width=8),
            ),
        ),
        [numbers(rows * columns), numbers(rows * columns)],
        tier,
    )


def test_accumulate_into_places_per_lane(tier: str) -> None:
    rows, columns = 6, 29
    x, out, back = (
        buffer("x", rows * columns),
        buffer("out", columns, "inout"),
        buffer("back", columns, "inout"),
    )
    body = serial(
        S,
        rows,
        loop(
            "i",
            columns,
            Accumulate(out, I, "add", x[add(mul(S, columns), I)]),
            Accumulate(
                back,
                sub(columns - 1, I),
                "max",
                x[add(mul(S, columns), I)],
                Call("gt", (x[I], Const(0.0, f32)), bool_),
            ),
            width=8,
            interleave=2,
        ),
    )
    data, start = numbers(rows * columns), numbers(columns)
    check(
        kernel("bylane", (x, out, back), body),
        [data, start, numbers(columns)],
        tier,
        atol=rounding(np.vstack([data.reshape(rows, columns), start]), 0),
    )


def test_accumulate_at_places_known_inside(tier: str) -> None:
    """The place depends on a loop inside the vector loop: joined at once."""
    x, out = buffer("x", 5 * 27), buffer("out", 5, "inout")
    body = loop(
        "i",
        27,
        serial(S, 5, Accumulate(out, S, "add", x[add(mul(S, 27), I)])),
        width=8,
        interleave=2,
    )
    data, start = numbers(5 * 27), numbers(5)
    terms = np.concatenate([data.reshape(5, 27), start[:, None]], 1)
    check(kernel("inside", (x, out), body), [data, start], tier, atol=rounding(terms, 1))


def test_accumulate_under_a_branch(tier: str) -> None:
    x, out = buffer("x", 4 * 50), buffer("out", 2, "inout")
    body = serial(
        S,
        4,
        loop(
            "i",
            50,
            If(
                compare("lt", mod(S, 2), 1),
                (Accumulate(out, Const(0), "add", x[add(mul(S, 50), I)]),),
                (
                    Accumulate(
                        out,
                        Const(1),
                        "max",
                        x[add(mul(S, 50), I)],
                        Call("lt", (x[I], Const(0.5, f32)), bool_),
                    ),
                ),
            ),
            width=8,
            interleave=2,
        ),
    )
    data, start = numbers(200), numbers(2)
    terms = np.concatenate([data.reshape(4, 50)[::2].ravel(), start[:1]])
    check(kernel("branches", (x, out), body), [data, start], tier, atol=rounding(terms))


def test_serial_histogram(tier: str) -> None:
    index, out = buffer("index", 60, "in", i64), buffer("out", 9, "inout")
    body = serial(S, 60, Accumulate(out, index[S], "add", Const(1.0, f32), compare("lt", S, 50)))
    check(kernel("histogram", (index, out), body), [RANDOM.integers(0, 9, 60), numbers(9)], tier)
