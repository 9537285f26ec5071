"""The workloads in plain NumPy, gradients by hand; what nobody would write so is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def setup(peer: str, threads: int) -> None:
    """The environment variables of the thread count are all that NumPy needs."""


def wait(result: Any) -> Any:
    """NumPy is done when it returns."""
    return result


def numbers(array: Any) -> np.ndarray:
    """An array as NumPy's."""
    return np.asarray(array)


def bound(function: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """A builder: inputs -> the call on them."""
    return lambda *inputs: lambda: function(*inputs)


def softmax(x: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def gelu(x: np.ndarray) -> np.ndarray:
    """The usual approximation by tanh."""
    return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def layer_norm_gelu_residual(
    x: np.ndarray, r: np.ndarray, g: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """Add, normalise, activate, add."""
    x = x + r
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return gelu(centred / np.sqrt(variance + 1e-5) * g + b) + r


def cross_entropy_grad(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The loss and its gradient by the scores."""
    grad, rows = softmax(x), np.arange(len(y))
    loss = -np.log(grad[rows, y]).mean()
    grad[rows, y] -= 1
    return loss, grad / np.float32(len(y))


def shifted_difference(x: np.ndarray) -> np.ndarray:
    """Squares of the differences of neighbours along all axes."""
    return sum((np.diff(x, axis=a) ** 2).sum() for a in range(3))


def embedding_grad(w: np.ndarray, i: np.ndarray) -> np.ndarray:
    """The dense gradient of the squares of chosen rows."""
    grad = np.zeros_like(w)
    np.add.at(grad, i, 2 * w[i])
    return grad


def mlp(layers: list[Any], x: np.ndarray) -> np.ndarray:
    """Linear layers with relu between them."""
    for w, b in layers[:-1]:
        x = np.maximum(x @ w + b, 0)
    return x @ layers[-1][0] + layers[-1][1]


def mlp_gradients(layers: list[Any], x: np.ndarray, y: np.ndarray) -> tuple[Any, list[Any]]:
    """Cross entropy of an MLP and its gradient, written out."""
    inputs = [x]
    for w, b in layers[:-1]:
        inputs.append(np.maximum(inputs[-1] @ w + b, 0))
    loss, delta = cross_entropy_grad(inputs[-1] @ layers[-1][0] + layers[-1][1], y)
    grads = []
    for i in range(len(layers) - 1, -1, -1):
        grads.append((inputs[i].T @ delta, delta.sum(0)))
        if i:
            delta = (delta @ layers[i][0].T) * (inputs[i] > 0)
    return loss, grads[::-1]


def mlp_train(layers: list[Any], x: np.ndarray, y: np.ndarray) -> tuple[Any, list[Any]]:
    """A step of gradient descent."""
    loss, grads = mlp_gradients(layers, x, y)
    return loss, [
        (w - 0.01 * gw, b - 0.01 * gb)
        for (w, b), (gw, gb) in zip(layers, grads, strict=True)
    ]


def momentum_train(layers: list[Any], x: np.ndarray, y: np.ndarray) -> Callable[[], Any]:
    """Steps of gradient descent with momentum, each from where the last one ended."""
    state = [layers, [(np.zeros_like(w), np.zeros_like(b)) for w, b in layers]]

    def call() -> Any:
        loss, grads = mlp_gradients(state[0], x, y)
        state[1] = [
            tuple(0.9 * s - 0.01 * g for s, g in zip(speed, grad, strict=True))
            for speed, grad in zip(state[1], grads, strict=True)
        ]
        state[0] = [
            tuple(p + s for p, s in zip(layer, speed, strict=True))
            for layer, speed in zip(state[0], state[1], strict=True)
        ]
        return loss
    return call


def decode(weights: list[Any], x: np.ndarray) -> np.ndarray:
    """One token through eight residual blocks."""
    for up, down in weights:
        x = x + gelu(x @ up) @ down
    return x


def steps() -> dict[str, Callable[..., Callable[[], Any]]]:
    """A builder per kind of workload."""
    return {
        "linear": bound(lambda x, w: x @ w.T),
        "matmul": bound(np.matmul),
        "batched_matmul": bound(lambda a, b: a @ b.transpose(0, 2, 1)),
        "layer_norm_gelu_residual": bound(layer_norm_gelu_residual),
        "softmax": bound(softmax),
        "cross_entropy_grad": bound(cross_entropy_grad),
        "shifted_difference": bound(shifted_difference),
        "column_sum": bound(lambda x: x.sum(0)),
        "embedding_grad": bound(embedding_grad),
        "mlp_train": bound(mlp_train),
        "momentum_train": momentum_train,
        "decode": bound(decode),
        "dispatch": bound(lambda a, b: np.tanh(a @ b) + 1),
        "dispatch_tree": bound(mlp),
    }
