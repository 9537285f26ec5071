"""What the tests of the frontend share: trace, verify, interpret, and compare with NumPy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from tilewright.frontend import api as _api  # fills the tables of what can be traced
from tilewright.frontend import tree
from tilewright.frontend.signature import leaf_spec, to_array
from tilewright.frontend.trace import Traced, trace_function
from tilewright.ir.interp import run_graph
from tilewright.ir.verify import verify

__all__ = [
    "BF16",
    "DTYPES",
    "agrees",
    "interpret",
    "numpy_result",
    "same",
    "sample",
    "traced",
    "_api",
]

BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = tuple(map(np.dtype, ("?", "i1", "i4", "i8", "u1", "u8", "f2", "f4", "f8"))) + (BF16,)


def traced(function: Callable[..., Any], *args: Any) -> Traced:
    """The traced function, verified."""
    leaves, spec = tree.flatten((args, {}))
    paths = tree.paths(spec, "args")
    specs = tree.unflatten(spec, list(map(leaf_spec, leaves, paths)))
    result = trace_function(function, specs[0], {}, None, paths)
    verify(result.graph)
    return result


def interpret(function: Callable[..., Any], *args: Any) -> Any:
    """The result of the traced graph on these arguments, by the interpreter."""
    found = traced(function, *args)
    arrays = [to_array(leaf) for leaf in tree.leaves(args)]
    return tree.unflatten(found.out_tree, run_graph(found.graph, arrays))


def numpy_result(function: Callable[..., Any], *args: Any) -> Any:
    """What NumPy gives, without its warnings."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return function(*args)


def same(got: Any, expected: Any) -> None:
    """Fail unless the arrays have one dtype and shape, and values that differ by rounding only."""
    expected = np.asarray(expected)
    assert got.dtype == expected.dtype, f"dtype {got.dtype}, NumPy gives {expected.dtype}"
    assert got.shape == expected.shape, f"shape {got.shape}, NumPy gives {expected.shape}"
    if expected.dtype.kind in "biu":
        np.testing.assert_array_equal(got, expected)
        return
    step = {2: 2e-3, 4: 2e-6, 8: 1e-13}[expected.dtype.itemsize]
    step = 2e-2 if expected.dtype == BF16 else step
    wide = np.float64
    np.testing.assert_allclose(
        got.astype(wide), expected.astype(wide), rtol=8 * step, atol=8 * step
    )


def agrees(function: Callable[..., Any], *args: Any) -> None:
    """Fail unless the traced function gives what NumPy gives, leaf by leaf."""
    expected = numpy_result(function, *args)
    got = interpret(function, *args)
    listed = tuple(expected) if isinstance(expected, tuple) else expected
    expected_leaves = tree.leaves(listed)
    got_leaves = tree.leaves(got)
    assert len(got_leaves) == len(expected_leaves)
    for a, b in zip(got_leaves, expected_leaves, strict=True):
        same(a, b)


def sample(
    shape: tuple[int, ...], dtype: Any, seed: int = 0, low: float = -3, high: float = 3
) -> np.ndarray:
    """Random values of this type: small numbers, integers among them."""
    kind = np.dtype(dtype)
    values = np.random.default_rng(seed).uniform(low, high, shape)
    if kind.kind == "b":
        return values > 0
    if kind.kind == "u":
        return np.abs(values).astype(kind)
    return np.asarray(values).astype(kind)
