"""The rules of both languages. What breaks one is shown in the text, under the guilty line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from tilewright.errors import VerifyError
from tilewright.ir.graph import CONSTANTS, OPS, Graph, Node
from tilewright.ir.loops import Kernel
from tilewright.ir.text import show
from tilewright.ir.types import size_of
from tilewright.ir.verify_kernel import KernelVerifier

Complaint = tuple[int, str]
"""The line that a complaint is about, counted as the notes of ``text.show`` are, and its words."""


def verify(item: Graph | Kernel, primitive: bool = False) -> None:
    """Raise ``VerifyError`` if ``item`` breaks a rule of its language.

    ``primitive`` forbids composite ops in a graph: what code generation is given has none.
    """
    if isinstance(item, Kernel):
        complaints = KernelVerifier(item).run()
    else:
        complaints = list(graph_complaints(item, primitive))
    if complaints:
        raise VerifyError(report(item, complaints))


def report(item: Graph | Kernel, complaints: list[Complaint]) -> str:
    """The text of ``item`` with the complaints under their lines."""
    notes: dict[int, str] = {}
    for line, words in dict.fromkeys(complaints):
        notes[line] = f"{notes[line]}\n{words}" if line in notes else words
    kind = "kernel" if isinstance(item, Kernel) else "graph"
    return f"{kind} {item.name} breaks the rules of the language\n{show(item, notes)}"


def graph_complaints(graph: Graph, primitive: bool) -> Iterator[Complaint]:
    """Everything that is wrong with a graph."""
    names = Counter(n.attrs for n in graph.inputs if n.op.name == "input")
    for attrs, count in names.items():
        if count > 1:
            yield 0, f"{count} inputs are called {attrs.name}"
    for node in graph.inputs:
        if node.op.name != "input":
            yield 0, f"{node.op.name} stands among the inputs"
    declared = set(graph.inputs)
    for line, node in enumerate(graph.nodes(), 1):
        if node.op.name == "input" and node not in declared:
            yield line, f"{node.attrs.name} is not an input of this graph"
        if primitive and is_composite(node):
            yield line, f"{node.op.name} is composite and should have been expanded"
        for rule in NODE_RULES:
            words = rule(node)
            if words:
                yield line, words
                break


def is_composite(node: Node) -> bool:
    """Whether a node's op is expanded before code generation, for its element type."""
    return node.op.expand is not None and node.op.expand(node) is not node


def op_is_a_row(node: Node) -> str | None:
    """The op is a row of the op table."""
    return None if OPS.get(node.op.name) is node.op else f"{node.op.name} is no row of the op table"


def arity_fits(node: Node) -> str | None:
    """The op has as many inputs as its row says."""
    if node.op.arity is None or len(node.inputs) == node.op.arity:
        return None
    return f"{node.op.name} takes {node.op.arity} inputs, got {len(node.inputs)}"


def attributes_fit(node: Node) -> str | None:
    """The attribute record is of the row's class."""
    if type(node.attrs) is node.op.attrs:
        return None
    return f"{node.op.name} takes {node.op.attrs.__name__}, got {type(node.attrs).__name__}"


def type_follows(node: Node) -> str | None:
    """The stored type is the one that the row's rule infers."""
    if node.op.kind == "source":
        return None
    try:
        inferred = node.op.infer(node.attrs, *(n.type for n in node.inputs))
    except (TypeError, ValueError) as problem:
        return str(problem)
    return None if inferred == node.type else f"the type is {inferred}, not {node.type}"


def source_is_whole(node: Node) -> str | None:
    """A source's attributes go with its type."""
    if node.op.name == "full" and not 0 <= node.attrs.bits < 1 << 8 * node.dtype.itemsize:
        return f"full: {node.attrs.bits:#x} is no bit pattern of {node.dtype}"
    if node.op.name == "iota" and not 0 <= node.attrs.axis < node.type.rank:
        return f"iota: there is no axis {node.attrs.axis}"
    if node.op.name == "const":
        data = CONSTANTS.get(node.attrs.digest)
        if data is None:
            return f"const: the data of {node.attrs.digest} is not in this process"
        if data.dtype != node.dtype.numpy or data.size != size_of(node.type.shape):
            return f"const: the data is {data.dtype}{list(data.shape)}"
    return None


NODE_RULES: tuple[Callable[[Node], str | None], ...] = (
    op_is_a_row, arity_fits, attributes_fit, type_follows, source_is_whole,
)
"""What holds for every node of a graph; the first rule that a node breaks is reported."""
