"""NumPy's functions, methods and indexing on traced values: NumPy's types, shapes and values."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from frontend_harness import BF16, agrees, interpret, sample

X, Y, I, B = sample((4, 6), "f4", 1), sample((4, 6), "f8", 2), sample((4, 6), "i4", 3, -9, 9), None
B = X > 0
V, W = sample((6,), "f4", 4), sample((4,), "f4", 5)
T = sample((2, 3, 4), "f4", 6)
N = np.where(X > 1, np.float32(np.nan), X)
ROW = np.array([2, 0, -1])

REDUCTIONS = {
    "sum": np.sum,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
    "mean": np.mean,
    "var": np.var,
    "std": np.std,
    "any": np.any,
    "all": np.all,
    "ptp": np.ptp,
    "count_nonzero": np.count_nonzero,
}
AXES = (None, 0, -1, (0, 2), (1,), ())


@pytest.mark.parametrize("dtype", ("?", "i1", "i4", "u8", "f2", "f4", "f8", BF16), ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str, dtype: object) -> None:
    function, x = REDUCTIONS[name], sample((2, 3, 4), dtype, 7)
    if dtype == "?" and name == "ptp":
        pytest.skip("NumPy does not subtract truth values")
    for axis in AXES:
        if axis == () and name in ("ptp", "mean", "var", "std"):
            continue
        agrees(lambda a, k=axis: function(a, axis=k), x)
        agrees(lambda a, k=axis: function(a, axis=k, keepdims=True), x)


@pytest.mark.parametrize("name", ("argmax", "argmin"))
@pytest.mark.parametrize("dtype", ("?", "i1", "u8", "f2", "f4", "f8"))
def test_positions(name: str, dtype: str) -> None:
    function, x = getattr(np, name), sample((3, 4, 5), dtype, 8)
    for axis in (None, 0, 1, -1):
        agrees(lambda a, k=axis: function(a, axis=k), x)
        agrees(lambda a, k=axis: function(a, axis=k, keepdims=True), x)
    agrees(
        lambda a: function(a, axis=1), np.where(x > x.dtype.type(0), x.dtype.type(0), x)
    )  # equals


def test_positions_find_the_first_nan() -> None:
    agrees(lambda x: (np.argmax(x, 1), np.argmin(x, 1), x.max(1), x.min(0)), N)


CASES = {
    # reductions with options
    "sum dtype": lambda a: (np.sum(a.x, dtype=np.float64), a.i.sum(dtype=np.int8), a.x.sum(1)),
    "sum where": lambda a: np.sum(a.x, axis=1, where=a.x > 0, initial=2),
    "max initial": lambda a: (
        np.max(a.x, initial=5.0),
        np.max(a.x, where=a.b, initial=-9.0, axis=0),
    ),
    "mean where": lambda a: np.mean(a.x, axis=1, where=a.x > -2),
    "var ddof": lambda a: (
        np.var(a.x, axis=0, ddof=1),
        np.std(a.y, ddof=1),
        a.x.var(ddof=2),
        np.var(a.x, correction=1),
    ),
    "average": lambda a: (np.average(a.x, axis=1), np.average(a.x, axis=0, weights=np.abs(a.w))),
    "nan reductions": lambda a: (
        np.nansum(a.n, 1),
        np.nanmean(a.n, 0),
        np.nanmax(a.n, 1),
        np.nanmin(a.n),
    ),
    "norm": lambda a: (
        np.linalg.norm(a.x),
        np.linalg.norm(a.x, axis=1),
        np.linalg.norm(a.v, 1),
        np.linalg.norm(a.v, np.inf),
        np.linalg.norm(a.x, 1),
        np.linalg.norm(a.x, np.inf),
        np.linalg.norm(a.v, 3),
        np.linalg.norm(a.x, "fro", keepdims=True),
    ),
    # choice and conversion
    "where": lambda a: (
        np.where(a.x > 0, a.x, 0.0),
        np.where(a.b, 1, 2),
        np.where(a.b, a.x, a.y),
        np.where(a.b, a.i, 1.5),
        np.where(a.x, a.v, 0),
    ),
    "clip": lambda a: (
        np.clip(a.x, -1, 1),
        np.clip(a.i, 0, None),
        a.x.clip(max=0.5),
        np.clip(a.x, a.v, 2),
    ),
    "round": lambda a: (
        np.round(a.x),
        np.round(a.x, 2),
        np.round(a.i),
        a.x.round(1),
        round_half(a),
    ),
    "astype": lambda a: (a.x.astype(int), a.i.astype("f2"), a.x.astype(bool), a.b.astype(np.uint8)),
    "nan_to_num": lambda a: (np.nan_to_num(a.n), np.nan_to_num(a.n / 0, nan=1.0, posinf=2.0)),
    "isclose": lambda a: (
        np.isclose(a.x, a.x + 1e-6),
        np.isclose(a.n, a.n),
        np.isclose(a.n, a.n, equal_nan=True),
    ),
    "like": lambda a: (
        np.zeros_like(a.x),
        np.ones_like(a.i),
        np.full_like(a.x, 7),
        np.zeros_like(a.x, dtype=int),
        np.full_like(a.x, a.w[0]),
        np.ones_like(a.x, shape=(2,)),
    ),
    "composed": lambda a: (
        np.allclose(a.x, a.x + 1e-7),
        np.array_equal(a.x, a.y),
        np.array_equal(a.n, a.n, equal_nan=True),
        np.array_equal(a.x, a.v),
        np.select([a.x > 1, a.x > 0], [a.x, a.i], 5),
        np.meshgrid(a.v, a.w),
        np.meshgrid(a.v, a.w, indexing="ij", sparse=True),
        np.append(a.v, [1, 2]),
        np.append(a.x, a.y, axis=0),
        np.cross(a.x[:, :3], a.y[:, 3:]),
        np.cross(a.t[0], a.t[1], axis=0),
        np.trapezoid(a.x),
        np.trapezoid(a.x, a.v),
        np.trapezoid(a.x, dx=0.5, axis=0),
        np.linalg.trace(a.t),
        np.linalg.vecdot(a.x, a.y),
        np.linalg.vector_norm(a.x),
        np.linalg.vector_norm(a.x, axis=1, ord=1),
        np.nanvar(a.n, 1),
        np.nanstd(a.n, 0, ddof=1),
    ),
    "fix": lambda a: (np.fix(a.x), np.real(a.x), np.copy(a.x), a.x.real),
    # shape
    "reshape": lambda a: (
        a.x.reshape(6, 4),
        a.x.reshape((2, -1)),
        np.reshape(a.x, -1),
        a.t.reshape(-1, 4),
        np.reshape(a.x, (6, 4), order="F"),
        a.x.ravel(order="F"),
        a.x.flatten(),
        a.t.ravel(),
    ),
    "transpose": lambda a: (
        a.x.T,
        a.t.T,
        a.t.transpose(1, 0, 2),
        np.transpose(a.t, (2, 0, 1)),
        a.t.mT,
        np.swapaxes(a.t, 0, -1),
        np.moveaxis(a.t, 0, -1),
        np.moveaxis(a.t, (0, 1), (2, 0)),
        np.matrix_transpose(a.t),
        np.permute_dims(a.x, (1, 0)),
    ),
    "dims": lambda a: (
        np.expand_dims(a.x, 1),
        np.expand_dims(a.x, (0, -1)),
        np.squeeze(a.x[:, None]),
        np.squeeze(a.x[None, :, None], 0),
        np.atleast_2d(a.v),
        np.atleast_3d(a.x),
        np.atleast_1d(a.v[0]),
    ),
    "broadcast": lambda a: (
        np.broadcast_to(a.v, (3, 6)),
        np.broadcast_to(a.v[0], (2, 2)),
        np.broadcast_arrays(a.v, a.w[:, None]),
        np.broadcast_to(a.w[:, None], (2, 4, 3)),
    ),
    "concatenate": lambda a: (
        np.concatenate([a.x, a.y]),
        np.concatenate((a.x, a.i), axis=1),
        np.concatenate([a.x, np.ones((4, 1), "f4")], -1),
        np.concatenate([a.v, a.w], None),
    ),
    "stack": lambda a: (
        np.stack([a.x, a.y]),
        np.stack([a.x, a.x * 2], -1),
        np.hstack([a.v, a.w]),
        np.hstack([a.x, a.y]),
        np.vstack([a.v, a.x]),
        np.dstack([a.x, a.y]),
        np.column_stack([a.w, a.x]),
        np.stack([a.v[0], 1.5]),
    ),
    "split": lambda a: (
        np.split(a.x, 2),
        np.split(a.x, [1, 3], axis=1),
        np.array_split(a.x, 4, axis=1),
        np.hsplit(a.x, 3),
        np.vsplit(a.x, 2),
        np.dsplit(a.t, 2),
        np.hsplit(a.v, 2),
    ),
    "flip": lambda a: (
        np.flip(a.x),
        np.flip(a.x, 1),
        np.fliplr(a.x),
        np.flipud(a.x),
        np.rot90(a.x),
        np.rot90(a.x, 2),
        np.rot90(a.x, -1),
        np.rot90(a.t, 1, (1, 2)),
    ),
    "roll": lambda a: (
        np.roll(a.x, 1),
        np.roll(a.x, -2, axis=1),
        np.roll(a.x, (1, 2), axis=(0, 1)),
        np.roll(a.x, 25, 0),
    ),
    "tile": lambda a: (
        np.tile(a.v, 2),
        np.tile(a.x, (2, 1)),
        np.tile(a.x, (2, 1, 3)),
        np.tile(a.t, 2),
    ),
    "repeat": lambda a: (
        np.repeat(a.v, 3),
        np.repeat(a.x, 2, axis=1),
        np.repeat(a.w, [0, 1, 2, 3]),
        a.x.repeat(2, 0),
    ),
    "pad": lambda a: (
        np.pad(a.x, 1),
        np.pad(a.x, ((1, 2), (0, 3))),
        np.pad(a.x, 2, constant_values=7),
        np.pad(a.i, (1, 2)),
        np.pad(a.x, ((1, 1), (2, 0)), constant_values=((1, 2), (3, 4))),
        np.pad(a.v, (2, 3), constant_values=1.5),
    ),
    "pad repeat": lambda a: tuple(
        np.pad(a.x, ((3, 2), (7, 5)), mode=m) for m in ("edge", "reflect", "symmetric", "wrap")
    ),
    "triangles": lambda a: (np.tril(a.x), np.triu(a.x, 1), np.tril(a.t, -1), np.triu(a.t, -2)),
    "diagonal": lambda a: (
        np.diagonal(a.x),
        np.diagonal(a.x, 2),
        np.diagonal(a.x, -1),
        np.diagonal(a.t, 0, 1, 2),
        np.trace(a.x),
        np.diag(a.v),
        np.diag(a.v, 2),
        np.diag(a.v, -1),
        np.diag(a.x, 1),
        a.t.trace(),
        a.x.diagonal(9),
    ),
    "diff": lambda a: (
        np.diff(a.x),
        np.diff(a.x, axis=0),
        np.diff(a.x, 2),
        np.diff(a.v, prepend=0, append=[1.0, 2.0]),
        np.diff(a.b),
    ),
    # products
    "dot": lambda a: (
        np.dot(a.x, a.v),
        np.dot(a.v, a.v),
        np.dot(a.x, a.x.T),
        np.dot(a.v, 2),
        np.dot(a.t, a.x),
        a.x.dot(a.v),
    ),
    "matmul": lambda a: (
        a.x @ a.x.T,
        a.x @ a.v,
        a.w @ a.x,
        a.v @ a.v,
        a.t @ np.ones((2, 4, 5)),
        a.t @ a.x,
        a.i @ a.i.T,
        a.t[:, None] @ a.t.mT[None],
        np.matmul(a.b, a.b.T),
        a.x @ np.arange(6),
    ),
    "vectors": lambda a: (
        np.vdot(a.x, a.y),
        np.inner(a.x, a.y),
        np.outer(a.v, a.w),
        np.kron(a.x, a.t[0]),
        np.inner(a.v, 2.0),
        np.linalg.outer(a.v, a.w),
    ),
    "tensordot": lambda a: (
        np.tensordot(a.x, a.t, ((0,), (2,))),
        np.tensordot(a.x, a.y),
        np.tensordot(a.v, a.w, 0),
        np.tensordot(a.t, a.t, ((0, 2), (0, 2))),
    ),
    "einsum": lambda a: (
        np.einsum("ij,j->i", a.x, a.v),
        np.einsum("ij,kj", a.x, a.y),
        np.einsum("ij->ji", a.x),
        np.einsum("ij->", a.x),
        np.einsum("ii->i", a.x[:4, :4]),
        np.einsum("ii", a.x[:4, :4]),
        np.einsum("...i,i->...", a.t[..., :3], a.v[:3]),
        np.einsum("i,j,ij->ij", a.w, a.v, a.x),
        np.einsum("ij,jk,kl->il", a.x, a.x.T, a.x),
        np.einsum("bij,bjk->bik", a.t, a.t.mT),
        np.einsum(a.x, [0, 1], a.v, [1], [0]),
        np.einsum("ij,ij->j", a.x, a.y),
        np.einsum("i,i", a.v, a.v),
        np.einsum("i...->...", a.t),
        np.einsum("ij,kl->jl", a.x, a.y),
        np.einsum("iij->j", a.t[:, :2]),
    ),
    # indexing
    "slices": lambda a: (
        a.x[1],
        a.x[-1, 2],
        a.x[1:3],
        a.x[::2, ::-1],
        a.x[:, -2:],
        a.x[3:0:-2],
        a.x[..., 0],
        a.x[None, 1:, None],
        a.t[:, 1],
        a.t[..., None, ::3],
        a.x[5:],
        a.x[2:1],
        a.x[()],
        a.x[::-1][::2],
        a.x[-3:-1, 4:-9:-3],
    ),
    "index arrays": lambda a: (
        a.x[[0, 2]],
        a.x[a.k],
        a.x[:, a.k],
        a.x[a.k, [1, -2, 3]],
        a.x[a.k[:, None], [0, 1]],
        a.t[:, a.k, 1],
        a.t[0, :, a.k],
        a.t[a.k[:2] * 0, 1:, [1, 2]],
        a.x[np.array([], int)],
        a.x[[[0], [1]]],
    ),
    "traced places": lambda a: (
        a.x[a.k[0]],
        a.x[a.k[0], a.k[1]],
        a.x[a.i[0] % 4],
        a.x[a.k, a.k],
        a.t[1, a.k - 1, a.k],
    ),
    "known masks": lambda a: (a.x[np.array([True, False, True, True])], a.x[np.eye(4, 6) > 0]),
    "take": lambda a: (
        np.take(a.x, [0, -1], axis=1),
        np.take(a.x, a.k),
        a.x.take([5, 7]),
        np.take(a.x, 9, 1, mode="clip"),
        np.take(a.v, [7, -8], mode="wrap"),
    ),
    "take_along": lambda a: (
        np.take_along_axis(a.x, np.argmax(a.x, 1, keepdims=True), 1),
        np.take_along_axis(a.v, a.k, 0),
        np.take_along_axis(a.x, a.k[:, None][:, [0] * 6], 0),
    ),
    "iteration": lambda a: ([row * 2 for row in a.x], sum(a.v), len(a.x), max(len(r) for r in a.t)),
    "attributes": lambda a: (
        a.x.shape,
        a.x.ndim,
        a.x.size,
        a.x.nbytes,
        np.shape(a.x),
        np.ndim(a.x),
        np.size(a.x, 1),
        a.x.itemsize,
    ),
}


def round_half(a: SimpleNamespace) -> object:
    return np.around(a.x * 2) / 2


@pytest.mark.parametrize("name", CASES)
def test_function(name: str) -> None:
    def run(x, y, i, b, v, w, t, n, k):
        return CASES[name](SimpleNamespace(x=x, y=y, i=i, b=b, v=v, w=w, t=t, n=n, k=k))

    agrees(run, X, Y, I, B, V, W, T, N, ROW)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (1,), ()])
def test_small_and_empty(shape: tuple[int, ...]) -> None:
    x = np.ones(shape, "f4")
    agrees(
        lambda x: (x + 1, np.sum(x), np.prod(x), np.any(x), np.all(x), x.reshape(-1), x.T, -x), x
    )
    if shape:
        agrees(
            lambda x: (x.sum(0), np.concatenate([x, x]), x[:0], np.flip(x), np.tile(x, 2), x @ x.T),
            x,
        )


@pytest.mark.parametrize("dtype", ("i4", "f2", BF16, "?"), ids=str)
def test_products_of_other_types(dtype: object) -> None:
    x, y = sample((3, 4), dtype, 1), sample((4, 5), dtype, 2)
    if dtype == "?":
        agrees(lambda x, y: x @ y, x, y)
        return
    agrees(lambda x, y: (np.dot(x, y), np.tensordot(x, y, 1)), x, y)
    if dtype != BF16:
        agrees(lambda x, y: x @ y, x, y)


def test_bf16_products_stay_bf16() -> None:
    x, y = sample((3, 4), BF16, 1), sample((4, 5), BF16, 2)
    result = interpret(lambda x, y: x @ y, x, y)
    assert result.dtype == BF16
    np.testing.assert_allclose(
        result.astype("f4"), x.astype("f4") @ y.astype("f4"), rtol=1e-2, atol=1e-2
    )


def test_mixed_products_promote() -> None:
    agrees(lambda x, y: (x @ y.T, np.einsum("ij,ij->i", x, y)), X, Y)
    agrees(lambda x, i: (x @ i.T, np.dot(i, x.T)), X, I)


def test_in_place_operators_change_every_name_of_the_value() -> None:
    def run(x):
        total = x * 2
        alias = total
        total += 1
        total *= x
        alias -= 3
        return total, alias

    agrees(run, X)


def test_in_place_operators_keep_the_type() -> None:
    def run(x, y):
        total = x * 2
        total += y  # f32 += f64
        return total

    agrees(run, X, Y)


def test_in_place_operators_on_numbers_rebind() -> None:
    def run(x):
        total = x.sum()
        before = total
        total += 1
        return before, total

    agrees(run, X)
