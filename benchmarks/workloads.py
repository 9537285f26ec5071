"""The workloads: names, inputs as NumPy arrays, and the least work that each of them is.

Every peer gets the same inputs. ``kind`` names the function that a peer runs on them; ``flops`` and
``bytes`` are the least arithmetic and the least memory traffic (every input read once, every output
written once), from which :mod:`run` computes the floor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Random = np.random.Generator


@dataclass(frozen=True)
class Workload:
    """One line of the table; ``repeat`` calls make one measurement."""

    name: str
    kind: str
    inputs: Callable[[Random], tuple[Any, ...]]
    flops: float = 0
    bytes: float = 0
    repeat: int = 1
    dtype: str = "float32"


def normal(random: Random, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Normal f32 numbers."""
    return random.standard_normal(shape, dtype=np.float32) * np.float32(scale)


def normals(*shapes: tuple[int, ...]) -> Callable[[Random], tuple[np.ndarray, ...]]:
    """Inputs that are normal f32 arrays of these shapes."""
    return lambda random: tuple(normal(random, *shape) for shape in shapes)


def linear(m: int, n: int, k: int) -> Workload:
    """x[m, k] times w[n, k] transposed, as a linear layer does it."""
    return Workload(f"linear_{m}x{n}x{k}_float32", "linear", normals((m, k), (n, k)),
                    2 * m * n * k, 4 * (m * k + n * k + m * n))


def doubles(random: Random) -> tuple[np.ndarray, ...]:
    """Two f64 matrices."""
    return random.standard_normal((1024, 1024)), random.standard_normal((1024, 1024))


def uniforms(random: Random) -> tuple[np.ndarray, ...]:
    """Spot price, strike price and time of four million options."""
    return tuple(random.uniform(0.5, 2, 4_000_000).astype(np.float32) for _ in range(3))


def layers(random: Random, sizes: tuple[int, ...], random_bias: bool = True) -> list[Any]:
    """Weights and biases between layers of these sizes."""
    return [
        (normal(random, a, b, scale=a ** -0.5), normal(random, b, scale=float(random_bias)))
        for a, b in zip(sizes, sizes[1:], strict=False)
    ]


def classifier(*sizes: int, batch: int) -> Callable[[Random], tuple[Any, ...]]:
    """Layers, a batch of images and their labels."""
    return lambda random: (
        layers(random, sizes), normal(random, batch, sizes[0]),
        random.integers(0, sizes[-1], batch),
    )


def classifier_flops(*sizes: int, batch: int) -> float:
    """Forward, both backward products, but no gradient of the images."""
    products = [a * b for a, b in zip(sizes, sizes[1:], strict=False)]
    return 2 * batch * (3 * sum(products) - products[0])


def gpt_weights(random: Random, depth: int, d: int, vocabulary: int, t: int) -> dict[str, Any]:
    """Weights of a small GPT whose output layer is its embedding."""
    def block() -> dict[str, np.ndarray]:
        return {
            "g1": np.ones(d, np.float32), "b1": np.zeros(d, np.float32),
            "qkv": normal(random, d, 3 * d, scale=0.02), "qkv_b": np.zeros(3 * d, np.float32),
            "out": normal(random, d, d, scale=0.02), "out_b": np.zeros(d, np.float32),
            "g2": np.ones(d, np.float32), "b2": np.zeros(d, np.float32),
            "up": normal(random, d, 4 * d, scale=0.02), "up_b": np.zeros(4 * d, np.float32),
            "down": normal(random, 4 * d, d, scale=0.02), "down_b": np.zeros(d, np.float32),
        }
    return {
        "wte": normal(random, vocabulary, d, scale=0.02), "wpe": normal(random, t, d, scale=0.02),
        "g": np.ones(d, np.float32), "b": np.zeros(d, np.float32),
        "blocks": [block() for _ in range(depth)],
    }


