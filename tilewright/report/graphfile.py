"""A graph that stands as text in a file: compiled, and run on random arrays."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np

from tilewright.errors import UserError
from tilewright.frontend import tree
from tilewright.frontend.compiled import ALIASES, STAGES, Compiled, Lowered
from tilewright.frontend.trace import Traced
from tilewright.ir.graph import Graph, Node
from tilewright.ir.interp import run_graph
from tilewright.ir.text import parse
from tilewright.ir.verify import verify
from tilewright.report.stages import table, texts


def load(path: Path) -> Graph:
    """The graph in a file. Raises ``UserError`` if there is none and ``VerifyError`` for a bad one.

    Its sizes must be numbers: nothing else can be compiled.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} cannot be read: it is not UTF-8 text") from None
    try:
        graph = parse(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(graph, Graph):
        raise UserError(f"{path} holds a kernel", expected="the text of a graph")
    verify(graph)
    named = [
        node for node in graph.inputs if any(not isinstance(size, int) for size in node.type.shape)
    ]
    if named:
        raise UserError(
            f"{path}: the input {named[0].attrs.name} has a size without a number",
            expected="numbers", got=named[0].type,
        )
    return graph


def compiled(graph: Graph) -> Compiled:
    """The graph in machine code. Raises ``CompilerBug``, with a reproducer, if that fails."""
    paths = tuple(node.attrs.name for node in graph.inputs)
    structure = tree.structure((0,) * len(graph.outputs))
    weak = (False,) * len(graph.outputs)
    return Lowered(Traced(graph, paths, structure, weak), (), None, 0.0).compile()


def stages(graph: Graph, name: str | None = None) -> str:
    """Every stage of the compilation with a table of times, or the text of the named stage.

    A name is one of ``as_text`` or that of a pass, which stands for its last run. Raises
    ``UserError`` for any other.
    """
    program = compiled(graph)
    steps = [stage for stage in program.stages if stage.name not in ("trace", "codegen")]
    if name is None:
        return f"{texts(program.stages)}\n# --- times ---\n{table(program.stages)}\n"
    if ALIASES.get(name, name) in STAGES:
        return program.as_text(name)
    found = [stage for stage in steps if stage.name == name]
    if not found:
        names = dict.fromkeys((*STAGES, *(stage.name for stage in steps)))
        raise UserError("there is no such stage", expected=", ".join(names), got=name)
    return found[-1].text().rstrip("\n") + "\n"


def run(graph: Graph, seed: int = 0) -> tuple[str, bool]:
    """Run on random arrays: a line per input and result, and whether the interpreter agrees.

    Raises ``OutOfBounds`` if the random values of an index input lie outside their axis.
    """
    random = np.random.default_rng(seed)
    inputs = [random_input(node, random) for node in graph.inputs]
    results = compiled(graph)(inputs)
    lines = [
        f"input {node.attrs.name}: {node.type}: {summary(array)}"
        for node, array in zip(graph.inputs, inputs, strict=True)
    ]
    agrees = True
    for number, (node, got, expected) in enumerate(
        zip(graph.outputs, results, run_graph(graph, inputs), strict=True)
    ):
        close, words = difference(node, got, expected)
        agrees &= close
        lines.append(f"result {number}: {node.type}: {summary(got)}")
        lines.append(f"  {words}")
    return "\n".join(lines), agrees


def random_input(node: Node, random: np.random.Generator) -> np.ndarray:
    """Values in [0, 1) for a float, 0 or 1 for any other: valid indices where an axis has two."""
    values = random.uniform(0, 1 if node.dtype.is_float else 2, node.shape)
    return np.asarray(values).astype(node.dtype.numpy)


def summary(array: np.ndarray) -> str:
    """The range of the elements and the first few of them."""
    if array.size == 0:
        return "empty"
    values = array.astype(np.float64)
    first = ", ".join(f"{value:.6g}" for value in values.ravel()[:4])
    more = ", ..." if array.size > 4 else ""
    return f"{values.min():.6g} to {values.max():.6g}, mean {values.mean():.6g} [{first}{more}]"


def difference(node: Node, got: np.ndarray, expected: np.ndarray) -> tuple[bool, str]:
    """Whether a result is near the interpreter's, as far as its element type goes, and how near."""
    if not node.dtype.is_float:
        count = int((got != expected).sum())
        return count == 0, f"{count} of {got.size} elements differ from the interpreter's"
    a, b = got.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    odd = int((~(finite | (a == b) | (np.isnan(a) & np.isnan(b)))).sum())
    largest = float(np.abs(a - b, where=finite, out=np.zeros(a.shape)).max(initial=0.0))
    scale = max(1.0, float(np.abs(b[finite]).max(initial=0.0)))
    words = f"largest difference to the interpreter {largest:.2e}"
    if odd:
        words += f"; {odd} elements are infinite or NaN in only one of them"
    return odd == 0 and largest <= scale * tolerance(node), words


def tolerance(node: Node) -> float:
    """What sums in another order and one rounding more or less may differ by, relatively."""
    return float(ml_dtypes.finfo(node.dtype.numpy).eps) ** 0.5
