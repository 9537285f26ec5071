"""Operands of attention, and what it becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

import tilewright as tw
from tilewright.codegen.gpu.architectures import gpu_target
from tilewright.compiler.pipeline import compile_graph

Array = Any
BF16 = ml_dtypes.bfloat16


def softmax(s: Array) -> Array:
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def groups(function: Callable[..., Any], *arrays: Array, architecture: str = "sm_80") -> list[str]:
    graph = tw.jit(function).trace(*arrays)
    kernels = compile_graph(graph, gpu_target(architecture)).kernels
    return [kernel.kernel.name.partition("_")[0] for kernel in kernels]


def qkv(rows: int, keys: int, d: int, columns: int, *batch: int, dtype: Any = BF16) -> list[Array]:
    random = np.random.default_rng(rows + keys)
    shapes = ((rows, d), (keys, d), (keys, columns))
    return [random.standard_normal((*batch, *s)).astype(dtype) for s in shapes]


def exact(function: Callable[..., Any], arrays: list[Array]) -> Array:
    return tw.jit(function)(*(a.astype(np.float32) for a in arrays))
