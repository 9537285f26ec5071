"""What was compiled in this process, for reports.

A *region* is one graph that Dynamo traced: it becomes a forward and a backward program, or one
without gradients, each with its specialisations. Regions live as long as their programs.
"""

from __future__ import annotations

import itertools
import re
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch._dynamo import output_graph
from torch._dynamo.eval_frame import OptimizedModule, innermost_backend
from torch._dynamo.symbolic_convert import InstructionTranslator

from tilewright.errors import Location
from tilewright.torch.lines import in_pytorch, user_line
from tilewright.torch.program import Program


@dataclass(frozen=True)
class GraphBreak:
    """Where Dynamo ended a graph in the middle of the user's function, and why."""

    reason: str
    loc: Location | None
    explanation: str = ""

    def __str__(self) -> str:
        more = f": {self.explanation}" if self.explanation else ""
        return f"{self.loc or 'an unknown line'}: {self.reason}{more}"


@dataclass(frozen=True)
class Fault:
    """A failure of tilewright: the message and its script.

    ``operators`` are those that run in PyTorch for it, in words; empty for a whole program.
    """

    message: str
    reproducer: str
    loc: Location | None = None
    operators: str = ""


@dataclass(eq=False)
class Region:
    """One graph that Dynamo traced.

    name     of the function that was traced
    loc      the line on which the graph begins
    ends     the break at its end, if it ends at one
    begins   the break at its start, if the function goes on here after one
    owner    what ``torch.compile`` made for this model or function (weakly)
    tensors  the parameters and other tensors that the graph reads (weakly)
    records  its programs
    """

    number: int
    name: str
    loc: Location | None
    ends: GraphBreak | None = None
    begins: GraphBreak | None = None
    owner: Callable[[], Any] = lambda: None
    tensors: list[weakref.ref[torch.Tensor]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def record(self, kind: str) -> Record:
        """A new record of a program of this region."""
        made = Record(kind, self)
        self.records.append(made)
        with _lock:
            _regions.setdefault(self, None)
        return made


@dataclass(eq=False)
class Record:
    """One traced program and its specialisations. ``kind``: forward, backward or inference.

    ``specialised`` says why named sizes are compiled as numbers, if they are.
    """

    kind: str
    region: Region
    made: list[weakref.ref[Program]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    specialised: str | None = None

    def add(self, program: Program) -> None:
        """A specialisation was compiled."""
        program.record = self
        self.made = [r for r in self.made if r() is not None]
        self.made.append(weakref.ref(program))

    @property
    def programs(self) -> list[Program]:
        """The specialisations that are alive."""
        return [p for p in (r() for r in self.made) if p is not None]


_regions: weakref.WeakKeyDictionary[Region, None] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_numbers = itertools.count()


def region_of(module: fx.GraphModule, inputs: Sequence[Any]) -> Region:
    """The region of a graph that Dynamo hands to the backend."""
    owner: Callable[[], Any] = lambda: None
    name, code = "a graph", None
    try:
        translator: Any = InstructionTranslator.current_tx()
        code = translator.f_code
        name = resumed(code.co_name)[0]
        owner = weakref.ref(owner_behind(translator.output.compiler_fn))
    except (AttributeError, TypeError):  # the backend was called by hand
        pass
    reason = getattr(module, "compile_subgraph_reason", None)
    ends = break_of(reason) if reason is not None and reason.graph_break else None
    tensors = [weakref.ref(t) for t in inputs if isinstance(t, torch.Tensor)]
    loc = Location(code.co_filename, code.co_firstlineno, name) if code is not None else None
    if loc is not None and in_pytorch(loc.file):  # a module of PyTorch's that was compiled itself
        name, loc = "the model", user_line()
    return Region(next(_numbers), name, loc, ends, _begins(code), owner, tensors)


def owner_behind(compiler: Any) -> Any:
    """What ``torch.compile`` made for a model, behind what PyTorch has put in front of it."""
    found: Any = innermost_backend(compiler)
    splitter = getattr(found, "__self__", None)  # DistributedDataParallel cuts graphs up
    inner = getattr(splitter, "backend_compile_fn", None)
    return found if inner is None else innermost_backend(inner)


def break_of(reason: Any) -> GraphBreak:
    """A graph break as Dynamo tells it."""
    frame = reason.user_stack[-1] if reason.user_stack else None
    loc = Location(frame.filename, frame.lineno or 0, frame.name) if frame else None
    return told_as(reason.reason, loc)


def told_as(text: Any, loc: Location | None) -> GraphBreak:
    """A graph break of which Dynamo says so much."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("Explanation:")]
    return GraphBreak(lines[0] if lines else "a graph break", loc,
                      told[0].removeprefix("Explanation:").strip() if told else "")


def resumed(name: str) -> tuple[str, int | None]:
    """The function and line that the name of one of Dynamo's continuations tells."""
    found = re.fullmatch(r"torch_dynamo_resume_in_(.+)_at_(\d+)", name)
    return (found[1], int(found[2])) if found else (name, None)


def _begins(code: Any) -> GraphBreak | None:
    """The break after which a continuation goes on; the graph before it may have been empty."""
    if code is None:
        return None
    function, line = resumed(code.co_name)
    if line is None:
        return None
    for reason in reversed(output_graph.graph_break_reasons):
        if any(f.filename == code.co_filename and f.lineno == line for f in reason.user_stack):
            return break_of(reason)
    return GraphBreak("a graph break", Location(code.co_filename, line, function))


def regions() -> list[Region]:
    """All regions with a program that is alive, in the order in which they were compiled."""
    with _lock:
        found = sorted(_regions, key=lambda region: region.number)
    return [r for r in found if any(record.programs or record.faults for record in r.records)]


def regions_of(model: Any) -> list[Region]:
    """The regions of a compiled model or function, or of those that read a module's parameters."""
    owner = owner_of(model)
    own = set()
    if isinstance(model, torch.nn.Module):
        own = {id(t) for t in (*model.parameters(), *model.buffers())}

    def reads(region: Region) -> bool:
        return any(t is not None and id(t) in own for t in (r() for r in region.tensors))
    return [r for r in regions() if (owner is not None and r.owner() is owner) or reads(r)]


def owner_of(model: Any) -> Any:
    """What ``torch.compile`` made for a model, module or function; None if it was not compiled."""
    if isinstance(model, OptimizedModule):
        return innermost_backend(model.dynamo_ctx.callback)
    function = getattr(model, "_compiled_call_impl", None) or model
    function = getattr(function, "__func__", function)
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    if "callback" not in names:
        return None
    cells: Any = function.__closure__
    return innermost_backend(cells[names.index("callback")].cell_contents)
