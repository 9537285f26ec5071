"""Loops and what they read and write: machine code against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_parts import RANDOM, I, P, S, U, buffer, kernel, numbers, plus, rounding, serial, times
from native import HOST_TIERS, check, loop, parallel

from tilewright.ir.loops import (
    Alloc,
    Buffer,
    Call,
    Const,
    For,
    Kernel,
    Store,
    add,
    compare,
    floordiv,
    mod,
    mul,
    sub,
)
from tilewright.ir.types import DTYPES, DType, bf16, f16, f32, i32, i64, u8

pytestmark = pytest.mark.parametrize("tier", HOST_TIERS)


@pytest.mark.parametrize("interleave", [1, 3])
def test_vector_tails(tier: str, interleave: int) -> None:
    width = 4
    for n in range(2 * width * interleave + 2):
        x, out = buffer("x", max(1, n)), buffer("out", max(1, n), "inout")
        body = loop(
            "i", n, Store(out, I, plus(x[I], Const(1.0, f32))), width=width, interleave=interleave
        )
        check(kernel(f"tail{n}", (x, out), body), [numbers(max(1, n)), numbers(max(1, n))], tier)


@pytest.mark.parametrize("interleave", [1, 2, 3])
@pytest.mark.parametrize("dtype", [f32, f16, u8], ids=str)
def test_dynamic_bounds(tier: str, interleave: int, dtype: DType) -> None:
    """Rows of lengths 0, 1, 2 ... in one kernel: the bounds are variables."""
    rows, width = 2 * 4 * interleave + 3, 4
    x, out = buffer("x", rows * rows, "in", dtype), buffer("out", rows * rows, "inout", dtype)
    place = add(mul(S, rows), I)
    one = Const(1, dtype)
    inner = For(
        I,
        Const(0),
        S,
        (Store(out, place, plus(x[place], one, dtype)),),
        "vector",
        1,
        width,
        interleave,
    )
    check(
        kernel("dynamic", (x, out), serial(S, rows, inner)),
        [numbers(rows * rows, dtype), numbers(rows * rows, dtype)],
        tier,
    )


def test_nonzero_start(tier: str) -> None:
    x, out = buffer("x", 40), buffer("out", 40, "inout")
    body = For(
        I, Const(3), Const(38), (Store(out, I, plus(x[I], x[sub(I, 3)])),), "vector", 1, 8, 2
    )
    check(kernel("start", (x, out), body), [numbers(40), numbers(40)], tier)


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_parallel_shares(tier: str, threads: int) -> None:
    """Also more threads than iterations, and a step."""
    x, out, strided = buffer("x", 70), buffer("out", 70, "out"), buffer("strided", 30, "inout")
    rows = parallel(
        loop(
            "i", 10, Store(out, add(mul(P, 10), I), times(x[add(mul(P, 10), I)], Const(2.0, f32)))
        ),
        n=7,
    )
    steps = For(P, Const(2), Const(29), (Store(strided, P, x[P]),), "parallel", 9)
    check(
        Kernel("shares", (x, out, strided), (rows, steps)),
        [numbers(70), numbers(70), numbers(30)],
        tier,
        threads=threads,
    )


def test_contiguous_reversed_strided_gathered(tier: str) -> None:
    n = 45
    x, index = buffer("x", 3 * n), buffer("index", n, "in", i64)
    outs = tuple(buffer(f"o{k}", n, "out") for k in range(6))
    reads = (I, sub(n - 1, I), mul(I, 3), index[I], mod(I, 7), add(sub(2 * n, mul(I, 2)), 1))
    body = loop(
        "i",
        n,
        *(Store(o, I, x[e]) for o, e in zip(outs, reads, strict=True)),
        width=8,
        interleave=2,
    )
    check(
        kernel("gather", (x, index, *outs), body),
        [numbers(3 * n), RANDOM.integers(0, 3 * n, n), *(numbers(n) for _ in outs)],
        tier,
    )


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_gather_and_scatter_of_every_type(tier: str, dtype: DType) -> None:
    n = 21
    x, index = buffer("x", n, "in", dtype), buffer("index", n, "in", i32)
    there, back = buffer("there", n, "inout", dtype), buffer("back", n, "out", dtype)
    at = Call("cast", (index[I],), i64)
    body = loop(
        "i", n, Store(there, at, x[I]), Store(back, sub(n - 1, I), x[at]), width=4, interleave=2
    )
    check(
        kernel("scatter", (x, index, there, back), body),
        [
            numbers(n, dtype),
            RANDOM.permutation(n).astype(np.int32),
            numbers(n, dtype),
            numbers(n, dtype),
        ],
        tier,
    )


@pytest.mark.parametrize("dtype", [bf16, f16, u8], ids=str)
def test_single_lanes_write_their_own_bytes(tier: str, dtype: DType) -> None:
    """One active lane, known when the code is made, of a value that was narrowed."""
    x, out, other = (
        buffer(b, 8, a, dtype) for b, a in (("x", "in"), ("out", "inout"), ("other", "inout"))
    )
    wide = Call("cast", (Call("cast", (x[I],), i32),), dtype)
    body = loop(
        "i",
        8,
        Store(out, I, wide, compare("lt", I, 1)),
        Store(other, I, wide, compare("eq", I, 3)),
        width=8,
    )
    last = loop("i", 1, Store(out, add(I, 5), wide), width=8)
    check(
        kernel("single", (x, out, other), body, last), [numbers(8, dtype) for _ in range(3)], tier
    )


def test_strided_store_leaves_the_rest(tier: str) -> None:
    x, out = buffer("x", 19), buffer("out", 40, "inout")
    check(
        kernel("strided", (x, out), loop("i", 19, Store(out, mul(I, 2), x[I]), width=8)),
        [numbers(19), numbers(40)],
        tier,
    )


def test_broadcasts(tier: str) -> None:
    """A scalar per row and a row for all rows."""
    rows, columns = 5, 19
    x, scale, bias = buffer("x", rows * columns), buffer("scale", rows), buffer("bias", columns)
    out = buffer("out", rows * columns, "out")
    place = add(mul(S, columns), I)
    value = plus(times(x[place], scale[S]), bias[I])
    arrays = [numbers(n) for n in (rows * columns, rows, columns, rows * columns)]
    product = arrays[0].reshape(rows, columns) * arrays[1][:, None]
    terms = np.stack([product, np.broadcast_to(arrays[2], product.shape)])
    check(
        kernel(
            "broadcast",
            (x, scale, bias, out),
            serial(S, rows, loop("i", columns, Store(out, place, value), width=8)),
        ),
        arrays,
        tier,
        atol=rounding(terms, 0),
    )


def test_index_as_value(tier: str) -> None:
    n = 23
    a, b = buffer("a", n, "out", i64), buffer("b", n, "out")
    c = buffer("c", n, "out", i64)
    body = loop(
        "i",
        n,
        Store(a, I, mul(add(I, 5), -3)),
        Store(b, I, Call("cast", (I,), f32)),
        Store(c, I, Call("add", (floordiv(I, 5), mul(mod(I, 5), 100)), i64)),
        width=8,
        interleave=2,
    )
    check(kernel("iota", (a, b, c), body), [numbers(n, i64), numbers(n), numbers(n, i64)], tier)


def test_flattened_index_divides_exactly(tier: str) -> None:
    """Blocked indices whose quotients and remainders follow from the loops' bounds."""
    x, out = buffer("x", 96), buffer("out", 96, "out")
    flat = add(add(mul(S, 32), mul(U, 8)), I)
    place = add(mul(mod(flat, 32), 3), floordiv(flat, 32))
    check(
        kernel(
            "flat",
            (x, out),
            serial(
                S,
                3,
                serial(
                    U,
                    4,
                    loop(
                        "i",
                        8,
                        Store(out, add(mul(floordiv(flat, 8), 8), mod(flat, 8)), x[place]),
                        width=8,
                    ),
                ),
            ),
        ),
        [numbers(96), numbers(96)],
        tier,
    )


@pytest.mark.parametrize("width", [2, 4, 8, 16])
@pytest.mark.parametrize("dtype", [f32, i64, u8], ids=str)
def test_register_square_read_across(tier: str, dtype: DType, width: int) -> None:
    """Two squares of vectors, stored along and read across: a transpose in registers."""
    size = width * width
    x, out = buffer("x", 2 * size, "in", dtype), buffer("out", 2 * size, "inout", dtype)
    square = Buffer("square", dtype, 2 * size, "register")
    along = plus(mul(U, width), I, i64)
    fill = loop("i", width, Store(square, along, x[along]), width=width)
    across = plus(mul(I, width), plus(U, mul(S, size), i64), i64)
    read = loop("i", width, Store(out, plus(along, mul(S, size), i64), square[across]), width=width)
    body = (
        Alloc(square),
        serial(U, 2 * width, fill, kind="unroll"),
        serial(S, 2, serial(U, width, read, kind="unroll"), kind="unroll"),
    )
    values = numbers(2 * size, dtype)
    result = numbers(2 * size, dtype)
    check(kernel("square", (x, out), *body), [values, result], tier)
