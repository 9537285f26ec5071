"""Contractions as graphs, compiled for an architecture, in the interpreter and in the simulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tilewright.codegen import gpu
from tilewright.codegen.gpu.architectures import gpu_target
from tilewright.codegen.gpu.program import GpuProgram
from tilewright.compiler.interp import run_plan
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.plan import Plan
from tilewright.compiler.target import Target
from tilewright.ir import ops  # noqa: F401  (fills the op table)
from tilewright.ir.build import broadcast, contract, part
from tilewright.ir.graph import Graph, Node, apply, full, input_node
from tilewright.ir.interp import run_graph
from tilewright.ir.sizes import Dim, evaluate
from tilewright.ir.symbolic import specialise
from tilewright.ir.types import DType, TensorType, f32
from tilewright.ir.verify import verify
from tilewright.ptxsim.simulator import Simulator
from tilewright.runtime.gpu.executable import gpu_executable
from tilewright.runtime.gpu.sim import SimDriver

RANDOM = np.random.default_rng(23)
Wrap = Callable[[Node], Node]


def einsum(
    spec: str, sizes: dict[str, Dim], dtype: DType = f32, epilogue: str = "",
    before: Wrap = lambda x: x,
) -> Graph:
    """``bmk,kn->bmn`` with these sizes; ``before`` is done to the first operand, then
    ``bias`` (and gelu) or ``residual``.
    """
    operands, out = spec.split("->")
    left, right = operands.split(",")
    label = {c: i for i, c in enumerate(sorted({*left, *right}))}
    x = input_node("x", TensorType(dtype, tuple(sizes[c] for c in left)))
    y = input_node("y", TensorType(dtype, tuple(sizes[c] for c in right)))
    node = contract(before(x), y, *([label[c] for c in word] for word in (left, right, out)))
    inputs = [x, y]
    if epilogue:
        shape = node.shape if epilogue == "residual" else node.shape[-1:]
        z = input_node("z", TensorType(dtype, shape))
        inputs.append(z)
        wide = z if epilogue == "residual" else broadcast(z, node.shape, (len(node.shape) - 1,))
        node = apply("add", node, wide)
    if epilogue == "bias":
        half, root, one = (full(node.type, number) for number in (0.5, 0.5**0.5, 1.0))
        spread = apply("add", apply("erf", apply("mul", node, root)), one)
        node = apply("mul", apply("mul", node, half), spread)
    return Graph(tuple(inputs), (node,))


def sliced(spec: str, sizes: dict[str, int], dtype: DType) -> Graph:
    """A product whose left operand is in the middle of an array: no matrix without gaps."""
    operands, out = spec.split("->")
    left, right = operands.split(",")
    rows, columns = (sizes[c] for c in left)
    x = input_node("x", TensorType(dtype, (rows, columns + 16)))
    y = input_node("y", TensorType(dtype, tuple(sizes[c] for c in right)))
    middle = part(x, (0, 8), (rows, columns + 8), (1, 1))
    labels = (["mnk".index(c) for c in word] for word in (left, right, out))
    return Graph((x, y), (contract(middle, y, *labels),))


def arrays_of(graph: Graph, **sizes: int) -> list[np.ndarray]:
    """Arrays for a graph's inputs."""
    found = []
    for node in graph.inputs:
        shape = tuple(evaluate(d, sizes) for d in node.shape)
        numbers = (RANDOM.standard_normal(shape) if node.dtype.is_float
                   else RANDOM.integers(0, 2 if node.dtype.kind == "b" else 5, shape))
        found.append(numbers.astype(node.dtype.numpy))
    return found


def machine(architecture: str, multiprocessors: int = 1, tf32: bool = False) -> Target:
    """A target. With one multiprocessor, blocks are as large as the shape allows."""
    return replace(gpu_target(architecture, multiprocessors=multiprocessors), tf32=tf32)


TOLERANCES = {"f32": 1e-5, "f64": 1e-12, "bf16": 1e-2, "f16": 2e-3}


def close(got: Sequence[np.ndarray], want: Sequence[np.ndarray], tolerance: float) -> None:
    """Equal up to the rounding of sums, by the size of the largest result."""
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = a.astype(np.float64), b.astype(np.float64)
        scale = max(1.0, float(np.abs(b).max(initial=0)))
        np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=tolerance)


@dataclass
class Compiled:
    """A graph's plan and its PTX."""

    graph: Graph
    plan: Plan
    program: GpuProgram

    @property
    def instructions(self) -> set[str]:
        """Words that PTX instructions begin with."""
        return {line.split()[0] for line in self.program.text.splitlines() if line.strip()}

    def has(self, word: str) -> bool:
        """Whether an instruction begins with a word."""
        return any(i.startswith(word) for i in self.instructions)

    def on_device(
        self, arrays: Sequence[np.ndarray], schedule: int | None = None, copies: str = "eager",
        text: str | None = None,
    ) -> list[np.ndarray]:
        """The results in the simulator, perhaps of another PTX."""
        program = self.program if text is None else replace(self.program, text=text)
        driver = SimDriver(Simulator(schedule, copies))
        return list(gpu_executable(self.plan, program, driver)(arrays))


def compiled(graph: Graph, target: Target, **hints: int) -> Compiled:
    """The plan and the PTX, the kernels verified."""
    plan = compile_graph(graph, target, hints=hints).plan
    for launch in plan.launches:
        verify(launch.kernel)
    return Compiled(graph, plan, gpu.build(plan, target))


def check(c: Compiled, tolerance: float | None = None, interpreted: bool = True, **sizes: int
          ) -> None:
    """The plan in the interpreter and the PTX in any order of warps are what the graph means."""
    arrays = arrays_of(c.graph, **sizes)
    want = run_graph(specialise(c.graph, sizes) if sizes else c.graph, arrays)
    tolerance = tolerance or TOLERANCES.get(c.graph.inputs[0].dtype.name, 0.0)
    in_order = c.on_device(arrays)
    if interpreted:
        close(run_plan(c.plan, arrays), want, tolerance)
    close(in_order, want, tolerance)
    for a, b in zip(in_order, c.on_device(arrays, 7, "lazy"), strict=True):
        np.testing.assert_array_equal(a, b)
