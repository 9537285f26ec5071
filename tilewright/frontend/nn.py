"""``tw.nn``: the functions that networks are made of, in plain NumPy.

They work on traced values and on NumPy arrays alike, and give the element type they are given;
integers count as f64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.errors import DTypeError, ShapeError
from tilewright.frontend.build import as_node, axis_of, describe_value, emit, wrap
from tilewright.frontend.convolutions import (
    adaptive_pool,
    avg_pool,
    conv,
    conv_transpose,
    max_pool,
)
from tilewright.frontend.functions import FLOAT_DTYPES, erf
from tilewright.frontend.location import here
from tilewright.frontend.numpy import iota
from tilewright.frontend.tracer import Tracer
from tilewright.frontend.transforms import stop_gradient

__all__ = [
    "adaptive_pool",
    "avg_pool",
    "conv",
    "conv_transpose",
    "cross_entropy",
    "gelu",
    "layer_norm",
    "log_softmax",
    "logsumexp",
    "max_pool",
    "one_hot",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
]


def _float(x: Any) -> Any:
    """The value as an array of floats."""
    array = x if hasattr(x, "dtype") else np.asarray(x)
    return array if array.dtype in FLOAT_DTYPES else array.astype(np.float64)


def relu(x: Any) -> Any:
    """max(x, 0)."""
    return np.maximum(x, 0)


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), without overflow."""
    x = _float(x)
    if isinstance(x, Tracer):
        return wrap(emit("sigmoid", (as_node(x),)), x)
    one = x.dtype.type(1)
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, one, small) / (one + small)


def silu(x: Any) -> Any:
    """x * sigmoid(x)."""
    x = _float(x)
    return x * sigmoid(x)


def gelu(x: Any, approximate: bool = True) -> Any:
    """x times the normal distribution function of x: by tanh, or exactly by erf."""
    x = _float(x)
    kind = x.dtype.type
    if approximate:
        inner = kind(math.sqrt(2 / math.pi)) * (x + kind(0.044715) * x * x * x)
        return kind(0.5) * x * (kind(1) + np.tanh(inner))
    return kind(0.5) * x * (kind(1) + erf(x * kind(math.sqrt(0.5))))


def _largest(x: Any, axis: Any) -> Any:
    """The largest element; constant to derivatives, as the results do not depend on it."""
    return stop_gradient(np.max(x, axis=axis, keepdims=True))


def _centre(x: Any, axis: Any) -> Any:
    """The largest element along an axis where it is finite, else 0."""
    top = _largest(x, axis)
    return np.where(np.isfinite(top), top, x.dtype.type(0))


def softmax(x: Any, axis: Any = -1) -> Any:
    """exp(x) / sum(exp(x)) along ``axis``, computed relative to the largest element."""
    x = _float(x)
    powers = np.exp(x - _largest(x, axis))
    return powers / np.sum(powers, axis=axis, keepdims=True)


def log_softmax(x: Any, axis: Any = -1) -> Any:
    """log(softmax(x)) along ``axis``."""
    x = _float(x)
    apart = x - _largest(x, axis)
    return apart - np.log(np.sum(np.exp(apart), axis=axis, keepdims=True))


def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) over ``axis``; -inf where all are -inf, inf where one is inf."""
    x = _float(x)
    axes = tuple(range(x.ndim)) if axis is None else axis
    top = _centre(x, axes)
    with np.errstate(divide="ignore"):
        result = np.log(np.sum(np.exp(x - top), axis=axes, keepdims=True)) + top
    return result if keepdims else np.squeeze(result, axes)


def layer_norm(
    x: Any, scale: Any = None, bias: Any = None, axis: Any = -1, eps: float = 1e-5
) -> Any:
    """(x - mean) / sqrt(var + eps) over ``axis``, times ``scale``, plus ``bias``."""
    x = _float(x)
    apart = x - np.mean(x, axis=axis, keepdims=True)
    spread = np.mean(apart * apart, axis=axis, keepdims=True)
    result = apart / np.sqrt(spread + x.dtype.type(eps))
    result = result if scale is None else result * scale
    return result if bias is None else result + bias


def one_hot(labels: Any, num_classes: int, dtype: Any = np.float32) -> Any:
    """1 at the label and 0 elsewhere, along a new last axis of ``num_classes``.

    A label outside 0 .. num_classes - 1 gives a row of zeros. Raises ``DTypeError`` unless the
    labels are integers.
    """
    labels = _labels(labels, "tw.nn.one_hot")
    classes = iota((num_classes,), 0, np.int64)
    return np.equal(np.expand_dims(labels, -1), classes).astype(dtype)


def cross_entropy(logits: Any, labels: Any, axis: int = -1) -> Any:
    """The mean over all rows of -log_softmax(logits)[label].

    logits has one more axis (``axis``, the classes) than the integer ``labels``. Raises
    ``ShapeError`` or ``DTypeError`` if they do not fit, ``OutOfBounds`` for a label of no class.
    """
    labels = _labels(labels, "tw.nn.cross_entropy")
    logits = _float(logits)
    along = axis_of(axis, logits.ndim, "tw.nn.cross_entropy")
    rest = tuple(d for i, d in enumerate(logits.shape) if i != along)
    if np.shape(labels) != rest:
        raise ShapeError(
            "tw.nn.cross_entropy: the labels do not fit the logits",
            expected=f"labels of shape {rest}",
            got=describe_value(labels),
            loc=here(),
        )
    rows = log_softmax(logits, along)
    chosen = np.take_along_axis(rows, np.expand_dims(labels, along), along)
    return -np.mean(chosen)


def _labels(labels: Any, name: str) -> Any:
    array = labels if hasattr(labels, "dtype") else np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise DTypeError(
            f"{name}: the labels are not integers",
            expected="integer labels",
            got=describe_value(array),
            loc=here(),
        )
    return array
