"""The arithmetic of matrix instructions: rounding, saturation, bits."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.ptxsim.formats import FORMATS, decode
from tilewright.ptxsim.sums import count_bits, multiply_add


def test_a_float_sum_is_rounded_once() -> None:
    a = np.array([[1.0, 2.0**-13, 2.0**-13]])
    b = np.array([[1.0], [2.0**-12], [2.0**-12]])
    c = np.array([[0.0]])
    got = multiply_add(a, b, c, FORMATS["f32"], False).view(np.float32)
    assert got[0, 0] == np.float32(1 + 2.0**-24)  # each product alone would be lost
    assert got[0, 0] == 1.0  # half an ulp, ties to even
    got = multiply_add(a, b, c + 2.0**-23, FORMATS["f32"], False).view(np.float32)
    assert got[0, 0] == np.float32(1 + 2 * 2.0**-23)


def test_a_sum_in_f16_can_overflow() -> None:
    a, b = np.full((1, 16), 256.0), np.full((16, 1), 16.0)
    codes = multiply_add(a, b, np.zeros((1, 1)), FORMATS["f16"], False)
    assert decode(codes, FORMATS["f16"])[0, 0] == np.inf


def test_nan_and_infinity_keep_their_meaning() -> None:
    a, b = np.array([[np.inf, 1.0]]), np.array([[0.0, 1.0, -1.0], [2.0, np.nan, 3.0]])
    got = multiply_add(a, b, np.zeros((1, 3)), FORMATS["f32"], False).view(np.float32)
    assert np.isnan(got[0, 0]) and np.isnan(got[0, 1]) and got[0, 2] == -np.inf


@pytest.mark.parametrize("satfinite, expected", [(True, 2**31 - 1), (False, 127 * 127 - 1 - 2**31)])
def test_integer_sums_wrap_or_saturate(satfinite: bool, expected: int) -> None:
    a, b = np.array([[127]]), np.array([[127]])
    got = multiply_add(a, b, np.array([[2**31 - 1]]), FORMATS["s32"], satfinite).view(np.int32)
    assert got[0, 0] == expected


@pytest.mark.parametrize("operation", ["and", "xor"])
def test_bits_are_counted(operation: str) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 2, (8, 128)), rng.integers(0, 2, (128, 8))
    c = rng.integers(-9, 9, (8, 8))
    both = {"and": np.bitwise_and, "xor": np.bitwise_xor}[operation](a[:, :, None], b[None])
    got = count_bits(a.astype(np.uint8), b.astype(np.uint8), c, operation).view(np.int32)
    assert np.array_equal(got, both.sum(1) + c)
