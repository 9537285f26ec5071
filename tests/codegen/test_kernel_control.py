"""Masks, branches, checks, memory and rules: machine code against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_parts import RANDOM, I, J, K, P, S, buffer, kernel, numbers, plus, serial, times
from native import HOST_TIERS, check, loop, native, parallel

from tilewright.errors import CompilerBug
from tilewright.ir.interp import run_kernel
from tilewright.ir.loops import (
    Accumulate,
    Alloc,
    Buffer,
    Call,
    Check,
    Const,
    For,
    If,
    Kernel,
    Load,
    Prefetch,
    Store,
    add,
    compare,
    mod,
    mul,
    sub,
)
from tilewright.ir.types import DType, bf16, bool_, f16, f32, f64, i64, u8

pytestmark = pytest.mark.parametrize("tier", HOST_TIERS)


@pytest.mark.parametrize("dtype", [f32, f64, f16, u8, bool_], ids=str)
def test_masks(tier: str, dtype: DType) -> None:
    """Loads and stores beyond the ends are masked off, per lane and for all lanes."""
    n = 30
    x, out, shifted = (
        buffer(b, n, a, dtype) for b, a in (("x", "in"), ("out", "inout"), ("shifted", "out"))
    )
    inside = Call("and", (compare("ge", I, 3), compare("lt", I, 25)), bool_)
    there = Load(x, sub(I, 3), compare("ge", I, 3), Const(1, dtype))
    beyond = Load(x, add(I, 1000), compare("lt", S, 0))
    mixed = plus(there, beyond, dtype)
    body = serial(
        S,
        2,
        loop("i", n, Store(shifted, I, mixed), Store(out, I, x[I], inside), width=8, interleave=2),
    )
    check(kernel("masks", (x, out, shifted), body), [numbers(n, dtype) for _ in range(3)], tier)


def test_a_prefetch_changes_nothing(tier: str) -> None:
    """Not even where its place is far outside of the buffer."""
    x, out = buffer("x", 10), buffer("out", 10, "inout")
    far = add(mul(S, 1 << 30), -5)
    body = serial(
        S, 10, Prefetch(x, far), Prefetch(out, add(S, 100)), Store(out, S, x[S])
    )
    found = check(kernel("prefetch", (x, out), body), [numbers(10), numbers(10)], tier)
    assert found.text.count("call void @llvm.prefetch") == 2


def test_scalar_masks(tier: str) -> None:
    x, out = buffer("x", 10), buffer("out", 12, "inout")
    value = Load(x, S, compare("lt", S, 10), Const(7.0, f32))
    check(
        kernel("scalar", (x, out), serial(S, 12, Store(out, S, value, compare("ne", S, 5)))),
        [numbers(10), numbers(12)],
        tier,
    )


def test_masked_gather(tier: str) -> None:
    x, index, out = buffer("x", 20), buffer("index", 26, "in", i64), buffer("out", 26, "out")
    at = index[I]
    fits = Call("and", (compare("ge", at, 0), compare("lt", at, 20)), bool_)
    body = loop("i", 26, Store(out, I, Load(x, at, fits, Const(-1.0, f32))), width=8)
    check(
        kernel("fits", (x, index, out), body),
        [numbers(20), RANDOM.integers(-9, 40, 26), numbers(26)],
        tier,
    )


def test_branches_join_registers(tier: str) -> None:
    x, out = buffer("x", 24), buffer("out", 24, "out")
    acc = Buffer("acc", f32, 2, "register")
    body = serial(
        S,
        3,
        Alloc(acc),
        Store(acc, Const(1), Const(0.0, f32)),
        If(
            compare("eq", S, 1),
            (Store(acc, Const(0), Const(5.0, f32)),),
            (Store(acc, Const(0), x[S]), Accumulate(acc, Const(1), "add", x[add(S, 1)])),
        ),
        loop("i", 8, Store(out, add(mul(S, 8), I), plus(x[I], plus(acc[0], acc[1]))), width=8),
    )
    check(kernel("join", (x, out), body), [numbers(24), numbers(24)], tier)


def test_branches_join_lanes_and_loops(tier: str) -> None:
    """A running value per lane that only some iterations of a loop change."""
    x, out = buffer("x", 5 * 20), buffer("out", 20, "out")
    acc = Buffer("acc", f32, 1, "register")
    body = loop(
        "i",
        20,
        Alloc(acc),
        Store(acc, Const(0), x[I]),
        serial(
            S,
            5,
            If(
                compare("ne", mod(S, 3), 0),
                (
                    serial(
                        K,
                        2,
                        Accumulate(
                            acc, Const(0), "max", times(x[add(mul(S, 20), I)], x[add(K, S)])
                        ),
                    ),
                ),
            ),
        ),
        Store(out, I, acc[0]),
        width=8,
        interleave=2,
    )
    check(kernel("lanes", (x, out), body), [numbers(100), numbers(20)], tier)


def test_loop_that_may_not_run(tier: str) -> None:
    x, out = buffer("x", 9), buffer("out", 9, "out")
    acc = Buffer("acc", f32, 1, "register")
    inner = For(K, Const(0), S, (Accumulate(acc, Const(0), "add", x[K]),))
    check(
        kernel(
            "prefix",
            (x, out),
            serial(
                S,
                9,
                Alloc(acc),
                Store(acc, Const(0), Const(1.0, f32)),
                inner,
                Store(out, S, acc[0]),
            ),
        ),
        [numbers(9), numbers(9)],
        tier,
    )


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
    positive = loop(
        "i",
        21,
        Check(compare("gt", add(index[I], 1), 0), 6),
        Store(out, I, Const(1.0, f32)),
        width=8,
    )
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
    result = memory[start : start + 1200].view(np.float32)
    data = numbers(300)
    compiled.run(0, [data, result])
    np.testing.assert_array_equal(result, data + data)


def test_scratch_and_stack(tier: str) -> None:
    """A large buffer lives in the thread's scratch memory, a small one on the stack."""
    n = 9000
    x, out = buffer("x", n), buffer("out", n, "out")
    large, small = Buffer("large", f32, n, "stack"), Buffer("small", f32, 8, "stack")
    compiled = check(
        kernel(
            "scratch",
            (x, out),
            Alloc(large),
            Alloc(small),
            loop("i", n, Store(large, I, times(x[I], x[I])), width=8),
            loop("j", 8, Store(small, J, large[add(J, 100)]), width=8),
            loop("i", n, Store(out, sub(n - 1, I), plus(large[I], small[mod(I, 8)])), width=8),
        ),
        [numbers(n), numbers(n)],
        tier,
    )
    assert compiled.emitted[0].scratch == 36032


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_sixteen_bit_floats_round_every_step(tier: str, dtype: DType) -> None:
    x, y, out = (buffer(b, 41, a, dtype) for b, a in (("x", "in"), ("y", "in"), ("out", "out")))
    total, wide = buffer("total", 1, "inout", dtype), buffer("wide", 1, "inout")
    value = Call("div", (plus(times(x[I], y[I], dtype), x[I], dtype), y[I]), dtype)
    check(
        kernel(
            "halves",
            (x, y, out, total, wide),
            loop(
                "i",
                41,
                Store(out, I, value),
                Accumulate(wide, Const(0), "add", Call("cast", (x[I],), f32)),
                width=8,
            ),
            serial(S, 41, Accumulate(total, Const(0), "add", x[S])),
        ),
        [numbers(41, dtype), numbers(41, dtype), numbers(41, dtype), numbers(1, dtype), numbers(1)],
        tier,
    )


