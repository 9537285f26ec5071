"""tw.nn against plain definitions, inside and outside of a trace, and at the edges of the types."""

from __future__ import annotations

import math

import numpy as np
import pytest
from frontend_harness import BF16, interpret, same, sample

import tilewright as tw

X = sample((4, 6), "f8", 1)
LABELS = np.array([0, 5, 2, 2])


def normal(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


DEFINITIONS = {
    "relu": (tw.nn.relu, lambda x: np.maximum(x, 0)),
    "sigmoid": (tw.nn.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "silu": (tw.nn.silu, lambda x: x / (1 + np.exp(-x))),
    "gelu": (lambda x: tw.nn.gelu(x, approximate=False), lambda x: x * normal(x)),
    "gelu tanh": (
        tw.nn.gelu,
        lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    ),
    "softmax": (tw.nn.softmax, lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
    "softmax 0": (
        lambda x: tw.nn.softmax(x, 0),
        lambda x: np.exp(x) / np.exp(x).sum(0, keepdims=True),
    ),
    "log_softmax": (tw.nn.log_softmax, lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
    "logsumexp": (tw.nn.logsumexp, lambda x: np.log(np.exp(x).sum())),
    "logsumexp 1": (
        lambda x: tw.nn.logsumexp(x, 1, True),
        lambda x: np.log(np.exp(x).sum(1, keepdims=True)),
    ),
    "layer_norm": (
        tw.nn.layer_norm,
        lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5),
    ),
    "one_hot": (lambda x: tw.nn.one_hot(LABELS, 6, "f8"), lambda x: np.eye(6)[LABELS]),
    "cross_entropy": (
        lambda x: tw.nn.cross_entropy(x, LABELS),
        lambda x: (
            -np.mean(np.log(np.exp(x) / np.exp(x).sum(1, keepdims=True))[np.arange(4), LABELS])
        ),
    ),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_definition(name: str) -> None:
    ours, plain = DEFINITIONS[name]
    same(np.asarray(ours(X)), plain(X))
    same(interpret(ours, X), plain(X))


@pytest.mark.parametrize("dtype", ["f2", "f4", BF16], ids=str)
@pytest.mark.parametrize("name", [n for n in DEFINITIONS if n != "one_hot"])
def test_the_element_type_is_kept(name: str, dtype: object) -> None:
    x = X.astype(dtype)
    for result in (interpret(DEFINITIONS[name][0], x), np.asarray(DEFINITIONS[name][0](x))):
        assert result.dtype == x.dtype
        np.testing.assert_allclose(
            result.astype("f8"), DEFINITIONS[name][1](x.astype("f8")), rtol=5e-2, atol=5e-2
        )


def test_large_numbers_do_not_overflow() -> None:
    x = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]])
    with np.errstate(over="raise", invalid="raise"):
        for f in (
            tw.nn.softmax,
            tw.nn.log_softmax,
            tw.nn.sigmoid,
            tw.nn.silu,
            tw.nn.logsumexp,
            tw.nn.gelu,
        ):
            assert np.isfinite(f(x)).all()
            assert np.isfinite(interpret(f, x)).all()
    assert tw.nn.sigmoid(x)[0].tolist() == [1, 0, 0.5]
    assert tw.nn.logsumexp(x, 1).tolist() == [1e4, -1e4 + np.log(3)]


def test_logsumexp_of_infinities() -> None:
    x = np.array([[-np.inf, -np.inf], [np.inf, 0], [-np.inf, 2]])
    for result in (tw.nn.logsumexp(x, 1), interpret(lambda x: tw.nn.logsumexp(x, 1), x)):
        assert result.tolist() == [-np.inf, np.inf, 2]


def test_layer_norm_scales_and_shifts() -> None:
    scale, bias = sample((6,), "f8", 2), sample((6,), "f8", 3)
    expected = tw.nn.layer_norm(X) * scale + bias
    same(interpret(lambda x, s, b: tw.nn.layer_norm(x, s, b), X, scale, bias), expected)


def test_cross_entropy_of_other_axes() -> None:
    x, labels = sample((2, 5, 3), "f8", 4), np.array([[0, 1, 4], [2, 2, 3]])
    expected = tw.nn.cross_entropy(np.moveaxis(x, 1, -1), labels)
    same(interpret(lambda x, y: tw.nn.cross_entropy(x, y, axis=1), x, labels), expected)


def test_one_hot_of_a_label_that_is_no_class() -> None:
    assert tw.nn.one_hot(np.array([1, -1, 3]), 3).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_labels_that_do_not_fit() -> None:
    with pytest.raises(tw.ShapeError, match=r"labels of shape \(4,\)"):
        tw.nn.cross_entropy(X, LABELS[:3])
    with pytest.raises(tw.DTypeError, match="the labels are not integers"):
        tw.nn.cross_entropy(X, LABELS.astype(float))
