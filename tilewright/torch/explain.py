"""``explain(model, *args)``: what one call of a model is made of, and where its time goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree

from tilewright.compiler.cost import line_of
from tilewright.compiler.lowered import LoweredKernel
from tilewright.errors import Location
from tilewright.frontend.compiled import find_target
from tilewright.ir.graph import Node
from tilewright.ir.text import show
from tilewright.runtime.peaks import Peaks, peaks
from tilewright.runtime.threads import threads_now
from tilewright.torch.backend import backend
from tilewright.torch.explain_text import page
from tilewright.torch.lines import module_path
from tilewright.torch.parts import CompiledPart
from tilewright.torch.profile import Profile, Span, watching
from tilewright.torch.program import Program
from tilewright.torch.recipe import Eager, Fallback
from tilewright.torch.records import GraphBreak, Region, owner_of, regions_of
from tilewright.torch.report import name_of

REPEATS = 5


@dataclass(frozen=True)
class KernelTime:
    """One kernel of a program.

    seconds  the shortest time that it took, in all its runs: a step of a recurrent layer runs once
             per step
    floor    seconds that its operations or bytes take at the machine's peaks
    modules  paths of the modules whose operators it computes, that of its result first
    loc      the user's line of its result
    """

    name: str
    seconds: float
    flops: int
    bytes: int
    floor: float
    modules: tuple[str, ...]
    loc: Location | None
    runs: int = 1

    @property
    def module(self) -> str:
        """The path of the module that computes its result."""
        return self.modules[0] if self.modules else ""


@dataclass(frozen=True)
class CallTime:
    """One operator that runs in PyTorch between kernels; ``reason`` is empty for random draws."""

    target: str
    seconds: float
    reason: str
    module: str
    loc: Location | None


@dataclass(frozen=True)
class ProgramTime:
    """One program of the call.

    name     of the function that Dynamo traced, ``graph`` counts them from 0
    kind     ``forward``, ``backward`` or ``inference``
    seconds  the shortest time that it took, kernels and all that is around them
    graphs   of its compiled parts, as text
    nodes    in these graphs
    ends     the graph break behind it, and ``gap``: seconds until the next program began
    """

    graph: int
    name: str
    kind: str
    loc: Location | None
    seconds: float
    graphs: tuple[str, ...]
    nodes: int
    kernels: tuple[KernelTime, ...]
    calls: tuple[CallTime, ...]
    ends: GraphBreak | None = None
    gap: float | None = None


@dataclass(frozen=True)
class Explanation:
    """What one call of a model is made of. ``str()`` of it is a page to read.

    forward, backward  seconds of the whole call, and of its gradients (None without)
    faults             what tilewright failed to compile, which runs in PyTorch
    recompiled         graphs that were traced again though the call was the same
    """

    name: str
    threads: int
    peaks: Peaks
    forward: float
    backward: float | None
    programs: tuple[ProgramTime, ...]
    faults: tuple[str, ...] = ()
    recompiled: int = 0

    @property
    def kernels(self) -> tuple[KernelTime, ...]:
        """All kernels, the slowest first."""
        every = [k for p in self.programs for k in p.kernels]
        return tuple(sorted(every, key=lambda k: -k.seconds))

    @property
    def fallbacks(self) -> tuple[CallTime, ...]:
        """The operators that run in PyTorch because they are not compiled."""
        return tuple(c for p in self.programs for c in p.calls if c.reason)

    @property
    def modules(self) -> dict[str, float]:
        """Seconds of kernels and calls by the module that they belong to."""
        found: dict[str, float] = {}
        for p in self.programs:
            items: tuple[KernelTime | CallTime, ...] = (*p.kernels, *p.calls)
            for item in items:
                found[item.module] = found.get(item.module, 0.0) + item.seconds
        return dict(sorted(found.items(), key=lambda entry: -entry[1]))

    def __str__(self) -> str:
        return page(self)


def explain(model: Any, *args: Any, **kwargs: Any) -> Explanation:
    """Run a model some ten times on these arguments and say what its time goes into.

    A model that is not compiled with this backend is compiled for it. If the result requires
    gradients, those of its sum are computed too. Buffers, arguments that the model changes, the
    generator of random numbers and the ``.grad`` of parameters are as before afterwards.
    """
    run = model if owner_of(model) is not None else torch.compile(model, backend=backend)
    call = _Call(run, args, kwargs)
    profile = Profile()
    with _restored(model, (args, kwargs)) as restore, torch.random.fork_rng(devices=[]):
        for _ in range(2):  # compiles, and clears up
            call()
            restore()
        first = len(regions_of(run))
        for _ in range(2):
            with watching(_programs(run), profile, kernels=True):
                call()
            restore()
        best = (float("inf"), float("inf"))
        gaps: dict[int, float] = {}
        for _ in range(REPEATS):
            profile.begin()
            with watching(_programs(run), profile):
                seconds = call()
            restore()
            best = (min(best[0], seconds[0]), min(best[1], seconds[1]))
            for i, gap in enumerate(_gaps(profile.runs)):
                gaps[i] = min(gaps.get(i, gap), gap)
    threads = max((span.threads for span in profile.runs), default=threads_now())
    regions = regions_of(run)
    limits = peaks(find_target(None), threads)
    times = tuple(
        _program(span, gaps.get(i), regions, profile, limits)
        for i, span in enumerate(profile.runs))
    faults = tuple(f.message for r in regions for record in r.records for f in record.faults)
    backward = best[1] if call.differentiable else None
    again = len(regions) - first
    return Explanation(name_of(model), threads, limits, best[0], backward, times, faults, again)


def _programs(run: Any) -> list[Program]:
    return [p for r in regions_of(run) for record in r.records for p in record.programs]


class _Call:
    """One call with its gradients; gives the seconds of both."""

    def __init__(self, run: Any, args: Any, kwargs: Any) -> None:
        self.run, self.args, self.kwargs = run, args, kwargs
        given = _tensors((args, kwargs))
        own = run.parameters() if isinstance(run, torch.nn.Module) else ()
        self.leaves = [t for t in (*own, *given) if t.requires_grad]
        self.differentiable = False

    def __call__(self) -> tuple[float, float]:
        start = time.perf_counter()
        result = self.run(*self.args, **self.kwargs)
        middle = time.perf_counter()
        roots = [t for t in _tensors(result) if t.requires_grad]
        if roots:
            self.differentiable = True
            ones = [torch.ones_like(t) for t in roots]
            middle, start = time.perf_counter(), start + (time.perf_counter() - middle)
            torch.autograd.grad(roots, self.leaves or roots, ones, allow_unused=True)
        return middle - start, time.perf_counter() - middle


def _tensors(value: Any) -> list[torch.Tensor]:
    return [t for t in _pytree.tree_leaves(value) if isinstance(t, torch.Tensor)]


@contextlib.contextmanager
def _restored(model: Any, arguments: Any) -> Iterator[Any]:
    """What a call may change, with the function that puts it back."""
    kept = [t for t in _tensors(arguments) if not t.is_inference()]
    if isinstance(model, torch.nn.Module):
        kept += [*model.buffers(), *model.parameters()]
    before = [(t, t.detach().clone(), t._version) for t in kept]

    def restore() -> None:
        with torch.no_grad():
            for tensor, value, version in before:
                if tensor._version != version:
                    tensor.copy_(value)
    try:
        yield restore
    finally:
        restore()


def _gaps(runs: Sequence[Span]) -> list[float]:
    """Seconds from the end of each run to the beginning of the next."""
    return [max(0.0, b.start - a.end) for a, b in zip(runs, runs[1:], strict=False)]


def _program(
    span: Span, gap: float | None, regions: Sequence[Region], profile: Profile, limits: Peaks
) -> ProgramTime:
    program = span.program
    record = program.record
    region: Region = record.region
    seconds = sum(profile.steps.get((program, i), 0.0) for i in range(len(program.steps)))
    calls = tuple(
        _call_time(step, profile.steps.get((program, i), 0.0), program.recipe.fallbacks)
        for i, step in enumerate(program.recipe.steps) if isinstance(step, Eager))
    forward = record.kind != "backward"
    return ProgramTime(
        graph=regions.index(region), name=region.name, kind=record.kind, loc=region.loc,
        seconds=seconds, graphs=tuple(show(part.part.graph) for part in program.parts),
        nodes=sum(len(part.part.graph.nodes()) for part in program.parts),
        kernels=tuple(k for part in program.parts for k in _kernels(part, profile, limits)),
        calls=calls, ends=region.ends if forward else None,
        gap=gap if forward and region.ends is not None else None)


def _kernels(part: CompiledPart, profile: Profile, limits: Peaks) -> Iterator[KernelTime]:
    for i, launch in enumerate(part.plan.launches):
        made = part.program.kernels  # launches behind them are the plan's own copies
        lowered = made[i] if i < len(made) else None
        loc = line_of(lowered, launch.kernel.loc)
        flops, bytes = (
            part.times * n if isinstance(n, int) else 0 for n in (launch.flops, launch.bytes))
        yield KernelTime(
            launch.kernel.name, part.times * profile.kernels.get((part, i), 0.0), flops, bytes,
            limits.seconds(flops, bytes), _modules(lowered, loc) if lowered else (), loc,
            part.times)


def _modules(lowered: LoweredKernel, loc: Location | None) -> tuple[str, ...]:
    """The modules of all values that a kernel computes, the one at ``loc`` first."""
    written = {"out", "inout"}
    pairs = list(zip(lowered.kernel.params, lowered.args, strict=True))
    read = {id(a) for p, a in pairs if p.access not in written}
    waiting = [a for p, a in pairs if p.access in written and isinstance(a, Node)]
    found = dict.fromkeys([module_path(loc)] if module_path(loc) else [])
    seen = set(read)
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if module_path(node.loc):
            found.setdefault(module_path(node.loc))
        waiting += node.inputs
    return tuple(found)


def _call_time(step: Eager, seconds: float, fallbacks: Sequence[Fallback]) -> CallTime:
    target = str(step.target)
    for f in fallbacks:
        if f.target == target:
            return CallTime(target, seconds, f.reason, f.module, f.loc)
    return CallTime(target, seconds, "", "", None)


__all__ = ["CallTime", "Explanation", "KernelTime", "Program", "ProgramTime", "explain"]
