"""Convolutions of channels one by one and their gradients, against loops over the taps in NumPy.

Data are small whole numbers, so that sums are exact in whatever order, and results are equal.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import tilewright as tw
from tilewright.codegen.cpu import build, host_target
from tilewright.compiler.pipeline import compile_graph
from tilewright.ir import ops  # noqa: F401  (fills the op table)
from tilewright.ir.build import transpose
from tilewright.ir.convolve import (
    Convolution,
    convolution,
    convolution_input_grad,
    convolution_weight_grad,
    settings,
)
from tilewright.ir.graph import Graph, Node, input_node
from tilewright.ir.types import DTYPES, TensorType, dtype_of
from tilewright.runtime.executable import Executable

CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Convolution]] = {
    "nothing is a multiple": ((2, 9, 11, 21), (7, 7), settings(2, 1, 3, 1, 9)),
    "as in ConvNeXt": ((3, 16, 8, 8), (7, 7), settings(2, 1, 3, 1, 16)),
    "as in MobileNet": ((2, 8, 12, 30), (3, 3), settings(2, 2, 1, 1, 8)),
    "tiny": ((4, 11, 2, 2), (7, 7), settings(2, 1, 3, 1, 11)),
    "short rows": ((4, 24, 4, 4), (5, 5), settings(2, 1, 2, 1, 24)),
    "one channel": ((2, 1, 9, 17), (3, 3), settings(2, 1, 1, 1, 1)),
    "unequal": ((2, 5, 19, 35), (3, 5), settings(2, [1, 3], [(1, 0), (0, 2)], [2, 1], 5)),
    "dilated": ((1, 8, 15, 16), (3, 3), settings(2, 1, 4, 4, 8)),
    "many rows": ((1, 8, 150, 40), (7, 7), settings(2, 1, 3, 1, 8)),
    "many taps": ((1, 3, 20, 33), (17, 15), settings(2, 1, 8, 1, 3)),
    "causal": ((2, 12, 37), (4,), settings(1, 1, [(3, 0)], 1, 12)),
    "long": ((1, 3, 9001), (9,), settings(1, 1, 4, 1, 3)),
    "long and strided": ((1, 2, 20003), (7,), settings(1, 2, 1, 3, 2)),
    "3d": ((2, 4, 5, 6, 9), (3, 3, 3), settings(3, 1, 1, 1, 4)),
}


def slices(taps: tuple[int, ...], c: Convolution, size: tuple[int, ...]) -> tuple[slice, ...]:
    """The elements of padded data that these taps of all windows see."""
    return (..., *(
        slice(t * d, t * d + (n - 1) * s + 1, s)
        for t, d, s, n in zip(taps, c.dilations, c.strides, size, strict=True)))


def expected(
    x: np.ndarray, w: np.ndarray, g: np.ndarray, c: Convolution
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The result, the gradient of the data and that of the filters, tap by tap, in float64."""
    padded = np.pad(x.astype("f8"), [(0, 0), (0, 0), *c.padding])
    wide, size, dims = g.astype("f8"), g.shape[2:], tuple(range(2, g.ndim))
    y, dx, dw = np.zeros(g.shape), np.zeros(padded.shape), np.zeros(w.shape)
    for taps in product(*map(range, w.shape[2:])):
        each = w[(slice(None), 0, *taps)].astype("f8").reshape(-1, *(1 for _ in dims))
        seen = padded[slices(taps, c, size)]
        y += seen * each
        dx[slices(taps, c, size)] += wide * each
        dw[(slice(None), 0, *taps)] = (seen * wide).sum((0, *dims))
    inside = (..., *(
        slice(low, low + d) for (low, _), d in zip(c.padding, x.shape[2:], strict=True)))
    return y, dx[inside], dw


def data(name: str, dtype: str) -> tuple[list[np.ndarray], Convolution]:
    """Data, filters and a cotangent, channels first."""
    shape, taps, c = CASES[name]
    rng = np.random.default_rng(len(name))
    size = c.output_space(shape[2:], taps)
    shapes = (shape, (shape[1], 1, *taps), (*shape[:2], *size))
    return [rng.integers(-2, 3, s).astype(DTYPES[dtype].numpy) for s in shapes], c


