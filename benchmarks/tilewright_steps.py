"""The workloads in tilewright: NumPy functions under ``tw.jit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tilewright as tw


def setup(peer: str, threads: int) -> None:
    """The worker has set TILEWRIGHT_NUM_THREADS."""


def wait(result: Any) -> Any:
    """A compiled function is done when it returns."""
    return result


def numbers(array: Any) -> np.ndarray:
    """An array as NumPy's."""
    return np.asarray(array)


def jitted(function: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """A builder: inputs -> the compiled call on them."""
    def build(*inputs: Any) -> Callable[[], Any]:
        compiled = tw.jit(function)
        return lambda: compiled(*inputs)
    return build


def trained(loss: Callable[..., Any], update: Callable[..., Any], states: int) -> Any:
    """A builder of a training loop whose parameters and optimiser state are updated in place."""
    def build(parameters: Any, *batch: Any) -> Callable[[], Any]:
        def step(state: tuple[Any, ...], *batch: Any) -> tuple[Any, tuple[Any, ...]]:
            value, grads = tw.value_and_grad(loss)(state[0], *batch)
            return value, update(grads, *state)
        compiled = tw.jit(step, donate_argnames=("state",))
        state = (parameters, *(tw.tree.map(np.zeros_like, parameters) for _ in range(states)))

        def call() -> Any:
            nonlocal state
            value, state = compiled(state, *batch)
            return value
        return call
    return build


def gelu(x: np.ndarray) -> np.ndarray:
    """The usual approximation by tanh."""
    return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x ** 3)))


def layer_norm(x: np.ndarray, g: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    mean = x.mean(-1, keepdims=True)
    variance = np.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * g + b


def softmax(x: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def black_scholes(spot: np.ndarray, strike: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The price of a call option."""
    rate, volatility = 0.05, 0.2
    spread = volatility * np.sqrt(time)
    high = (np.log(spot / strike) + (rate + 0.5 * volatility ** 2) * time) / spread

    def cumulative(x: np.ndarray) -> np.ndarray:
        return 0.5 * (1 + tw.numpy.erf(x * 0.70710678))
    return spot * cumulative(high) - strike * np.exp(-rate * time) * cumulative(high - spread)


def shifted_difference(x: np.ndarray) -> np.ndarray:
    """Squares of the differences of neighbours along all axes."""
    return sum(np.square(np.diff(x, axis=a)).sum() for a in range(3))


def mlp(layers: list[Any], x: np.ndarray) -> np.ndarray:
    """Linear layers with relu between them."""
    for w, b in layers[:-1]:
        x = np.maximum(x @ w + b, 0)
    return x @ layers[-1][0] + layers[-1][1]


def mlp_loss(layers: list[Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cross entropy of the MLP."""
    return tw.nn.cross_entropy(mlp(layers, x), y)


def mlp_train(layers: list[Any], x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """A step of gradient descent."""
    loss, grads = tw.value_and_grad(mlp_loss)(layers, x, y)
    return loss, tw.tree.map(lambda p, g: p - 0.01 * g, layers, grads)


def momentum(grads: Any, parameters: Any, speeds: Any) -> tuple[Any, Any]:
    """Gradient descent with momentum."""
    speeds = tw.tree.map(lambda s, g: 0.9 * s - 0.01 * g, speeds, grads)
    return tw.tree.map(lambda p, s: p + s, parameters, speeds), speeds


def adam(grads: Any, parameters: Any, means: Any, squares: Any) -> tuple[Any, Any, Any]:
    """Adam without the correction of the first steps."""
    means = tw.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, grads)
    squares = tw.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, squares, grads)
    parameters = tw.tree.map(
        lambda p, m, v: p - 1e-3 * m / (np.sqrt(v) + 1e-8), parameters, means, squares)
    return parameters, means, squares


def attention(x: np.ndarray, block: dict[str, Any], heads: int) -> np.ndarray:
    """Causal self-attention of f32[batch, t, d]."""
    batch, t, d = x.shape
    joint = (x @ block["qkv"] + block["qkv_b"]).reshape(batch, t, 3, heads, d // heads)
    q, k, v = (joint[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    scores = np.einsum("bhtd,bhsd->bhts", q, k) * (d // heads) ** -0.5
    scores = np.where(np.tril(np.ones((t, t), bool)), scores, np.float32(-1e9))
    mixed = np.einsum("bhts,bhsd->bhtd", softmax(scores), v)
    return mixed.transpose(0, 2, 1, 3).reshape(batch, t, d) @ block["out"] + block["out_b"]


def gpt(p: dict[str, Any], ids: np.ndarray, heads: int = 8) -> np.ndarray:
    """Scores of the next tokens, f32[batch, t, vocabulary]."""
    x = np.take(p["wte"], ids, axis=0) + p["wpe"][:ids.shape[1]]
    for block in p["blocks"]:
        x = x + attention(layer_norm(x, block["g1"], block["b1"]), block, heads)
        hidden = gelu(layer_norm(x, block["g2"], block["b2"]) @ block["up"] + block["up_b"])
        x = x + hidden @ block["down"] + block["down_b"]
    return layer_norm(x, p["g"], p["b"]) @ p["wte"].T


def gpt_loss(p: dict[str, Any], ids: np.ndarray) -> np.ndarray:
    """Cross entropy of the next tokens."""
    return tw.nn.cross_entropy(gpt(p, ids[:, :-1]), ids[:, 1:])


def decode(weights: list[Any], x: np.ndarray) -> np.ndarray:
    """One token through eight residual blocks."""
    for up, down in weights:
        x = x + gelu(x @ up) @ down
    return x


def steps() -> dict[str, Callable[..., Any]]:
    """A builder per kind of workload."""
    return {
        "linear": jitted(lambda x, w: x @ w.T),
        "matmul": jitted(lambda a, b: a @ b),
        "batched_matmul": jitted(lambda a, b: np.einsum("bik,bjk->bij", a, b)),
        "layer_norm_gelu_residual": jitted(
            lambda x, r, g, b: gelu(layer_norm(x + r, g, b)) + r),
        "softmax": jitted(softmax),
        "cross_entropy_grad": jitted(lambda x, y: tw.value_and_grad(tw.nn.cross_entropy)(x, y)),
        "black_scholes": jitted(black_scholes),
        "shifted_difference": jitted(shifted_difference),
        "column_sum": jitted(lambda x: x.sum(0)),
        "embedding_grad": jitted(tw.grad(lambda w, i: np.square(np.take(w, i, axis=0)).sum())),
        "mlp_train": jitted(mlp_train),
        "momentum_train": trained(mlp_loss, momentum, 1),
        "gpt_forward": jitted(gpt),
        "gpt_train": trained(gpt_loss, adam, 2),
        "decode": jitted(decode),
        "dispatch": jitted(lambda a, b: np.tanh(a @ b) + 1),
        "dispatch_tree": jitted(mlp),
    }
