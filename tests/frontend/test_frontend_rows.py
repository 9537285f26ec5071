"""NumPy functions that are rows of the op table but no ufuncs."""

import numpy as np
import pytest

from tilewright.errors import TraceError
from tilewright.frontend.jit import jit

X = np.array([0.0, -0.0, 1.0, -2.5, 0.3, 1e-310, -5e-324, 1.7e308, np.inf, -np.inf, np.nan])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_frexp(dtype):
    with np.errstate(over="ignore"):
        x = X.astype(dtype)
    fraction, exponent = jit(np.frexp)(x)
    want = np.frexp(x)
    np.testing.assert_array_equal(fraction, want[0])
    assert fraction.dtype == dtype and exponent.dtype == want[1].dtype
    finite = np.isfinite(x)
    assert np.array_equal(exponent[finite], want[1][finite])


@pytest.mark.parametrize("function", [np.isposinf, np.isneginf])
def test_infinities(function):
    got = jit(lambda x: function(x))(X)
    assert got.dtype == bool and got.tolist() == function(X).tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_sinc(dtype):
    x = np.array([0, 1, -2, 3, 7]).astype(dtype)
    got = jit(lambda x: np.sinc(x))(x)
    np.testing.assert_allclose(got, np.sinc(x), atol=1e-7)


def test_out_is_refused():
    with pytest.raises(TraceError, match="out="):
        jit(lambda x: np.isposinf(x, np.zeros(11, bool)))(X)