class Compiled:
    """A convolution and its gradients, of arrays whose channels are first or last."""

    def __init__(
        self, arrays: list[np.ndarray], c: Convolution, last: bool, tier: str | None = None
    ) -> None:
        order = [0, *range(2, arrays[0].ndim), 1]
        self.order = order if last else sorted(order)
        self.back = [self.order.index(i) for i in range(len(order))]
        nodes = [
            input_node(f"x{i}", TensorType(dtype_of(a), self.given(a).shape if i != 1 else a.shape))
            for i, a in enumerate(arrays)]
        x, w, g = transpose(nodes[0], self.back), nodes[1], transpose(nodes[2], self.back)
        results: list[Node] = [
            transpose(convolution(x, w, c), self.order),
            transpose(convolution_input_grad(g, w, x.shape, c), self.order),
            convolution_weight_grad(g, x, w.shape, c)]
        target = host_target(tier)
        self.plan = compile_graph(Graph(tuple(nodes), tuple(results)), target).plan
        self.program = Executable(self.plan, build(self.plan, target))
        self.arrays = [self.given(arrays[0]), arrays[1], self.given(arrays[2])]

    def given(self, a: np.ndarray) -> np.ndarray:
        """Channels where the program has them."""
        return np.ascontiguousarray(a.transpose(self.order))

    def __call__(self) -> tuple[np.ndarray, ...]:
        y, dx, dw = self.program(self.arrays)
        return y.transpose(self.back), dx.transpose(self.back), dw

    def families(self) -> set[str]:
        """The families of the kernels."""
        return {launch.kernel.name.partition("_")[0] for launch in self.plan.launches}


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("name", CASES)
def test_every_way_of_walking_them(name: str, last: bool) -> None:
    arrays, c = data(name, "f32")
    compiled = Compiled(arrays, c, last)
    assert {"taps", "filters"} <= compiled.families()
    for got, right in zip(compiled(), expected(*arrays, c), strict=True):
        np.testing.assert_array_equal(got, right)


@pytest.mark.parametrize("dtype", ["f64", "bf16", "i32"])
@pytest.mark.parametrize("name", ["nothing is a multiple", "as in MobileNet"])
def test_element_types(name: str, dtype: str) -> None:
    arrays, c = data(name, dtype)
    for last in (False, True):
        for got, right in zip(Compiled(arrays, c, last)(), expected(*arrays, c), strict=True):
            # Sums have one rounding, to the type of the result; those here are exact.
            np.testing.assert_array_equal(got, right.astype(DTYPES[dtype].numpy))


@pytest.mark.parametrize("name", ["nothing is a multiple", "as in MobileNet", "causal"])
def test_vectors_of_four(name: str) -> None:
    arrays, c = data(name, "f32")
    for last in (False, True):
        compiled = Compiled(arrays, c, last, "sse2")
        for got, right in zip(compiled(), expected(*arrays, c), strict=True):
            np.testing.assert_array_equal(got, right)


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_any_number_of_threads_gives_the_same_bits(last: bool) -> None:
    arrays, c = data("many rows", "f32")
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=a.shape).astype("f4") for a in arrays]
    compiled = Compiled(arrays, c, last)
    with tw.threads(1):
        alone = [a.copy() for a in compiled()]
    for threads in (2, 3):
        with tw.threads(threads):
            for a, b in zip(compiled(), alone, strict=True):
                assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_infinity_reaches_only_those_that_see_it(last: bool) -> None:
    c = settings(2, 2, 0, 1, 3)
    x, w, g = (np.ones(s, "f4") for s in ((1, 3, 7, 22), (3, 1, 3, 3), (1, 3, 3, 10)))
    x[0, 1, 2, 20], x[0, 2, 3, 21] = np.inf, np.inf  # the last column is in no window
    for got, right in zip(Compiled([x, w, g], c, last)(), expected(x, w, g, c), strict=True):
        np.testing.assert_array_equal(got, right)


def test_batches_of_any_size() -> None:
    c = settings(2, 1, 1, 1, 6)
    w = np.arange(54, dtype="f4").reshape(6, 1, 3, 3) % 5

    @tw.jit(dynamic={"x": {0: "batch"}})
    def both(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, pull = tw.vjp(lambda w: tw.nn.conv(x, w, padding=1, groups=6), w)
        return y, pull(y)[0]

    for batch in (2, 5):
        x = (np.arange(batch * 6 * 9 * 20, dtype="f4") % 7).reshape(batch, 6, 9, 20)
        y, dw = both(x, w)
        right, _, _ = expected(x, w, y, c)
        np.testing.assert_array_equal(y, right)
        np.testing.assert_array_equal(dw, expected(x, w, y, c)[2])
