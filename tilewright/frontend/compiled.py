"""A traced function on its way to machine code, with the text of every stage."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tilewright import config
from tilewright.compiler.cost import Cost
from tilewright.compiler.pipeline import Compiled as CompiledGraph
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.plan import Plan
from tilewright.compiler.stage import Stage
from tilewright.compiler.target import Target
from tilewright.compiler.text import show_loops, show_plan
from tilewright.errors import CompilerBug, TraceError, UserError
from tilewright.frontend import warm
from tilewright.frontend.array import Array
from tilewright.frontend.devices import call
from tilewright.frontend.location import here, placed
from tilewright.frontend.named import Guard
from tilewright.frontend.reproducer import compiler_bug, fault_lines
from tilewright.frontend.trace import Traced
from tilewright.ir.graph import Graph
from tilewright.ir.text import show
from tilewright.runtime.executable import Executable
from tilewright.runtime.program import Program, code_of, runs, target_named

STAGES = ("graph", "optimised graph", "kernels", "loops", "llvm", "asm", "ptx", "sass")
"""What ``as_text`` can show, in the order in which it comes about."""

ALIASES = {
    "optimized graph": "optimised graph",
    "optimized": "optimised graph",
    "optimised": "optimised graph",
    "plan": "kernels",
    "assembly": "asm",
}


class Stages(tuple[Stage, ...]):
    """The steps of a compilation in order; prints one line per step."""

    def __str__(self) -> str:
        total = sum(stage.milliseconds for stage in self)
        return "\n".join([*map(str, self), f"{'total':<10} {total:8.2f} ms"])

    __repr__ = __str__


class Lowered:
    """A traced function for one signature. What needs the compiler is compiled when asked for."""

    def __init__(
        self, traced: Traced, donated: tuple[int, ...], target: str | None, milliseconds: float,
        hints: Mapping[str, int] | None = None, guards: Sequence[Guard] = (),
        fast_math: bool | None = None,
    ) -> None:
        self.traced = traced
        self.hints, self.guards = hints or {}, tuple(guards)
        self.donated = donated
        self.target_name, self.fast_math = target, fast_math
        self._milliseconds = milliseconds

    @property
    def graph(self) -> Graph:
        """The graph as it was traced."""
        return self.traced.graph

    @functools.cached_property
    def compiled(self) -> Compiled:
        """The compiled function, compiled once."""
        return Compiled(self)

    def compile(self) -> Compiled:
        """The function in machine code. Raises ``CompilerBug`` if the compiler fails."""
        return self.compiled

    def as_text(self, stage: str = "optimised graph") -> str:
        """The text of a stage, one of :data:`STAGES`. Raises ``TraceError`` for any other name."""
        name = ALIASES.get(stage, stage)
        if name not in STAGES:
            raise TraceError(
                "as_text: no such stage",
                expected=", ".join(map(repr, STAGES)),
                got=repr(stage),
                loc=here(),
            )
        return show(self.graph) if name == "graph" else TEXTS[name](self.compiled)

    @property
    def stages(self) -> Stages:
        """The steps of the compilation, with pass name and milliseconds."""
        return self.compiled.stages

    def cost(self) -> Cost:
        """Operations, bytes and scratch memory per kernel, with the user's lines."""
        return self.compiled.cost()

    def __repr__(self) -> str:
        types = ", ".join(
            f"{p}: {n.type}" for p, n in zip(self.traced.paths, self.graph.inputs, strict=True)
        )
        return f"{type(self).__name__}<{self.graph.name}({types})>"


