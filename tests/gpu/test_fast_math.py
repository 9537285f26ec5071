"""The fast tier of the functions."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright import config

FUNCTIONS = {
    "ex2.approx.ftz.f32": np.exp, "lg2.approx.ftz.f32": np.log, "sin.approx.ftz.f32": np.sin,
    "cos.approx.ftz.f32": np.cos, "div.full.f32": lambda x: 2 / x, "sqrt.approx.ftz.f32": np.sqrt,
    "tanh.approx.f32": np.tanh,
}
X = np.linspace(0.25, 3, 33, dtype=np.float32)


@pytest.mark.parametrize("instruction", FUNCTIONS)
def test_f32_takes_the_approximation_and_nothing_else_does(instruction: str) -> None:
    function = FUNCTIONS[instruction]
    fast, exact = tw.jit(function, target="sim", fast_math=True), tw.jit(function, target="sim")
    assert instruction in fast.lower(X).as_text("ptx")
    assert "approx" not in exact.lower(X).as_text("ptx")
    assert "approx" not in fast.lower(X.astype(np.float64)).as_text("ptx")
    np.testing.assert_allclose(fast(X), function(X), rtol=1e-3, atol=1e-6)


def test_where_there_is_no_tanh_it_is_made_of_exp() -> None:
    fast = tw.jit(np.tanh, target="sim:sm_50", fast_math=True)
    x = np.array([-np.inf, -20, -1, 0, 0.5, 9, np.inf], np.float32)
    assert "tanh.approx" not in fast.lower(x).as_text("ptx")
    np.testing.assert_allclose(fast(x), np.tanh(x), rtol=1e-5, atol=1e-6)


def test_the_switch_says_so_for_all_and_the_argument_for_one() -> None:
    with config.override(fast_math=1):
        assert "ex2.approx" in tw.jit(np.exp, target="sim").lower(X).as_text("ptx")
        told = tw.jit(np.exp, target="sim", fast_math=False)
        assert "ex2.approx" not in told.lower(X).as_text("ptx")
        on_cpu = tw.jit(np.exp)
        np.testing.assert_array_equal(on_cpu(X), tw.jit(np.exp, fast_math=False)(X))


def test_half_precision_is_computed_by_it_and_rounded() -> None:
    import ml_dtypes

    fast = tw.jit(np.exp, target="sim", fast_math=True)
    x = X.astype(ml_dtypes.bfloat16)
    assert "ex2.approx" in fast.lower(x).as_text("ptx")
    np.testing.assert_allclose(
        fast(x).astype("f"), np.exp(x.astype("f")), rtol=2**-7)
