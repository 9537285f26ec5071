"""Convolutions on nodes against plain loops; their gradients, given and by differentiation."""

from __future__ import annotations

import numpy as np
import pytest
from window_cases import convolved, derivatives, gradients, inputs_like, values

from tilewright.ir.autodiff import pullback
from tilewright.ir.convolve import (
    Convolution,
    convolution,
    convolution_input_grad,
    convolution_weight_grad,
    settings,
    transposed_convolution,
    transposed_input_grad,
    transposed_weight_grad,
)
from tilewright.ir.graph import Graph, topological

CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Convolution]] = {
    "1d": ((2, 3, 7), (4, 3, 3), settings(1)),
    "same": ((1, 2, 5, 6), (3, 2, 3, 3), settings(2, padding=1)),
    "strided": ((1, 2, 7, 8), (2, 2, 3, 3), settings(2, 2, 1)),
    "stride 3, 2": ((1, 2, 8, 7), (2, 2, 3, 4), settings(2, (3, 2), (1, 2))),
    "a stride beyond the taps": ((1, 2, 9, 9), (2, 2, 2, 1), settings(2, 3)),
    "dilated": ((1, 2, 8, 9), (2, 2, 3, 2), settings(2, 1, 2, (2, 3))),
    "strided and dilated": ((2, 1, 11), (2, 1, 3), settings(1, 2, 1, 2)),
    "stride 4, dilation 6": ((1, 1, 20), (1, 1, 3), settings(1, 4, 2, 6)),
    "patches": ((1, 2, 6, 8), (3, 2, 2, 4), settings(2, (2, 4))),
    "one tap": ((2, 3, 3, 4), (4, 3, 1, 1), settings(2)),
    "groups": ((1, 4, 5, 5), (6, 2, 3, 3), settings(2, 1, 1, 1, 2)),
    "depthwise": ((2, 3, 5, 5), (3, 1, 3, 3), settings(2, 2, 1, 1, 3)),
    "depthwise, two each": ((1, 3, 6), (6, 1, 3), settings(1, 1, 1, 1, 3)),
    "uneven padding": ((1, 2, 5, 6), (2, 2, 2, 4), settings(2, 1, [(0, 1), (1, 2)])),
    "padding beyond the taps": ((1, 1, 3), (1, 1, 2), settings(1, 2, 4)),
    "3d": ((1, 2, 4, 3, 5), (2, 2, 2, 3, 2), settings(3, (1, 2, 2), (0, 1, 1))),
    "stride 17": ((1, 1, 40), (1, 1, 19), settings(1, 17, 3)),
}


def sample(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, Convolution]:
    """Data, weights and a cotangent for a case."""
    x_shape, w_shape, c = CASES[name]
    rng = np.random.default_rng(len(name))
    x, w = rng.normal(size=x_shape), rng.normal(size=w_shape)
    return x, w, rng.normal(size=convolved(x, w, c).shape), c


