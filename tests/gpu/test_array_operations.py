"""Operators, methods and NumPy's functions on arrays of a device, outside of a jitted function."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import DTypeError, OutOfBounds, ShapeError, TraceError, UserError
from tilewright.frontend import on_device
from tilewright.runtime.gpu.device import device_of
from tilewright.runtime.gpu.sim import SimDriver

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def there(x: Any = X) -> tw.Array:
    found: tw.Array = tw.to_device(x, "sim")
    return found


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "x + 1": lambda x: x + 1,
    "2.5 * x": lambda x: 2.5 * x,
    "np.float32(2) - x": lambda x: np.float32(2) - x,
    "array - x": lambda x: np.ones(3, np.float32) - x,
    "x @ x.T": lambda x: x @ x.T,
    "x == 1": lambda x: x == 1,
    "-abs(x)": lambda x: -abs(x),
    "divmod": lambda x: divmod(x, 2)[1],
    "exp": np.exp,
    "where": lambda x: np.where(x > 2, x, 0.0),
    "stack": lambda x: np.stack([x, x + 1], axis=1),
    "sum": lambda x: np.sum(x, axis=0),
    "reduce": lambda x: np.add.reduce(x, axis=1),
    "norm": np.linalg.norm,
    "mean": lambda x: x.mean(axis=-1, keepdims=True),
    "reshape": lambda x: x.reshape(3, 2),
    "astype": lambda x: x.astype(np.int16),
    "mT": lambda x: x.mT,
    "slices": lambda x: x[::-1, 1:],
    "new axis": lambda x: x[None, ..., 0],
    "rows": lambda x: x[[1, 0, 1]],
    "array": lambda x: x[np.array([-1])],
    "row": lambda x: x[-1],
    "element": lambda x: x[1, 2],
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_as_numpy_does_it(name: str) -> None:
    got, want = OPERATIONS[name](there()), OPERATIONS[name](X)
    assert isinstance(got, tw.Array)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-6)


def test_what_is_known_needs_no_program() -> None:
    x = there()
    before = len(on_device._jitted)
    assert (np.shape(x), np.ndim(x), np.size(x)) == ((2, 3), 2, 6)
    assert np.array2string(x) == str(X)  # type: ignore[call-overload]
    assert len(on_device._jitted) == before


def compilations() -> int:
    return sum(len(j.history) for f in on_device._jitted.values() for j in f.jitted.values())


def test_what_goes_to_files(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", there())
    np.savez(tmp_path / "x.npz", x=there())
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), X)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["x"], X)


def test_one_program_for_all_elements_and_numbers() -> None:
    x = there()
    first = x[0][0] + 0.5
    before = compilations()
    assert [float(v) for row in x for v in row] == X.ravel().tolist()
    for number in (0.1, 0.2):
        first + number
    assert compilations() == before


def test_in_place_operators_make_another_array() -> None:
    x = y = there()
    y += 1
    y @= np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(x.numpy(), X)
    np.testing.assert_array_equal(y.numpy(), X + 1)


def test_an_array_that_a_function_reads_besides_its_arguments() -> None:
    """It is read when the function is traced, as NumPy's are."""
    w = there()
    f = tw.jit(lambda x: (x @ w.T, w + x, np.exp(w) * x, x * w[1], w.sum() * x))
    for got, want in zip(f(X), (X @ X.T, X + X, np.exp(X) * X, X * X[1], X.sum() * X), strict=True):
        assert isinstance(got, np.ndarray)
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_iteration_over_a_number() -> None:
    with pytest.raises(TypeError, match="0-d"):
        iter(there(1))


@pytest.mark.parametrize(("wrong", "kind", "message"), [
    (lambda x: np.unique(x), TraceError, r"hint: .*x.numpy\(\) in the arguments of np.unique"),
    (lambda x: x.sort(), TraceError, r"(?s)no .sort outside of a jitted.*hint: .*x.numpy\(\).sort"),
    (lambda x: x.at[0].set(1), TraceError, "no .at outside of a jitted function"),
    (lambda x: np.add(x, 1, out=x), TraceError, "np.add of arrays on a device cannot write into"),
    (lambda x: np.sum(x, out=np.ones(())), TraceError, "np.sum of arrays on a device cannot write"),
    (lambda x: x.sum(out=np.ones(())), TraceError, "np.sum of arrays on a device cannot write"),
    (lambda x: x[2], OutOfBounds, "index 2 is outside of axis 0, which has size 2"),
    (lambda x: x[0, -4], OutOfBounds, "(?s)index -4 is outside of axis 1.*expected: -3 to 2"),
    (lambda x: x[0, 0, 0], IndexError, "3 indices for an array of 2 axes"),
    (lambda x: operator.setitem(x, 0, 1), TraceError, "an array on a device never changes"),
    (lambda x: x + np.ones(4), ShapeError, "np.add: the shapes do not broadcast"),
    (lambda x: x + "text", DTypeError, "an operand of np.add has an element type"),
    (lambda x: x.shap, AttributeError, "an array on a device has no attribute 'shap'"),
    (lambda x: x + elsewhere(), UserError, "the arguments of add are on several devices"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_done(
    wrong: Callable[[tw.Array], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as raised:
        wrong(there())
    if isinstance(raised.value, UserError):
        assert "test_array_operations.py" in str(raised.value)


def elsewhere() -> tw.Array:
    driver = SimDriver()
    driver.name = "other"
    return tw.Array(device_of(driver).place(X))
