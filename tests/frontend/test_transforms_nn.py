"""Gradients of tw.nn against finite differences, first and second order."""

import numpy as np
import pytest
from test_transforms import X, close, run, slopes

from tilewright.frontend import nn
from tilewright.frontend.transforms import grad

LABELS = np.array([0, 2, 1, 2])
WEIGHT = np.cos(np.arange(12.0)).reshape(4, 3)
FUNCTIONS = {
    "softmax": lambda x: (nn.softmax(x) * WEIGHT).sum(),
    "softmax of columns": lambda x: (nn.softmax(x, axis=0) * WEIGHT).sum(),
    "log_softmax": lambda x: (nn.log_softmax(x) * WEIGHT).sum(),
    "logsumexp": lambda x: (nn.logsumexp(x, axis=1) ** 2).sum(),
    "logsumexp of all": lambda x: nn.logsumexp(x) ** 2,
    "cross_entropy": lambda x: nn.cross_entropy(x, LABELS),
    "layer_norm": lambda x: (nn.layer_norm(x, X[0], X[1]) * WEIGHT).sum(),
    "gelu": lambda x: nn.gelu(x).sum(),
    "exact gelu": lambda x: nn.gelu(x, approximate=False).sum(),
    "silu": lambda x: nn.silu(x).sum(),
    "sigmoid": lambda x: nn.sigmoid(x).sum(),
    "relu": lambda x: (nn.relu(x) ** 2).sum(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient(name):
    f = FUNCTIONS[name]
    close(run(grad(f), X), slopes(lambda x: run(f, x), X))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_of_gradient(name):
    def slope(x):
        return (grad(FUNCTIONS[name])(x) * WEIGHT).sum()
    close(run(grad(slope), X), slopes(lambda x: run(slope, x), X), 1e-5)


def test_large_logits():
    found = run(grad(lambda x: nn.cross_entropy(x, np.array([1]))), np.array([[1000.0, -1000.0]]))
    close(found, [[1.0, -1.0]])


def test_sigmoid_is_flat_far_out():
    close(run(grad(lambda x: nn.sigmoid(x).sum()), np.array([-1000.0, 0.0, 1000.0])), [0, 0.25, 0])
