"""Every result begins on a 64-byte boundary, however small, on both ways into a program."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw


@pytest.mark.parametrize("size", [1, 2, 7, 16, 100, 255, 256, 5000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8])
def test_results_are_aligned(size: int, dtype: type) -> None:
    add = tw.jit(lambda x: (x + x, x * x))
    x = np.ones(size, dtype)
    first = [add(x), add(x)]  # the first call goes through Python, the second does not
    addresses = [r.ctypes.data % 64 for pair in first for r in pair]
    assert addresses == [0] * 4


def test_scalars_are_aligned() -> None:
    total = tw.jit(lambda x: x.sum())
    results = [total(np.ones(5, np.float32)) for _ in range(3)]
    assert [r.ctypes.data % 64 for r in results] == [0, 0, 0]
