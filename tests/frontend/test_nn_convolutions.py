"""tw.nn's convolutions and pools against NumPy's own windows, with their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from frontend_harness import BF16, interpret, same, sample
from numpy.lib.stride_tricks import sliding_window_view
from test_transforms import close, run, slopes

import tilewright as tw
from tilewright.frontend.transforms import grad

X = sample((2, 4, 7, 8), "f8", 1)
W = sample((6, 4, 3, 2), "f8", 2)


def windows(x: np.ndarray, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]):
    """Windows of the last axes; taps behind all others."""
    axes = tuple(range(x.ndim - len(size), x.ndim))
    reach = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    seen = sliding_window_view(x, reach, axes)
    lead = (slice(None),) * (x.ndim - len(size))
    return seen[(*lead, *(slice(None, None, s) for s in stride),
                 *(slice(None, None, d) for d in dilation))]


def conv2(x, w, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1):
    """A convolution over two axes by NumPy's windows and einsum."""
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    parts = np.split(windows(padded, w.shape[2:], stride, dilation), groups, 1)
    return np.concatenate([
        np.einsum("nchwij,ocij->nohw", part, weights)
        for part, weights in zip(parts, np.split(w, groups), strict=True)], 1)


CONVOLUTIONS = {
    "plain": ({}, {}),
    "strided": ({"stride": 2}, {"stride": (2, 2)}),
    "padded": ({"padding": 1}, {"padding": ((1, 1), (1, 1))}),
    "uneven": ({"padding": [(0, 2), (1, 0)], "stride": (1, 3)},
               {"padding": ((0, 2), (1, 0)), "stride": (1, 3)}),
    "same": ({"padding": "same"}, {"padding": ((1, 1), (0, 1))}),
    "valid, dilated": ({"padding": "valid", "dilation": (2, 3)}, {"dilation": (2, 3)}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_conv(name: str) -> None:
    ours, plain = CONVOLUTIONS[name]
    want = conv2(X, W, **plain)
    same(interpret(lambda x, w: tw.nn.conv(x, w, **ours), X, W), want)
    same(tw.nn.conv(X, W, **ours), want)


def test_same_with_a_stride() -> None:
    result = tw.nn.conv(X, W, stride=2, padding="same")
    assert result.shape == (2, 6, 4, 4)
    same(result, conv2(X, W, (2, 2), ((1, 1), (0, 0))))


@pytest.mark.parametrize("groups", [2, 4])
def test_groups(groups: int) -> None:
    w = sample((8, 4 // groups, 3, 3), "f8", 3)
    same(interpret(lambda x, w: tw.nn.conv(x, w, groups=groups), X, w), conv2(X, w, groups=groups))


def test_one_and_three_axes() -> None:
    x, w = X[:, :, :, 0], W[:, :, :, 0]
    same(tw.nn.conv(x, w), np.einsum("nchi,oci->noh", windows(x, [3], [1], [1]), w))
    x, w = sample((2, 3, 4, 5, 6), "f8"), sample((2, 3, 2, 3, 2), "f8")
    same(tw.nn.conv(x, w), np.einsum(
        "ncdhwijk,ocijk->nodhw", windows(x, [2, 3, 2], [1] * 3, [1] * 3), w))


def test_element_types() -> None:
    for kind in ("f2", "f4", BF16, "i4"):
        x, w = np.rint(X).astype(kind), np.rint(W).astype(kind)
        assert tw.nn.conv(x, w).dtype == x.dtype
        assert interpret(tw.nn.conv, x, w).dtype == x.dtype
    assert interpret(tw.nn.conv, X.astype("f4"), np.rint(W).astype("i8")).dtype == np.float64
    assert interpret(lambda x: tw.nn.avg_pool(x, 2), np.rint(X).astype("i4")).dtype == np.float64


@pytest.mark.parametrize("settings", [
    {}, {"stride": 2, "output_padding": 1}, {"stride": (3, 2), "padding": [(1, 0), (0, 1)]},
    {"dilation": 2, "padding": 1}, {"groups": 2},
])
def test_conv_transpose_is_the_adjoint(settings: dict) -> None:
    groups = settings.get("groups", 1)
    w = sample((4, 6 // groups, 3, 2), "f8", 5)
    y = interpret(lambda x, w: tw.nn.conv_transpose(x, w, **settings), X, w)
    same(tw.nn.conv_transpose(X, w, **settings), y)
    back = {k: v for k, v in settings.items() if k != "output_padding"}
    other = sample(y.shape, "f8", 6)
    forward = tw.nn.conv(other, w, **back)
    np.testing.assert_allclose(np.sum(y * other), np.sum(X * forward), rtol=1e-10)


def test_max_pool() -> None:
    padded = np.pad(X, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    want = windows(padded, (3, 3), (2, 2), (1, 1)).max((-2, -1))
    same(interpret(lambda x: tw.nn.max_pool(x, 3, 2, 1), X), want)
    value, places = tw.nn.max_pool(X, 3, 2, 1, indices=True)
    same(value, want)
    rows = X.reshape(8, -1)
    same(np.take_along_axis(rows, places.reshape(8, -1), 1).reshape(want.shape), want)
    same(tw.nn.max_pool(X, (2,)), windows(X, (2,), (2,), (1,)).max(-1))
    assert tw.nn.max_pool(X, 2, ceil=True).shape == (2, 4, 4, 4)


def test_avg_pool() -> None:
    same(interpret(lambda x: tw.nn.avg_pool(x, 2), X),
         windows(X, (2, 2), (2, 2), (1, 1)).mean((-2, -1)))
    padded = np.pad(X, ((0, 0), (0, 0), (1, 1), (1, 1)))
    total = windows(padded, (3, 3), (2, 2), (1, 1)).sum((-2, -1))
    ones = np.pad(np.ones(X.shape), ((0, 0), (0, 0), (1, 1), (1, 1)))
    count = windows(ones, (3, 3), (2, 2), (1, 1)).sum((-2, -1))
    same(tw.nn.avg_pool(X, 3, 2, 1), total / 9)
    same(tw.nn.avg_pool(X, 3, 2, 1, count_padding=False), total / count)
    same(tw.nn.avg_pool(X, 3, 2, 1, divisor=7), total / 7)


def test_adaptive_pool() -> None:
    same(tw.nn.adaptive_pool(X, 1), X.mean((2, 3), keepdims=True))
    spans = [(i * 7 // 3, -(-(i + 1) * 7 // 3)) for i in range(3)]
    for kind, plain in (("avg", np.mean), ("max", np.max)):
        want = np.stack([plain(X[:, :, a:b], 2) for a, b in spans], 2)
        found = interpret(lambda x, kind=kind: tw.nn.adaptive_pool(x, (3, 8), kind), X)
        same(found, want)


SMALL = sample((1, 2, 4, 5), "f8", 7)
WEIGHT = sample((2, 2, 2, 3), "f8", 8)
FUNCTIONS = {
    "data": lambda x: (tw.nn.conv(x, WEIGHT, stride=2, padding=1) ** 2).sum(),
    "weights": lambda x: (tw.nn.conv(SMALL, x[:, :, :2, :3], padding=1) ** 2).sum(),
    "both": lambda x: (tw.nn.conv(x, x[:, :, :2, :2], dilation=(1, 2)) ** 2).sum(),
    "transposed": lambda x: (tw.nn.conv_transpose(x, WEIGHT, 2, 1, 1) ** 2).sum(),
    "max_pool": lambda x: (tw.nn.max_pool(x, 2, 1) ** 2).sum(),
    "avg_pool": lambda x: (tw.nn.avg_pool(x, 3, 2, 1, True, False) ** 2).sum(),
    "adaptive": lambda x: (tw.nn.adaptive_pool(x, (3, 2)) ** 2).sum(),
    "adaptive max": lambda x: (tw.nn.adaptive_pool(x, (3, 2), "max") ** 2).sum(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient(name: str) -> None:
    f = FUNCTIONS[name]
    close(run(grad(f), SMALL), slopes(lambda x: run(f, x), SMALL))


@pytest.mark.parametrize("name", ["data", "transposed", "avg_pool"])
def test_gradient_of_gradient(name: str) -> None:
    def slope(x):
        return (grad(FUNCTIONS[name])(x) * np.cos(np.arange(40.0)).reshape(SMALL.shape)).sum()
    close(run(grad(slope), SMALL), slopes(lambda x: run(slope, x), SMALL), 1e-5)


def test_a_layer_compiled() -> None:
    @tw.jit
    def loss(x, w):
        return (tw.nn.max_pool(tw.nn.relu(tw.nn.conv(x, w, padding=1)), 2) ** 2).sum()

    x, w = X.astype("f4"), W.astype("f4")
    value, slopes_ = tw.jit(tw.value_and_grad(loss, argnums=1))(x, w)
    exact = (windows(np.maximum(conv2(X, W, padding=((1, 1), (1, 1))), 0), (2, 2), (2, 2),
                     (1, 1)).max((-2, -1)) ** 2).sum()
    np.testing.assert_allclose(value, exact, rtol=1e-5)
    along = sample(W.shape, "f8", 9)
    ends = [float(loss(X, W + s * 1e-6 * along)) for s in (1, -1)]
    np.testing.assert_allclose(
        (ends[0] - ends[1]) / 2e-6, np.sum(slopes_ * along), rtol=1e-4)