def test_barriers_between_phases(tier: str) -> None:
    x, out = buffer("x", 40), buffer("out", 40, "out")
    middle = buffer("middle", 40, "workspace")
    first = parallel(
        loop("i", 10, Store(middle, add(mul(P, 10), I), x[add(mul(P, 10), I)]), width=4), n=4
    )
    second = parallel(
        loop("i", 10, Store(out, add(mul(P, 10), I), middle[sub(39, add(mul(P, 10), I))]), width=4),
        n=4,
    )
    check(
        Kernel("phases", (x, out, middle), (first, second)),
        [numbers(40), numbers(40), numbers(40)],
        tier,
    )


def test_equal_kernels_have_equal_names(tier: str) -> None:
    def make(name: str, n: int) -> str:
        x, out = buffer("x", n), buffer("out", n, "out")
        return (
            native(kernel(name, (x, out), loop("i", n, Store(out, I, x[I]), width=4)), tier)
            .emitted[0]
            .name
        )

    assert make("one", 9) == make("two", 9) != make("three", 10)


BAD = {
    "store to one place": lambda x, out: loop("i", 8, Store(out, Const(0), x[I]), width=8),
    "differ on": lambda x, out: loop(
        "i", 8, Store(Buffer("r", f32, 1, "register"), Const(0), x[I]), width=8
    ),
    "read before it is written": lambda x, out: Store(
        out, Const(0), Buffer("r", f32, 1, "register")[0]
    ),
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