class Compiled:
    """A function in machine code for one signature; call it with the flat list of its inputs."""

    def __init__(self, lowered: Lowered) -> None:
        self.lowered = lowered
        graph, donated = lowered.graph, lowered.donated
        debug = config.get("debug")
        self.traced = Stage("trace", lowered._milliseconds, True, lambda: show(lowered.graph))
        self.traced.announce(debug)
        target: Target | None = None
        try:
            target = find_target(lowered.target_name, lowered.fast_math)
            compile = functools.partial(
                compile_graph, graph, target, donated, hints=lowered.hints)
            self.made = Program(graph, target, donated, hints=lowered.hints, compile=compile)
        except (UserError, CompilerBug, ImportError):
            raise
        except Exception as error:
            compiler_bug(graph, target, donated, error, lowered.hints)
        self.target = target
        if target.gpu is not None:
            self.made.native.report = functools.partial(
                fault_lines, graph, target, donated, lowered.hints)
        if debug:
            self.announce(debug)

    @functools.cached_property
    def stages(self) -> Stages:
        """The steps of the compilation; they are gone through now if the program was read."""
        return Stages((self.traced, *self.made.stages))

    def announce(self, debug: int) -> None:
        """What the switch ``debug`` wants printed of a compile in the end."""
        if self.made.found:
            total = self.traced.milliseconds + self.made.milliseconds
            outcome = f"{self.lowered.graph.name}: read from the disk cache"
        else:
            self.stages[-1].announce(debug, most=4)
            total = sum(stage.milliseconds for stage in self.stages)
            outcome = self.program.summary()
        if debug >= 4:
            print(self.native.asm_text().rstrip("\n"), file=sys.stderr)
        print(f"tilewright: {outcome}, {total:.1f} ms", file=sys.stderr)

    @property
    def program(self) -> CompiledGraph:
        """The stages of the compilation; it is done now if the disk cache had its outcome."""
        return self.made.compiled

    @property
    def native(self) -> Any:
        """The machine code."""
        return self.made.native

    @property
    def executable(self) -> Any:
        """What runs the machine code on arrays."""
        return self.made.executable

    @property
    def is_native(self) -> bool:
        """Whether it runs in this process, and can be called without a Python frame."""
        return self.target.gpu is None

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        """One array per result leaf, in memory of its own, for one array per input."""
        return self.run(self.executable, arrays)

    def run(self, executable: Any, arrays: Sequence[Any]) -> list[Any]:
        """The same by ``executable``, which may be for some numbers of named sizes."""
        lowered = self.lowered
        if any(type(a) is Array for a in arrays):
            return call(
                executable, arrays, lowered.traced.paths, lowered.donated, lowered.graph.name)
        return list(executable(arrays))

    def serves(self, values: Mapping[str, int]) -> bool:
        """Whether what the trace decided by the numbers of named sizes holds for these."""
        return all(guard.holds(values) for guard in self.lowered.guards)

    @property
    def plan(self) -> Plan:
        """Kernels in order, and where every buffer lives."""
        return self.program.plan

    def as_text(self, stage: str = "asm") -> str:
        """The text of a stage, one of :data:`STAGES`."""
        return self.lowered.as_text(stage)

    def cost(self) -> Cost:
        """Operations, bytes and scratch memory per kernel, with the user's lines.

        Of a function for a GPU also registers and shared memory, where ptxas is installed.
        """
        found = self.program.cost()
        return found if self.target.gpu is None else replace(found, **self._resources)

    @functools.cached_property
    def _resources(self) -> dict[str, Any]:
        from tilewright.codegen.gpu.assembler import resources

        names = [launch.kernel.name for launch in self.plan.launches]
        try:
            return {"resources": resources(self.native, names)}
        except UserError as error:
            return {"unknown": f"{error.what} ({error.hint})"}

    def __repr__(self) -> str:
        return repr(self.lowered).replace("Lowered", "Compiled", 1)


@dataclass(frozen=True)
class AtSizes:
    """A compiled function with named sizes, for some numbers of them."""

    compiled: Compiled
    executable: Executable

    @property
    def stages(self) -> Stages:
        """The steps of the compilation."""
        return self.compiled.stages

    @property
    def is_native(self) -> bool:
        """As :class:`Compiled`."""
        return self.compiled.is_native

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        """As :class:`Compiled`."""
        return self.compiled.run(self.executable, arrays)


TEXTS: dict[str, Callable[[Compiled], str]] = {
    "optimised graph": lambda c: show(c.program.optimized),
    "kernels": lambda c: f"{show_plan(c.plan)}\n\n{c.program.cost()}\n",
    "loops": lambda c: show_loops(c.plan) + "\n",
    "llvm": lambda c: str(c.native.llvm_text),
    "asm": lambda c: str(c.native.asm_text()),
    "ptx": lambda c: gpu_text(c, "ptx"),
    "sass": lambda c: gpu_text(c, "sass"),
}


def find_target(name: str | None, fast_math: bool | None = None) -> Target:
    """The machine to compile for: of this name, else of the switch, else the host."""
    warm.finish()
    try:
        with placed():
            return target_named(name, fast_math)
    except UserError as error:
        if error.loc is not None:
            raise
        raise error.at(here()) from error.__cause__


def gpu_text(compiled: Compiled, stage: str) -> str:
    """The PTX of a function for a GPU, or the machine instructions that ptxas makes of it.

    Raises ``TraceError`` for a function for a CPU, and ``UserError`` where a tool is missing.
    """
    if compiled.target.gpu is None:
        raise TraceError(
            f"as_text: a function for a CPU has no {stage}",
            expected="'asm', or a function compiled for a GPU", got=repr(stage), loc=here(),
            hint="compile for a GPU: tw.jit(f, target=\"sim\")",
        )
    text = str(compiled.native.asm_text())
    if stage == "ptx":
        return text
    from tilewright.codegen.gpu.assembler import sass

    return sass(text, compiled.target.gpu.architecture)


def make_executable(plan: Plan, target: Target) -> tuple[Any, Any]:
    """Code of a plan, and what runs it on arrays."""
    native = code_of(plan, target)
    return native, runs(plan, native, target)
