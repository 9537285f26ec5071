"""Serial algorithms on the items of a batch: as NumPy defines them, and what they are for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from op_harness import Executor, compiled, interpreted

from tilewright.codegen.cpu import host_target
from tilewright.errors import Unsupported
from tilewright.ir import routines
from tilewright.ir.autodiff import vjp_graph
from tilewright.ir.graph import OPS, Graph, input_node, make
from tilewright.ir.recurrences import POLYNOMIALS
from tilewright.ir.routines import (
    ExchangeAttrs,
    GammaAttrs,
    PolynomialAttrs,
    ReflectAttrs,
    TriangleAttrs,
)
from tilewright.ir.types import TensorType, dtype_of, f64

HOST = compiled(host_target().name)
RNG = np.random.default_rng(3)
SQUARE = RNG.normal(size=(3, 5, 5))
TALL = RNG.normal(size=(2, 1, 6, 4))
WIDE = np.ascontiguousarray(TALL.swapaxes(-1, -2))
POSITIVE = SQUARE @ SQUARE.swapaxes(-1, -2) + np.eye(5)
INDEFINITE = SQUARE + SQUARE.swapaxes(-1, -2)
HOLLOW = INDEFINITE * (1 - np.eye(5))
SINGULAR = np.outer(np.arange(4.0), np.arange(1.0, 5))
GAPS = np.array([[0, 0, 1], [0, 0, 2], [2, 0, 4.0]])
NEGATIVE = np.diag([1.0, -1.0, 2.0])
RIGHT = RNG.normal(size=(3, 5, 2))
ONE = np.array([[-2.5]])

X = np.concatenate([RNG.normal(size=40) * 1.5, [1, -1, 0, 0.5, 2, 2.5, np.inf, 0.3]])
DEGREE = np.concatenate([RNG.integers(-2, 14, 40), [5, 6, 3, 1e3, 200, 600, 3, np.inf]])
ORDER = np.concatenate([RNG.uniform(0.01, 30, 30), [0, 1, np.inf, 1, 0, 1e5, 1e9, 1e-5, -1]])
PLACE = np.concatenate([RNG.uniform(0.01, 30, 30), [0, 0, 1, np.inf, 1, 1e5 - 99, 1e9 + 1e4, 1e-3,
                                                    1]])
LOG = np.array([math.lgamma(a) if 0 < a < math.inf else 0 for a in ORDER])
EXPONENT = np.concatenate([RNG.uniform(1, 9, 30), [2, 2, 2, 0.5, 1, 3, 3, 3, np.nan]])
START = np.concatenate([RNG.uniform(0.01, 30, 30), [0, -1, -1.5, 2, 1, 1e6, 1e-6, -20.5, 1]])

MATRICES = [
    *(("cholesky", None, (x,)) for x in (POSITIVE, NEGATIVE, -ONE, np.zeros((2, 0, 0)))),
    *(("lu", None, (x,)) for x in (SQUARE, TALL, WIDE, GAPS, ONE)),
    *(("qr", None, (x,)) for x in (SQUARE, TALL, WIDE, GAPS, ONE, 0 * ONE)),
    *(("ldl", None, (x,)) for x in (INDEFINITE, HOLLOW, ONE, 0 * ONE)),
    *(("ldl_solve", None, (x[..., :-1, :], x[..., -1:, :], RIGHT))
      for y in (INDEFINITE, HOLLOW) for x in (routines.each(2, routines.ldl)(
          None, TensorType(f64, (3, 6, 5)), y),)),
    *(("eigh", None, (x,)) for x in (POSITIVE, NEGATIVE, SINGULAR + SINGULAR.T, ONE)),
    *(("svd", None, (x,)) for x in (SQUARE, TALL, SINGULAR, ONE, 0 * TALL)),
    *(("eig", None, (x,)) for x in (SQUARE, NEGATIVE, SINGULAR, GAPS, ONE, np.eye(4), np.diag(
        [2.0, 2, 2], 1), np.kron(np.eye(2), [[1, 2], [-2, 1]]), SQUARE - SQUARE.swapaxes(-1, -2))),
    *(("complex_lu", None, (x,)) for x in (np.concatenate([SQUARE, POSITIVE], 1), np.vstack(
        [GAPS, -GAPS]), np.vstack([ONE, ONE]))),
    *(("complex_triangular_solve", TriangleAttrs(upper, unit), (
        np.concatenate([POSITIVE, SQUARE], 1), np.concatenate([RIGHT, 2 - RIGHT], 1)))
      for upper in (False, True) for unit in (False, True)),
    *(("matrix_exp", None, (x,)) for x in (SQUARE, 20 * NEGATIVE, ONE)),
    *(("triangular_solve", TriangleAttrs(upper, unit), (POSITIVE, RIGHT))
      for upper in (False, True) for unit in (False, True)),
    *(("exchange", ExchangeAttrs(forward), (x, pivots)) for forward in (False, True)
      for x, pivots in ((TALL, np.array([[[[3, 2, 6, 6.0]]]] * 2)), (ONE, np.array([[1.0, 7]])))),
    *(("reflect", ReflectAttrs(forward), (interpreted(Graph(
        (place,), (make("qr", (place,)),)), [x])[0], y))
      for x, y in ((TALL, TALL), (WIDE, WIDE[..., :3])) for forward in (False, True)
      for place in (input_node("x", TensorType(dtype_of(x), x.shape)),)),
]
NUMBERS = [
    *(("polynomial", PolynomialAttrs(family, shifted), (X, DEGREE))
      for family in POLYNOMIALS for shifted in (False, True)),
    ("zeta", None, (EXPONENT, START)),
    *(("incomplete_gamma", GammaAttrs(upper), (ORDER, PLACE, LOG)) for upper in (False, True)),
]


def graph_of(name: str, attrs: Any, arrays: Any) -> Graph:
    inputs = tuple(
        input_node(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays))
    return Graph(inputs, (make(name, inputs, *(() if attrs is None else (attrs,))),))


def both(
    executor: Executor, name: str, attrs: Any, arrays: Any, dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
    given = [a.astype(dtype) for a in arrays]
    graph = graph_of(name, attrs, given)
    return executor(graph, given)[0], interpreted(graph, given)[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "attrs", "arrays"), MATRICES)
def test_matrices(name: str, attrs: Any, arrays: Any, dtype: Any) -> None:
    got, want = both(HOST, name, attrs, arrays, dtype)
    if name == "svd":
        n = arrays[0].shape[-1]
        assert_decomposed(got, arrays[0].astype(dtype), n)
        got, want = got[..., :1, :], want[..., :1, :]
    elif name == "eigh":
        lower = np.tril(arrays[0].astype(dtype))
        whole = lower + np.tril(lower, -1).swapaxes(-1, -2)
        values, vectors = got[..., :1, :], got[..., 1:, :]
        near(whole @ vectors, vectors * values)
        near(vectors.swapaxes(-1, -2) @ vectors, np.broadcast_to(np.eye(len(whole.T)), whole.shape))
        got, want = values, want[..., :1, :]
    elif name == "eig":
        assert_eigenvectors(got, arrays[0].astype(dtype))
        got, want = (v - 1e-6j * (v.imag < 0) for v in (_complex(got)[0], _complex(want)[0]))
        got, want = np.sort(got.round(3)), np.sort(want.round(3))
    near(got, want)


def _complex(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The eigenvalues and the eigenvectors that ``eig`` gives."""
    n = packed.shape[-1]
    values, vectors = packed[..., :2, :], packed[..., 2:, :]
    return (values[..., 0, :] + 1j * values[..., 1, :],
            vectors[..., :n, :] + 1j * vectors[..., n:, :])