def gpt(kind: str, name: str, depth: int, d: int, vocabulary: int, batch: int, t: int) -> Workload:
    """A GPT's forward pass, or a step of training it with Adam."""
    tokens = batch * (t if kind == "gpt_forward" else t - 1)
    parameters = 12 * depth * d * d + vocabulary * d
    attention = 2 * tokens * t * d * depth  # the half of it below the diagonal
    forward = 2 * tokens * parameters + attention
    training = kind == "gpt_train"
    return Workload(
        name, kind,
        lambda random: (gpt_weights(random, depth, d, vocabulary, t),
                        random.integers(0, vocabulary, (batch, t))),
        forward * 3 if training else forward,
        4 * parameters * 6 if training else 4 * (parameters + tokens * vocabulary),
    )


def decoder(random: Random) -> tuple[Any, ...]:
    """Eight blocks' two matrices, and one token."""
    weights = [
        (normal(random, 1024, 4096, scale=0.03), normal(random, 4096, 1024, scale=0.03))
        for _ in range(8)
    ]
    return weights, normal(random, 1, 1024)


MB = 2 ** 20
DIGITS = (64, 128, 64, 10)
MLP = (784, 1024, 1024, 10)

WORKLOADS: dict[str, Workload] = {w.name: w for w in (
    *(linear(*shape) for shape in (
        (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048),
        (128, 768, 768), (64, 4096, 1024), (512, 3072, 768),
    )),
    Workload("matmul_1024_float64", "matmul", doubles, 2 * 1024 ** 3, 24 * MB, dtype="float64"),
    Workload("batched_matmul_96x256x64", "batched_matmul", normals((96, 256, 64), (96, 256, 64)),
             2 * 96 * 256 * 256 * 64, 4 * 96 * 256 * (64 + 64 + 256)),
    Workload("gemv_4096", "matmul", normals((4096, 4096), (4096,)), 2 * 4096 ** 2, 64 * MB),
    Workload("layer_norm_gelu_residual", "layer_norm_gelu_residual",
             normals((4096, 1024), (4096, 1024), (1024,), (1024,)), bytes=48 * MB),
    Workload("softmax_4096x1024", "softmax", normals((4096, 1024)), bytes=32 * MB),
    Workload("cross_entropy_grad_1024x8192", "cross_entropy_grad",
             lambda random: (normal(random, 1024, 8192), random.integers(0, 8192, 1024)),
             bytes=64 * MB),
    Workload("black_scholes_4M", "black_scholes", uniforms, bytes=64e6),
    Workload("shifted_difference_256", "shifted_difference", normals((256, 256, 256)),
             bytes=64 * MB),
    Workload("column_sum_4096x4096", "column_sum", normals((4096, 4096)), bytes=64 * MB),
    Workload("embedding_grad_32k", "embedding_grad",
             lambda random: (normal(random, 32000, 128), random.integers(0, 32000, 8192)),
             bytes=4 * 128 * (32000 + 8192)),
    Workload("mlp_train", "mlp_train", classifier(*MLP, batch=256),
             classifier_flops(*MLP, batch=256), 8 * (784 + 1024 + 10) * 1024),
    Workload("digits_step", "momentum_train", classifier(*DIGITS, batch=64),
             classifier_flops(*DIGITS, batch=64), 16 * (64 * 128 + 128 * 64 + 64 * 10)),
    gpt("gpt_forward", "gpt_forward", 4, 512, 8192, 4, 256),
    gpt("gpt_train", "gpt_train", 4, 512, 8192, 4, 256),
    gpt("gpt_train", "gpt_deep_narrow_train", 12, 128, 1024, 4, 64),
    Workload("decode_batch1", "decode", decoder, 2 * 8 * 2 * 1024 * 4096, 256 * MB),
    Workload("dispatch_x1000", "dispatch", normals((8, 8), (8, 8)), repeat=1000),
    Workload("dispatch_tree_x1000", "dispatch_tree",
             lambda random: (layers(random, (8,) * 11), normal(random, 8, 8)), repeat=1000),
)}
"""By name, in the order of the table."""


def inputs_of(name: str) -> tuple[Any, ...]:
    """The inputs of a workload, the same in every process."""
    return WORKLOADS[name].inputs(np.random.default_rng(0))
