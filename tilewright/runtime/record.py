"""A plan as plain data and back: what it takes to run a program again.

Of its launches nothing is kept, but what they cost where that depends on sizes with names.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.compiler.order import Interval
from tilewright.compiler.plan import CheckInfo, Launch, Plan, Slot
from tilewright.errors import Location
from tilewright.ir.graph import CONSTANTS, Graph
from tilewright.ir.lex import Reader
from tilewright.ir.loops import Kernel
from tilewright.ir.sizes import Dim
from tilewright.ir.symbolic import conditions
from tilewright.ir.types import DTYPES, TensorType, dtype_of

UNKNOWN = Kernel("kept on disk", (), ())
"""Stands for a kernel of which only the cost is known."""


class Unreadable(ValueError):  # noqa: N818 - a finding about data
    """The data do not describe a plan of this graph."""


def write_plan(plan: Plan, graph: Graph) -> tuple[dict[str, Any], list[bytes]]:
    """The facts of a plan, and the bytes of its constants.

    A captured array is part of the graph and therefore of whoever reads the plan; it is only named.
    """
    blobs: list[bytes] = []
    known = captures(graph)
    constants: list[Any] = []
    for i, array in enumerate(plan.constants):
        node = plan.values.get(Slot("constant", i))
        type = [dtype_of(array).name, list(array.shape)]
        if node is not None and node.attrs.digest in known:
            constants.append([*type, node.attrs.digest])
        else:
            constants.append([*type, len(blobs)])
            blobs.append(array.tobytes())
    facts = {
        "outputs": [[t.dtype.name, [_written(d) for d in t.shape]] for t in plan.outputs],
        "results": [[s.kind, s.index] for s in plan.results],
        "constants": constants,
        "arena": plan.arena,
        "donated": list(plan.donated),
        "checks": [
            [code, c.message, c.expected, c.loc and [c.loc.file, c.loc.line, c.loc.function]]
            for code, c in plan.checks.items()
        ],
    }
    if plan.sizes:
        facts["sizes"] = {
            "names": list(plan.sizes),
            "blocks": [[_written(b.nbytes), b.first, b.last] for b in plan.blocks],
            "costs": [[_written(x.flops), _written(x.bytes)] for x in plan.launches],
        }
    return facts, blobs


def read_plan(facts: dict[str, Any], blobs: Sequence[bytes], graph: Graph) -> Plan:
    """The plan of ``graph`` that the facts describe. Raises :class:`Unreadable`, or what Python
    raises for facts of another form.
    """
    known = captures(graph)
    constants = []
    for name, shape, source in facts["constants"]:
        if isinstance(source, str) and source not in known:
            raise Unreadable(f"the graph has no array {source}")
        data = CONSTANTS[source] if isinstance(source, str) else np.frombuffer(blobs[source], "u1")
        constants.append(data.reshape(-1).view(DTYPES[name].numpy).reshape(shape))
    sizes = facts.get("sizes", {"names": [], "blocks": [], "costs": []})
    return Plan(
        inputs=tuple(n.type for n in graph.inputs),
        outputs=tuple(
            TensorType(DTYPES[name], tuple(map(_read, shape))) for name, shape in facts["outputs"]),
        results=tuple(Slot(kind, index) for kind, index in facts["results"]),
        constants=tuple(constants),
        launches=tuple(
            Launch(UNKNOWN, (), False, _read(flops), _read(bytes))
            for flops, bytes in sizes["costs"]),
        arena=facts["arena"],
        donated=tuple(facts["donated"]),
        checks={
            code: CheckInfo(message, Location(*loc) if loc else None, expected)
            for code, message, expected, loc in facts["checks"]
        },
        sizes=tuple(sizes["names"]),
        blocks=tuple(Interval(_read(n), first, last) for n, first, last in sizes["blocks"]),
        conditions=conditions(graph.nodes()) if sizes["names"] else (),
    )


def _written(dim: Dim) -> int | str:
    return dim if isinstance(dim, int) else str(dim)


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> Dim:
    return Reader(text).dim()


def _read(dim: int | str) -> Dim:
    """Raises ``UserError`` for a text that is no size."""
    return dim if isinstance(dim, int) else _parsed(dim)


def captures(graph: Graph) -> set[str]:
    """The digests of the arrays that the graph has captured."""
    return {n.attrs.digest for n in graph.nodes() if n.op.name == "const"}
