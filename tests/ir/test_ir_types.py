"""Element types, promotion and broadcasting, against NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.ir.sizes import named
from tilewright.ir.types import (
    DTYPES,
    DType,
    TensorType,
    accumulator,
    as_number,
    bf16,
    broadcast_shapes,
    concrete,
    dtype_of,
    f16,
    f32,
    f64,
    i32,
    promote,
    size_of,
)

PAIRS = list(itertools.product(DTYPES.values(), repeat=2))


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
def test_promotion_is_numpys(a: DType, b: DType) -> None:
    try:
        wanted = np.concatenate([np.ones(1, a.numpy), np.ones(1, b.numpy)]).dtype
    except TypeError:
        with pytest.raises(TypeError):
            promote(a, b)
        assert bf16 in (a, b)
        return
    assert promote(a, b).numpy == wanted
    assert promote(b, a) is promote(a, b)


def test_promotion_of_many() -> None:
    assert promote(f16, i32, f32) is f64
    assert promote(bf16, f32) is f32
    assert promote(f16) is f16


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=repr)
def test_dtype_of_round_trips(dtype: DType) -> None:
    assert dtype_of(dtype.numpy) is dtype
    assert dtype_of(dtype.name) is dtype
    assert dtype_of(dtype.numpy.type) is dtype
    assert dtype_of(np.zeros(2, dtype.numpy)) is dtype
    assert dtype_of(dtype.numpy.newbyteorder(">")) is dtype
    assert dtype.itemsize == dtype.numpy.itemsize
    assert [dtype.is_float, dtype.is_int].count(True) == (dtype.kind != "b")


def test_dtype_of_refuses_what_it_does_not_know() -> None:
    for bad in (np.complex64, np.dtype("S3"), np.dtype(object), np.dtype("M8[s]")):
        with pytest.raises(TypeError, match="no tilewright type for the NumPy dtype"):
            dtype_of(bad)


def test_accumulators() -> None:
    assert [accumulator(d) for d in (f16, bf16, f32, f64, i32)] == [f32, f32, f32, f64, i32]


shapes = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@given(st.lists(shapes, min_size=1, max_size=3))
def test_broadcasting_is_numpys(given_shapes: list[tuple[int, ...]]) -> None:
    try:
        wanted = np.broadcast_shapes(*given_shapes)
    except ValueError:
        with pytest.raises(ValueError, match="do not broadcast"):
            broadcast_shapes(*given_shapes)
    else:
        assert broadcast_shapes(*given_shapes) == wanted


def test_named_sizes() -> None:
    n, m = named("n"), named("m")
    assert broadcast_shapes((n, 1), (4,)) == (n, 4)
    assert broadcast_shapes((n,), (n,)) == (n,)
    with pytest.raises(ValueError, match="axis -1 has sizes"):
        broadcast_shapes((n,), (m,))
    with pytest.raises(TypeError, match="the size 'n' has no number here"):
        concrete((n,))
    with pytest.raises(TypeError, match=r"the size '2\*n' has no number here"):
        as_number(2 * n)
    assert TensorType(f32, (n, 4)).nbytes == 16 * n


@given(shapes)
def test_tensor_types(shape: tuple[int, ...]) -> None:
    type = TensorType(f32, shape)
    array = np.zeros(shape, np.float32)
    assert (type.rank, type.size, type.nbytes) == (array.ndim, array.size, array.nbytes)
    assert size_of(shape) == array.size
    assert repr(type) == f"f32[{', '.join(map(str, shape))}]"
    assert type.with_dtype(f64).with_shape((1,)) == TensorType(f64, (1,))
