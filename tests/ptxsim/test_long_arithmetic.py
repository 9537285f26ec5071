"""Integers of several words with carries, and f64 products and sums rounded once."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from tilewright.ptxsim.fused import fused_f64
from tilewright.ptxsim.simulator import Simulator

COUNT = 256

KERNEL = """.version 8.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 in, .param .u64 out)
{{
.reg .b64 %p, %q, %a0, %a1, %b0, %b1, %r0, %r1;
.reg .b32 %t;
mov.u32 %t, %tid.x;
ld.param.u64 %p, [in];
mad.wide.u32 %p, %t, 32, %p;
ld.param.u64 %q, [out];
mad.wide.u32 %q, %t, 16, %q;
ld.global.v2.b64 {{%a0, %a1}}, [%p];
ld.global.v2.b64 {{%b0, %b1}}, [%p+16];
{body}
st.global.v2.b64 [%q], {{%r0, %r1}};
ret;
}}
"""

LONG = {
    "sum": (
        "add.cc.u64 %r0, %a0, %b0;\naddc.u64 %r1, %a1, %b1;", lambda a, b: a + b),
    "difference": (
        "sub.cc.s64 %r0, %a0, %b0;\nsubc.s64 %r1, %a1, %b1;", lambda a, b: a - b),
    "product": (
        "mul.lo.u64 %r0, %a0, %b0;\nmul.hi.u64 %r1, %a0, %b0;\n"
        "mad.lo.u64 %r1, %a0, %b1, %r1;\nmad.lo.u64 %r1, %a1, %b0, %r1;", lambda a, b: a * b),
    "product and sum": (
        "mad.lo.cc.u64 %r0, %a0, %b0, %a1;\nmadc.hi.u64 %r1, %a0, %b0, %b1;",
        lambda a, b: (a & M) * (b & M) + (a >> 64) + (b & ~M)),
    "carries that are used twice": (
        "add.cc.u64 %r0, %a0, %b0;\naddc.cc.u64 %r1, %a1, %b1;\naddc.u64 %r0, %r0, 0;",
        lambda a, b: (a + b & ~M) + ((a + b & M) + (a + b >> 128) & M)),
    "borrows that are used twice": (
        "sub.cc.u64 %r0, %a0, %b0;\nsubc.cc.u64 %r1, %a1, %b1;\nsubc.u64 %r0, %r0, 0;",
        lambda a, b: (a - b & ~M & (1 << 128) - 1) + ((a - b & M) - (a < b) & M)),
}
M = (1 << 64) - 1


@pytest.mark.parametrize("name", LONG)
def test_words_of_long_integers(name: str) -> None:
    body, meaning = LONG[name]
    rng = np.random.default_rng(3)
    words = rng.integers(0, M, (COUNT, 4), np.uint64, endpoint=True)
    edges = np.array([0, 1, M, M - 1, 1 << 63], np.uint64)
    words[:200] = np.where(rng.random((200, 4)) < 0.6, rng.choice(edges, (200, 4)), words[:200])
    out = np.zeros((COUNT, 2), np.uint64)
    Simulator().run(KERNEL.format(body=body), "k", (1,), (COUNT,), [words, out])
    for (a0, a1, b0, b1), (r0, r1) in zip(words.tolist(), out.tolist(), strict=True):
        want = meaning(a1 << 64 | a0, b1 << 64 | b0) & (1 << 128) - 1
        assert r1 << 64 | r0 == want


def exact(a: float, b: float, c: float) -> float:
    """a b + c by fractions where all are finite and no zero."""
    total = Fraction(a) * Fraction(b) + Fraction(c)
    try:
        return float(total)
    except OverflowError:
        return math.inf if total > 0 else -math.inf


@pytest.mark.parametrize("spread", [3, 60, 300, 1000])
def test_fma_is_rounded_once(spread: int) -> None:
    """Sums that cancel most of the product are where a second rounding shows."""
    rng = np.random.default_rng(spread)
    count = 3000
    scale = 2.0 ** rng.integers(-spread, spread, (3, count))
    a, b, c = rng.standard_normal((3, count)) * scale
    with np.errstate(all="ignore"):
        near = -(a * b) * (1 + rng.integers(-3, 4, count) * 2.0 ** rng.integers(-60, 2, count))
    c = np.where(np.isfinite(near) & (near != 0) & (rng.random(count) < 0.7), near, c)
    got = fused_f64(a, b, c)
    want = np.array([exact(*triple) for triple in zip(*map(np.ndarray.tolist, (a, b, c)))])
    np.testing.assert_array_equal(got, want)
    with np.errstate(over="ignore"):
        assert (got != a * b + c).any() or spread == 1000


def test_fma_of_special_numbers() -> None:
    inf, nan = math.inf, math.nan
    cases = [
        (inf, 1.0, 1.0, inf), (inf, 0.0, 1.0, nan), (1e300, -1e300, inf, inf),
        (1e300, 1e300, -inf, -inf), (inf, 1.0, -inf, nan), (nan, 1.0, 1.0, nan),
        (1.0, 1.0, nan, nan), (1e200, 1e200, -1e308, inf), (0.0, -1.0, -0.0, -0.0),
        (0.0, 1.0, -0.0, 0.0), (1e-200, -1e-200, 0.0, -0.0), (1.0, 1.0, -1.0, 0.0),
    ]
    a, b, c, want = np.array(cases).T
    got = fused_f64(a, b, c)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got[want == 0]), np.signbit(want[want == 0]))


PAIRS = """.version 8.0
.target sm_90
.address_size 64
.visible .entry k(.param .u64 in, .param .u64 out)
{{
.reg .b64 %p, %q;
.reg .b32 %t, %a, %b, %r, %s;
.reg .pred %low, %high, %odd;
mov.u32 %t, %tid.x;
and.b32 %r, %t, 1;
setp.eq.u32 %odd, %r, 1;
ld.param.u64 %p, [in];
mad.wide.u32 %p, %t, 8, %p;
ld.param.u64 %q, [out];
mad.wide.u32 %q, %t, 8, %q;
ld.global.v2.b32 {{%a, %b}}, [%p];
setp.{how} %low|%high, %a, %b{third};
selp.u32 %r, 1, 0, %low;
selp.u32 %s, 1, 0, %high;
st.global.v2.b32 [%q], {{%r, %s}};
ret;
}}
"""


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("joined", [False, True])
def test_comparison_of_pairs(kind: type, joined: bool) -> None:
    rng = np.random.default_rng(5)
    numbers = rng.choice(np.array([0.0, 1.0, 2.0, np.nan, np.inf]), (COUNT, 2, 2)).astype(kind)
    name = "f16x2" if kind is np.float16 else "bf16x2"
    how = f"ltu.and.{name}" if joined else f"ltu.{name}"
    text = PAIRS.format(how=how, third=", %odd" if joined else "")
    out = np.zeros((COUNT, 2), np.uint32)
    Simulator().run(text, "k", (1,), (COUNT,), [numbers, out])
    a, b = numbers[:, 0].astype(np.float32), numbers[:, 1].astype(np.float32)
    want = (a < b) | np.isnan(a) | np.isnan(b)
    if joined:
        want &= np.arange(COUNT)[:, None] % 2 == 1
    np.testing.assert_array_equal(out, want)