def assert_eigenvectors(got: np.ndarray, x: np.ndarray) -> None:
    """They have length 1, and conjugate ones stand beside each other."""
    values, vectors = _complex(got)
    near(x @ vectors, (vectors * values[..., None, :]).astype(vectors.dtype))
    near(np.linalg.norm(vectors, axis=-2), np.ones_like(values.real))
    pairs = values.imag > 0
    assert (np.roll(pairs, 1, -1) == (values.imag < 0)).all()


def assert_decomposed(got: np.ndarray, x: np.ndarray, n: int) -> None:
    """The columns of V are orthonormal, those of U too where the value is not 0."""
    s, u, v = got[..., :1, :], got[..., 1:-n, :], got[..., -n:, :]
    near(u * s @ v.swapaxes(-1, -2), x)
    near(v.swapaxes(-1, -2) @ v, np.broadcast_to(np.eye(n), v.shape))
    assert (np.diff(s, axis=-1) <= 0).all()


def near(got: np.ndarray, want: np.ndarray) -> None:
    eps = np.finfo(got.dtype).eps
    scale = 1 + np.nanmax(np.abs(want), initial=0)
    np.testing.assert_allclose(got, want, rtol=0, atol=100 * eps * scale, equal_nan=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "attrs", "arrays"), NUMBERS)
