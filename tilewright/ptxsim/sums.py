"""The arithmetic of matrix instructions: D = A x B + C.

Products of two matrix elements are exact in float64 and so is nearly every sum of a few of them,
so floating-point results here are the true sum rounded once to the type of D. Tensor cores align
the products of a few elements and truncate before they round: a result on hardware may differ in
the last bits of f32, and tests that compare with one use a tolerance. Integer results are exact
modulo 2**32, or clamped to the range of s32 with `.satfinite`.
"""

from __future__ import annotations

import numpy as np

from tilewright.ptxsim.formats import Codes, Format, Numbers, encode

S32 = np.iinfo(np.int32)


def multiply_add(a: Numbers, b: Numbers, c: Numbers, to: Format, satfinite: bool) -> Codes:
    """The codes of A x B + C in format `to`; A is [..., M, K], B [..., K, N], C [..., M, N].

    All three are float64 or all are int64, as `decode` gives them.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        total = a @ b + c
    if to.integer:
        if satfinite:
            total = np.clip(total, S32.min, S32.max)
        return (total & 0xFFFFFFFF).astype(np.uint32)
    return encode(total, to)


def count_bits(a: Codes, b: Codes, c: Numbers, operation: str) -> Codes:
    """Single-bit A and B: the set bits of `a and b` or `a xor b` along K, added to C, as s32."""
    a, b = a.astype(np.int64), b.astype(np.int64)
    both = a @ b
    if operation == "xor":
        both = a.sum(-1)[..., :, None] + b.sum(-2)[..., None, :] - 2 * both
    return ((both + c) & 0xFFFFFFFF).astype(np.uint32)
