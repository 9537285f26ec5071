"""The workloads in JAX, each under ``jax.jit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def setup(peer: str, threads: int) -> None:
    """XLA takes the cores that the process may use. f64 stays off: the switch is process-wide."""


def wait(result: Any) -> Any:
    """Block until the arrays are there."""
    return jax.block_until_ready(result)


def numbers(array: Any) -> np.ndarray:
    """An array as NumPy's."""
    return np.asarray(array)


def jitted(function: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """A builder: inputs -> the compiled call on them."""
    def build(*inputs: Any) -> Callable[[], Any]:
        compiled = jax.jit(function)
        arrays = jax.tree.map(jnp.asarray, inputs)
        return lambda: compiled(*arrays)
    return build


def trained(loss: Callable[..., Any], update: Callable[..., Any], states: int) -> Any:
    """A builder of a training loop whose parameters and optimiser state are updated in place."""
    def build(parameters: Any, *batch: Any) -> Callable[[], Any]:
        def step(state: tuple[Any, ...], *batch: Any) -> tuple[Any, tuple[Any, ...]]:
            value, grads = jax.value_and_grad(loss)(state[0], *batch)
            return value, update(grads, *state)
        compiled = jax.jit(step, donate_argnums=0)
        parameters, batch = jax.tree.map(jnp.array, (parameters, batch))
        state = (parameters, *(jax.tree.map(jnp.zeros_like, parameters) for _ in range(states)))

        def call() -> Any:
            nonlocal state
            value, state = compiled(state, *batch)
            return value, state
        return call
    return build


def gelu(x: jax.Array) -> jax.Array:
    """The usual approximation by tanh."""
    return jax.nn.gelu(x, approximate=True)


def layer_norm(x: jax.Array, g: jax.Array, b: jax.Array) -> jax.Array:
    """Along the last axis."""
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * g + b


def cross_entropy(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean negative log-probability of the labels."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), labels[..., None], -1)
    return -chosen.mean()


def black_scholes(spot: jax.Array, strike: jax.Array, time: jax.Array) -> jax.Array:
    """The price of a call option."""
    rate, volatility = 0.05, 0.2
    spread = volatility * jnp.sqrt(time)
    high = (jnp.log(spot / strike) + (rate + 0.5 * volatility ** 2) * time) / spread

    def cumulative(x: jax.Array) -> jax.Array:
        return 0.5 * (1 + jax.lax.erf(x * 0.70710678))
    return spot * cumulative(high) - strike * jnp.exp(-rate * time) * cumulative(high - spread)


def mlp(layers: list[Any], x: jax.Array) -> jax.Array:
    """Linear layers with relu between them."""
    for w, b in layers[:-1]:
        x = jnp.maximum(x @ w + b, 0)
    return x @ layers[-1][0] + layers[-1][1]


def mlp_loss(layers: list[Any], x: jax.Array, y: jax.Array) -> jax.Array:
    """Cross entropy of the MLP."""
    return cross_entropy(mlp(layers, x), y)


def mlp_train(layers: list[Any], x: jax.Array, y: jax.Array) -> tuple[jax.Array, list[Any]]:
    """A step of gradient descent."""
    loss, grads = jax.value_and_grad(mlp_loss)(layers, x, y)
    return loss, jax.tree.map(lambda p, g: p - 0.01 * g, layers, grads)


def momentum(grads: Any, parameters: Any, speeds: Any) -> tuple[Any, Any]:
    """Gradient descent with momentum."""
    speeds = jax.tree.map(lambda s, g: 0.9 * s - 0.01 * g, speeds, grads)
    return jax.tree.map(jnp.add, parameters, speeds), speeds


def adam(grads: Any, parameters: Any, means: Any, squares: Any) -> tuple[Any, Any, Any]:
    """Adam without the correction of the first steps."""
    means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, grads)
    squares = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, squares, grads)
    parameters = jax.tree.map(
        lambda p, m, v: p - 1e-3 * m / (jnp.sqrt(v) + 1e-8), parameters, means, squares)
    return parameters, means, squares


def attention(x: jax.Array, block: dict[str, Any], heads: int) -> jax.Array:
    """Causal self-attention of f32[batch, t, d]."""
    batch, t, d = x.shape
    joint = (x @ block["qkv"] + block["qkv_b"]).reshape(batch, t, 3, heads, d // heads)
    q, k, v = joint.transpose(2, 0, 3, 1, 4)
    scores = jnp.einsum("bhtd,bhsd->bhts", q, k) * (d // heads) ** -0.5
    scores = jnp.where(jnp.tril(jnp.ones((t, t), bool)), scores, -1e9)
    mixed = jnp.einsum("bhts,bhsd->bhtd", jax.nn.softmax(scores, -1), v)
    return mixed.transpose(0, 2, 1, 3).reshape(batch, t, d) @ block["out"] + block["out_b"]


def gpt(p: dict[str, Any], ids: jax.Array, heads: int = 8) -> jax.Array:
    """Scores of the next tokens, f32[batch, t, vocabulary]."""
    x = p["wte"][ids] + p["wpe"][:ids.shape[1]]
    for block in p["blocks"]:
        x = x + attention(layer_norm(x, block["g1"], block["b1"]), block, heads)
        hidden = gelu(layer_norm(x, block["g2"], block["b2"]) @ block["up"] + block["up_b"])
        x = x + hidden @ block["down"] + block["down_b"]
    return layer_norm(x, p["g"], p["b"]) @ p["wte"].T


def gpt_loss(p: dict[str, Any], ids: jax.Array) -> jax.Array:
    """Cross entropy of the next tokens."""
    return cross_entropy(gpt(p, ids[:, :-1]), ids[:, 1:])


def decode(weights: list[Any], x: jax.Array) -> jax.Array:
    """One token through eight residual blocks."""
    for up, down in weights:
        x = x + gelu(x @ up) @ down
    return x


def matmul(a: np.ndarray, b: np.ndarray) -> Callable[[], Any] | None:
    """A product of f32 matrices; f64 would need a process-wide switch."""
    return None if a.dtype == np.float64 else jitted(jnp.matmul)(a, b)


def steps() -> dict[str, Callable[..., Any]]:
    """A builder per kind of workload."""
    return {
        "linear": jitted(lambda x, w: x @ w.T),
        "matmul": matmul,
        "batched_matmul": jitted(lambda a, b: jnp.einsum("bik,bjk->bij", a, b)),
        "layer_norm_gelu_residual": jitted(
            lambda x, r, g, b: gelu(layer_norm(x + r, g, b)) + r),
        "softmax": jitted(lambda x: jax.nn.softmax(x, -1)),
        "cross_entropy_grad": jitted(jax.value_and_grad(cross_entropy)),
        "black_scholes": jitted(black_scholes),
        "shifted_difference": jitted(
            lambda x: sum(jnp.square(jnp.diff(x, axis=a)).sum() for a in range(3))),
        "column_sum": jitted(lambda x: x.sum(0)),
        "embedding_grad": jitted(jax.grad(lambda w, i: jnp.square(w[i]).sum())),
        "mlp_train": jitted(mlp_train),
        "momentum_train": trained(mlp_loss, momentum, 1),
        "gpt_forward": jitted(gpt),
        "gpt_train": trained(gpt_loss, adam, 2),
        "decode": jitted(decode),
        "dispatch": jitted(lambda a, b: jnp.tanh(a @ b) + 1),
        "dispatch_tree": jitted(mlp),
    }
