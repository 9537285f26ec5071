"""The text of both languages: :func:`show` writes it, :func:`parse` reads it back.

Graphs parse back to the same nodes, kernels to equal kernels. The users' lines stand at the ends
of the lines as comments. :mod:`tilewright.ir.text_graph` and :mod:`tilewright.ir.text_kernel`
describe what the texts look like.
"""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.ir.graph import Graph
from tilewright.ir.lex import Reader
from tilewright.ir.loops import Kernel
from tilewright.ir.text_graph import GraphReader, show_graph
from tilewright.ir.text_kernel import KernelReader, show_kernel


def show(item: Graph | Kernel, notes: Mapping[int, str] | None = None) -> str:
    """The text of a graph or kernel.

    ``notes`` are written under the lines that they belong to: by the number, from 1, of the node
    in ``graph.nodes()`` or of the statement in reading order; 0 is the first line.
    """
    if isinstance(item, Graph):
        return show_graph(item, notes or {})
    return show_kernel(item, notes or {})


def parse(text: str) -> Graph | Kernel:
    """The graph or kernel that ``text`` holds. Raises ``UserError`` with line, column and a caret.

    Text that is well-formed but breaks a rule of the language is read as it stands: what is wrong
    with it is for :func:`tilewright.ir.verify.verify` to say.
    """
    reader = Reader(text)
    if reader.next.text not in ("graph", "kernel"):
        raise reader.error(f"expected graph or kernel, found {reader.next.text}")
    item: Graph | Kernel
    if reader.next.text == "graph":
        item = GraphReader(reader).graph()
    else:
        item = KernelReader(reader).kernel()
    if reader.next.kind != "end":
        raise reader.error(f"expected the end of the text, found {reader.next.text}")
    return item
