"""What is measured on GPUs: inputs, the least work, and the true result for a few rows in f64.

Each kind of case is one function in :mod:`ours` and one in :mod:`torch_peer`. Training steps are
those of the CPU's suite (``benchmarks/workloads.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import workloads

Random = np.random.Generator
Truth = Callable[..., np.ndarray]
"""The inputs and numbers of rows (along the first axis) -> these rows of the result, f64."""

BF16 = np.dtype(ml_dtypes.bfloat16)
TOLERANCES = {"float32": 2e-5, "tf32": 2e-3, "bfloat16": 2e-2}
"""Of the greatest difference to the truth, over the greatest magnitude."""

MOST_ROWS = 8
"""Rows that are compared with the truth."""


@dataclass(frozen=True)
class Case:
    """One line of the table.

    precision  of the arithmetic: float32, tf32, bfloat16
    truth      what the result is compared with; None: the loss of the same step on a CPU
    rotates    whether calls take turns with several copies of the inputs
    """

    name: str
    kind: str
    inputs: Callable[[Random], tuple[Any, ...]]
    truth: Truth | None
    flops: float = 0
    bytes: float = 0
    precision: str = "float32"
    rotates: bool = True

    @property
    def tolerance(self) -> float:
        """How far a result may be from the truth, over its greatest magnitude."""
        return TOLERANCES[self.precision] if self.truth is not None else 1e-3


def normal(random: Random, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Normal numbers of a type."""
    return random.standard_normal(shape, np.float32).astype(dtype)


# The truth.


def exact(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arrays in f64."""
    return tuple(np.asarray(a, np.float64) for a in arrays)


def pointwise(x: np.ndarray, y: np.ndarray, z: np.ndarray, rows: Any) -> np.ndarray:
    """tanh(x) * y + z."""
    x, y, z = exact(x[rows], y[rows], z[rows])
    return np.tanh(x) * y + z


def softmax(x: np.ndarray, rows: Any) -> np.ndarray:
    """Along the last axis."""
    (x,) = exact(x[rows])
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def layer_norm(x: np.ndarray, g: np.ndarray, b: np.ndarray, rows: Any) -> np.ndarray:
    """Along the last axis, with a scale and a shift."""
    x, g, b = exact(x[rows], g, b)
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5) * g + b


def cross_entropy(x: np.ndarray, labels: np.ndarray, rows: Any) -> np.ndarray:
    """The gradient of the mean cross entropy by the scores."""
    result = softmax(x, rows)
    result[np.arange(len(rows)), labels[rows]] -= 1
    return result / len(x)


def gemm(a: np.ndarray, b: np.ndarray, rows: Any) -> np.ndarray:
    """a b."""
    a, b = exact(a[rows], b)
    return a @ b


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, rows: Any) -> np.ndarray:
    """softmax(q k^T / sqrt(d)) v of [heads, t, d], of the first head."""
    q, k, v = exact(q[:1, rows], k[:1], v[:1])
    scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
    return softmax(scores[0], slice(None)) @ v[0]


# The cases.


def rowwise(kind: str, truth: Truth, rows: int, columns: int, arrays: int, extra: Any) -> Case:
    """A case of f32[rows, columns] with further inputs; so many arrays of that size are moved."""
    def inputs(random: Random) -> tuple[Any, ...]:
        return normal(random, rows, columns), *extra(random)

    return Case(f"{kind}_{rows}x{columns}", kind, inputs, truth, bytes=4 * rows * columns * arrays)


def rows_of(rows: int, columns: int) -> list[Case]:
    """Everything that goes over memory once."""
    def same(random: Random) -> tuple[Any, ...]:
        return normal(random, rows, columns), normal(random, rows, columns)

    def affine(random: Random) -> tuple[Any, ...]:
        return normal(random, columns), normal(random, columns)

    def labels(random: Random) -> tuple[Any, ...]:
        return (random.integers(0, columns, rows),)

    return [
        rowwise("pointwise", pointwise, rows, columns, 4, same),
        rowwise("softmax", softmax, rows, columns, 2, lambda _: ()),
        rowwise("layer_norm", layer_norm, rows, columns, 2, affine),
        rowwise("cross_entropy", cross_entropy, rows, columns, 2, labels),
    ]


def product(m: int, n: int, k: int, precision: str) -> Case:
    """[m, k] times [k, n]."""
    dtype = BF16 if precision == "bfloat16" else np.dtype(np.float32)
    return Case(
        f"gemm_{m}x{n}x{k}_{precision}", "gemm",
        lambda random: (normal(random, m, k, dtype=dtype), normal(random, k, n, dtype=dtype)),
        gemm, 2 * m * n * k, dtype.itemsize * (m * k + k * n + m * n), precision)


def attended(heads: int, t: int, d: int) -> Case:
    """bf16[heads, t, d], three times."""
    return Case(
        f"attention_{heads}x{t}x{d}_bfloat16", "attention",
        lambda random: tuple(normal(random, heads, t, d, dtype=BF16) for _ in range(3)),
        attention, 4 * heads * t * t * d, 8 * heads * t * d, "bfloat16")


def training(workload: workloads.Workload) -> Case:
    """A step of the CPU's suite."""
    return Case(workload.name, workload.kind, workload.inputs, None, workload.flops,
                workload.bytes, rotates=False)


PRECISIONS = ("float32", "tf32", "bfloat16")
STEPS = ("mlp_train", "digits_step", "gpt_forward", "gpt_train", "gpt_deep_narrow_train")

FULL = {case.name: case for case in (
    *rows_of(16384, 4096), *rows_of(65536, 512), *rows_of(4096, 32768),
    *(product(n, n, n, p) for p in PRECISIONS for n in (512, 1024, 2048, 4096, 8192)),
    *(product(*shape, p) for p in PRECISIONS
      for shape in ((1000, 3000, 777), (4097, 4095, 1023), (64, 8192, 8192))),
    attended(32, 1024, 64), attended(32, 4096, 128), attended(4, 16384, 128),
    *(training(workloads.WORKLOADS[name]) for name in STEPS),
)}
"""What is measured on hardware."""

TINY = {case.name: case for case in (
    *rows_of(9, 70), *(product(40, 24, 33, p) for p in PRECISIONS), product(64, 64, 64, "bfloat16"),
    attended(1, 64, 16),
    training(workloads.Workload("mlp_train", "mlp_train", workloads.classifier(
        12, 8, 8, 10, batch=4))),
    training(workloads.Workload("digits_step", "momentum_train", workloads.classifier(
        12, 8, 8, 10, batch=4))),
    training(workloads.gpt("gpt_train", "gpt_train", 1, 16, 12, 1, 5)),
)}
"""The same kinds, small enough for the simulator."""


def some_rows(case: Case, inputs: tuple[Any, ...]) -> np.ndarray:
    """Rows to compare, from the first to the last."""
    count = inputs[0].shape[1 if case.kind == "attention" else 0]
    return np.unique(np.linspace(0, count - 1, MOST_ROWS).astype(int))


def compared(case: Case, result: np.ndarray, inputs: tuple[Any, ...]) -> float:
    """The greatest difference of some rows of a result to the truth, over their magnitude."""
    assert case.truth is not None
    rows = some_rows(case, inputs)
    expected = case.truth(*inputs, rows=rows)
    found = np.asarray((result[0] if case.kind == "attention" else result)[rows], np.float64)
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / np.abs(expected).max())
