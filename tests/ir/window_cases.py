"""What the tests of windows, convolutions and pooling share: plain loops, and gradients by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np

from tilewright.ir import ops  # noqa: F401  (fills the op table)
from tilewright.ir.autodiff import vjp_graph
from tilewright.ir.convolve import Convolution
from tilewright.ir.graph import Graph, Node, input_node, substitute
from tilewright.ir.interp import run_graph
from tilewright.ir.pool import Pooling
from tilewright.ir.types import TensorType, dtype_of

Pairs = list[tuple[tuple[int, ...], tuple[int, ...]]]


def inputs_like(*arrays: np.ndarray) -> list[Node]:
    """Parameters that fit these arrays."""
    return [
        input_node(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)]


def values(build: Callable[..., Sequence[Node]], *arrays: np.ndarray) -> list[np.ndarray]:
    """What ``build`` makes of the arrays, interpreted."""
    inputs = inputs_like(*arrays)
    return run_graph(Graph(tuple(inputs), tuple(build(*inputs))), arrays)


def derivatives(
    build: Callable[..., Node], grad: np.ndarray, *arrays: np.ndarray
) -> list[np.ndarray]:
    """The gradients of the arrays by differentiation of what ``build`` makes of them."""
    inputs = inputs_like(*arrays)
    graph = vjp_graph(Graph(tuple(inputs), (build(*inputs),)))
    given = input_node("grad", TensorType(dtype_of(grad), grad.shape))
    results = substitute(graph.outputs[1:], {graph.inputs[-1]: given})
    return run_graph(Graph((*inputs, given), results), [*arrays, grad])


def taps(
    c: Convolution | Pooling, sizes: Sequence[int], place: Sequence[int], space: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The taps of a window and the elements of the data that they see."""
    for tap in product(*map(range, sizes)):
        at = tuple(
            i * s + j * d - low
            for i, j, s, d, (low, _) in zip(
                place, tap, c.strides, c.dilations, c.padding, strict=True))
        if all(0 <= a < n for a, n in zip(at, space, strict=True)):
            yield tap, at


def convolved(x: np.ndarray, w: np.ndarray, c: Convolution) -> np.ndarray:
    """The definition of a convolution, element by element."""
    out, own = w.shape[:2]
    size = [
        (d + low + high - apart * (k - 1) - 1) // s + 1
        for d, k, s, (low, high), apart in zip(
            x.shape[2:], w.shape[2:], c.strides, c.padding, c.dilations, strict=True)]
    result = np.zeros((x.shape[0], out, *size))
    for o in range(out):
        first = o // (out // c.groups) * own
        for place in product(*map(range, size)):
            for tap, at in taps(c, w.shape[2:], place, x.shape[2:]):
                seen = x[(slice(None), slice(first, first + own), *at)]
                result[(slice(None), o, *place)] += seen @ w[(o, slice(None), *tap)]
    return result


def gradients(
    f: Callable[..., np.ndarray], grad: np.ndarray, *arrays: np.ndarray
) -> list[np.ndarray]:
    """The gradients of a function that is linear in each array, one element after the other."""
    result = []
    for number, array in enumerate(arrays):
        found = np.zeros(array.shape)
        for at in np.ndindex(*array.shape):
            unit = np.zeros(array.shape)
            unit[at] = 1
            found[at] = np.sum(grad * f(*arrays[:number], unit, *arrays[number + 1:]))
        result.append(found)
    return result
