"""``report(model)``: what of a compiled model does not run in compiled programs, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tilewright.errors import Location
from tilewright.torch.frames import Untraced, breaks_of, kept_out, untraced_of
from tilewright.torch.recipe import Fallback
from tilewright.torch.records import Fault, GraphBreak, Record, regions_of


@dataclass(frozen=True)
class ProgramReport:
    """One traced program.

    kind         ``forward``, ``backward`` or ``inference``
    versions     how many specialisations were compiled
    kernels      launches of the latest specialisation
    fallbacks    operators that run in PyTorch, each with the user's line, module path and reason
    faults       failures of tilewright, each with the operators that run in PyTorch for it
    specialised  why each number of its named sizes is another compile, if it is
    """

    kind: str
    versions: int
    kernels: int
    fallbacks: tuple[Fallback, ...]
    faults: tuple[Fault, ...]
    specialised: str | None = None


@dataclass(frozen=True)
class GraphReport:
    """One graph that Dynamo traced: its function, its programs, and the break where it ends."""

    name: str
    loc: Location | None
    programs: tuple[ProgramReport, ...]
    ends: GraphBreak | None


@dataclass(frozen=True)
class Report:
    """What was compiled for a model. ``str()`` of it is a page to read.

    untraced   functions that run in PyTorch since TorchDynamo gave them up, and why
    kept_out   why TorchDynamo was not asked for the model, if that is known
    """

    name: str
    graphs: tuple[GraphReport, ...]
    breaks: tuple[GraphBreak, ...]
    untraced: tuple[Untraced, ...] = ()
    kept_out: str | None = None

    @property
    def fallbacks(self) -> tuple[Fallback, ...]:
        """All operators that run in PyTorch."""
        return tuple(f for g in self.graphs for p in g.programs for f in p.fallbacks)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All failures of tilewright."""
        return tuple(f for g in self.graphs for p in g.programs for f in p.faults)

    def __str__(self) -> str:
        head = "nothing has been compiled with the backend tilewright"
        if self.graphs:
            head = ", ".join([
                number(len(self.graphs), "graph"), number(len(self.breaks), "graph break"),
                number(len(self.fallbacks), "call") + " of PyTorch",
                number(len(self.faults), "failure") + " of tilewright"])
        elif self.kept_out is not None:
            head += f": {self.kept_out}"
        lines = [f"{self.name}: {head}"]
        for i, graph in enumerate(self.graphs):
            lines += _graph_lines(i, graph)
        return "\n".join([*lines, *(f"graph break at {b}" for b in self.breaks),
                          *map(str, self.untraced)])


def report(model: Any) -> Report:
    """What of a model runs in PyTorch and not in compiled programs, and why.

    ``model`` is a compiled module or function, or a module whose parameters some compiled function
    reads. Only what was compiled so far, and is still in use, is in the report.
    """
    found = regions_of(model)
    graphs = tuple(
        GraphReport(r.name, r.loc, tuple(map(_program, r.records)), r.ends) for r in found)
    breaks: dict[Any, GraphBreak] = {}
    for region in found:
        for end in (region.begins, region.ends):
            if end is not None:
                breaks.setdefault(end.loc, end)
    for end in breaks_of(model):  # also those behind which there was nothing to compile
        breaks.setdefault(end.loc, end)
    return Report(name_of(model), graphs, tuple(breaks.values()), untraced_of(model),
                  None if found else kept_out(model))


def name_of(model: Any) -> str:
    """What to call a model or function."""
    own = getattr(model, "_orig_mod", model)
    return getattr(own, "__qualname__", None) or type(own).__name__


def _program(record: Record) -> ProgramReport:
    programs = record.programs
    fallbacks = tuple(dict.fromkeys(f for p in programs for f in p.recipe.fallbacks))
    kernels = sum(len(part.program.plan.launches) for p in programs[-1:] for part in p.parts)
    # One compile serves many numbers of named sizes.
    versions = len({tuple(id(part.made) for part in p.parts) or id(p) for p in programs})
    return ProgramReport(
        record.kind, versions, kernels, fallbacks, tuple(record.faults), record.specialised)


def _graph_lines(index: int, graph: GraphReport) -> list[str]:
    programs = "; ".join(
        f"{p.kind}, {number(p.kernels, 'kernel')}"
        + (f", {p.versions} specialisations" if p.versions > 1 else "")
        for p in graph.programs)
    lines = [f"graph {index}: {graph.name}, {graph.loc or 'an unknown line'}: {programs}"]
    for program in graph.programs:
        if program.specialised is not None:
            lines.append(f"  the {program.kind} is compiled for each number of its sizes: "
                         f"{program.specialised}")
        for fault in program.faults:
            what = f"{fault.operators} of the" if fault.operators else "the"
            lines.append(f"  {what} {program.kind} runs in PyTorch: tilewright failed: "
                         f"{fault.message}")
            lines += [f"    reproducer: python {fault.reproducer}"] if fault.reproducer else []
        for f in program.fallbacks:
            lines.append(f"  {f.target} runs in PyTorch ({program.kind}): {f.reason}")
            module = f", module {f.module}" if f.module else ""
            lines.append(f"    at {f.loc or 'an unknown line'}{module}")
    return lines


def number(count: int, noun: str) -> str:
    """A count with its noun: 1 graph, 2 graphs."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