@pytest.mark.parametrize("name", CASES)
def test_convolution(name: str) -> None:
    x, w, grad, c = sample(name)
    y, dx, dw = values(lambda x, w, g: (
        convolution(x, w, c), convolution_input_grad(g, w, x.shape, c),
        convolution_weight_grad(g, x, w.shape, c)), x, w, grad)
    np.testing.assert_allclose(y, convolved(x, w, c), atol=1e-12)
    want = gradients(lambda x, w: convolved(x, w, c), grad, x, w)
    np.testing.assert_allclose(dx, want[0], atol=1e-12)
    np.testing.assert_allclose(dw, want[1], atol=1e-12)
    for found, exact in zip(
        derivatives(lambda x, w: convolution(x, w, c), grad, x, w), want, strict=True
    ):
        np.testing.assert_allclose(found, exact, atol=1e-12)


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_transposed_convolution_is_the_adjoint(name: str, extra: int) -> None:
    _, w, x, c = sample(name)
    size = c.transposed_space(x.shape[2:], w.shape[2:], [extra] * c.dims)
    if extra and min(c.strides) == 1 or min(size) < 1:
        return
    shape = (x.shape[0], w.shape[1] * c.groups, *size)
    grad = np.random.default_rng(1).normal(size=shape)

    def plain(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return gradients(lambda y: convolved(y, w, c), x, np.zeros(shape))[0]

    y, dx, dw = values(lambda x, w, g: (
        transposed_convolution(x, w, c, [extra] * c.dims),
        transposed_input_grad(g, w, x.shape, c), transposed_weight_grad(g, x, w.shape, c),
    ), x, w, grad)
    np.testing.assert_allclose(y, plain(x, w), atol=1e-12)
    # <grad, T x> = <C grad, x>, and the weights are seen by both alike.
    np.testing.assert_allclose(dx, convolved(grad, w, c), atol=1e-12)
    np.testing.assert_allclose(np.sum(dw * w), np.sum(grad * y), rtol=1e-9)
    for found, exact in zip(
        derivatives(
            lambda x, w: transposed_convolution(x, w, c, [extra] * c.dims), grad, x, w),
        (dx, dw), strict=True,
    ):
        np.testing.assert_allclose(found, exact, atol=1e-12)


def test_output_padding_beyond_the_stride() -> None:
    """The result has room for more windows than there are elements."""
    _, w, x, c = sample("stride 4, dilation 6")
    size = c.transposed_space(x.shape[2:], w.shape[2:], [5])
    grad = np.random.default_rng(1).normal(size=(1, 1, *size))
    y, dx, dw = values(lambda x, w, g: (
        transposed_convolution(x, w, c, [5]), transposed_input_grad(g, w, x.shape, c),
        transposed_weight_grad(g, x, w.shape, c)), x, w, grad)
    np.testing.assert_allclose(np.sum(dx * x), np.sum(grad * y), rtol=1e-9)
    np.testing.assert_allclose(np.sum(dw * w), np.sum(grad * y), rtol=1e-9)
    found = derivatives(lambda x, w: transposed_convolution(x, w, c, [5]), grad, x, w)
    np.testing.assert_allclose(found[1], dw, atol=1e-12)


@pytest.mark.parametrize("name", ["same", "strided", "groups", "strided and dilated", "3d"])
def test_gradients_are_contractions_of_windows(name: str) -> None:
    x, w, grad, c = sample(name)
    nodes = inputs_like(x, w, grad)
    for result in (convolution_input_grad(nodes[2], nodes[1], x.shape, c),
                   convolution_weight_grad(nodes[2], nodes[0], w.shape, c)):
        for node in topological([result]):
            # No column of windows is an operand of anything but a contraction.
            assert node.op.kind != "index"
            if node.op.name == "contract":
                seen = {n.op.name for n in topological(node.inputs)}
                assert "contract" not in seen


def test_second_derivatives() -> None:
    x, w, grad, c = sample("strided")

    def loss(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return convolved(x, w, c)

    def slope(x, w):
        return convolution_weight_grad(convolution(x, w, c), x, w.shape, c)

    # d/dw and d/dx of <u, dL/dw> for L = |conv(x, w)|^2 / 2, by differences.
    u = np.random.default_rng(5).normal(size=w.shape)
    dx, dw = derivatives(slope, u, x, w)

    def value(x: np.ndarray, w: np.ndarray) -> float:
        return float(np.sum(u * gradients(lambda w: convolved(x, w, c), loss(x, w), w)[0]))

    rng = np.random.default_rng(6)
    for number, found in enumerate((dx, dw)):
        along = rng.normal(size=(x, w)[number].shape) * 1e-4
        ends = [value(*(a + s * along if i == number else a for i, a in enumerate((x, w))))
                for s in (1, -1)]
        np.testing.assert_allclose((ends[0] - ends[1]) / 2, np.sum(found * along), rtol=1e-6)


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="2 axes of space need as many settings"):
        settings(2, (1, 2, 3))
    with pytest.raises(ValueError, match="1 or more"):
        settings(2, 0)
    with pytest.raises(ValueError, match="padding 0"):
        settings(1, 1, -1)
    x, w = inputs_like(np.zeros((1, 4, 5)), np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="do not fit 4 channels"):
        convolution(x, w, settings(1))
    x, w = inputs_like(np.zeros((1, 3, 2)), np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="3 taps 1 apart do not fit into 2 elements"):
        convolution(x, w, settings(1))
    with pytest.raises(ValueError, match="the result would have the sizes"):
        transposed_convolution(*inputs_like(np.zeros((1, 2, 1)), np.zeros((2, 3, 1))),
                               settings(1, 1, 1))


def test_one_graph_for_both_ways() -> None:
    x, w, grad, c = sample("same")
    nodes = inputs_like(x, w, grad)
    y = convolution(nodes[0], nodes[1], c)
    graph = Graph((nodes[0], nodes[1]), (y,))
    dx, dw = pullback([y], [nodes[2]], graph.inputs)
    assert dw is convolution_weight_grad(nodes[2], nodes[0], w.shape, c)
    assert dx is not None and dx.op.name == "slice"