def test_numbers(name: str, attrs: Any, arrays: Any, dtype: Any) -> None:
    if name == "incomplete_gamma":  # their error is that of the logarithms
        dtype = np.float64
    got, want = both(HOST, name, attrs, arrays, dtype)
    np.testing.assert_allclose(got, want, rtol=1e-10 if dtype is np.float64 else 1e-6,
                               atol=1e-9 if dtype is np.float64 else 1e-6)


@pytest.mark.parametrize(("name", "attrs", "arrays"), [MATRICES[0], MATRICES[4], NUMBERS[0]])
def test_on_a_gpu(name: str, attrs: Any, arrays: Any) -> None:
    got, want = both(compiled("sm_80"), name, attrs, arrays, np.float32)
    near(got, want)


@pytest.mark.parametrize("n", range(1, 9))
def test_eigenvalues_of_any_size(n: int) -> None:
    """Equal values and zeros too."""
    values = RNG.integers(-2, 3, n).astype(float)
    turned = np.linalg.qr(RNG.normal(size=(n, n)))[0]
    x = turned * values @ turned.T
    got = both(HOST, "eigh", None, [x], np.float64)[0]
    near(got[0], np.sort(values))
    near(both(HOST, "svd", None, [x], np.float64)[0][0], np.sort(np.abs(values))[::-1])


@pytest.mark.parametrize("n", range(1, 13))
def test_eigenvalues_of_any_matrix(n: int) -> None:
    """Whole numbers make equal eigenvalues, and matrices without as many vectors, likely."""
    for x in (RNG.integers(-2, 3, (8, n, n)).astype(float), RNG.normal(size=(2, n, n)) * 1e100,
              np.roll(np.eye(n), 1, 0)[None]):
        got = both(HOST, "eig", None, [x], np.float64)[0]
        scale = np.abs(x).max()
        got[..., :2, :] /= scale
        assert_eigenvectors(got, x / scale)
        near(_complex(got)[0].sum(-1), np.trace(x / scale, axis1=1, axis2=2) + 0j)


def test_what_is_not_finite_stays_visible() -> None:
    for name in ("eig", "eigh", "svd", "matrix_exp"):
        x = SQUARE.copy()
        x[1, 2, 3] = x[1, 3, 2] = np.nan
        x[2, 0, 0] = np.inf
        got = both(HOST, name, None, [x], np.float64)[0]
        assert np.isnan(got[1:]).all() and np.isfinite(got[0]).all(), name


@pytest.mark.parametrize("name", [n for n, op in OPS.items() if op.kind == "routine"])
def test_no_derivative_is_better_than_a_wrong_one(name: str) -> None:
    attrs, arrays = next((a, x) for n, a, x in MATRICES + NUMBERS if n == name)
    with pytest.raises(Unsupported, match=f"the derivative of {name}"):
        vjp_graph(graph_of(name, attrs, arrays))


@pytest.mark.parametrize(("name", "attrs", "shapes"), [
    ("cholesky", None, [(3, 4)]), ("svd", None, [(3, 4)]), ("lu", None, [(3,)]),
    ("triangular_solve", TriangleAttrs(True, True), [(3, 3), (4, 2)]),
    ("ldl_solve", None, [(3, 3), (1, 2), (3, 2)]),
    ("eig", None, [(3, 4)]), ("complex_lu", None, [(3, 3)]),
    ("complex_triangular_solve", TriangleAttrs(True, True), [(6, 3), (3, 2)]),
    ("exchange", ExchangeAttrs(True), [(3, 3), (2, 3)]),
    ("reflect", ReflectAttrs(True), [(4, 3), (4, 3)]), ("zeta", None, [(3,), (4,)]),
])
def test_shapes_that_do_not_fit(name: str, attrs: Any, shapes: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        graph_of(name, attrs, [np.zeros(s) for s in shapes])
