"""The backend of ``torch.compile``: graphs in, compiled forward and backward programs out."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch
from torch import fx
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition

from tilewright import config
from tilewright.compiler.collector import collector_at_rest
from tilewright.errors import CompilerBug, UserError
from tilewright.frontend.named import Decisions
from tilewright.frontend.reproducer import first_line
from tilewright.ir.decide import deciding
from tilewright.ir.sizes import Size, named
from tilewright.runtime.executable import SizedExecutable
from tilewright.runtime.threads import threads as threads_of
from tilewright.torch.convert import Converter, convert
from tilewright.torch.culprits import culprits, described, failed_rows
from tilewright.torch.decompositions import decompositions
from tilewright.torch.faults import bug, fault_of, warn
from tilewright.torch.kept import Kept, caching, keeping
from tilewright.torch.options import Options, read_options
from tilewright.torch.program import Program, compile_part
from tilewright.torch.recipe import Part, Recipe
from tilewright.torch.records import Fault, Record, Region, region_of
from tilewright.torch.recurrent import trace_for, write_out
from tilewright.torch.sizes import at

_region: ContextVar[Region] = ContextVar("tilewright_region")
"""What is being compiled, for programs that come out of PyTorch's cache meanwhile."""


def backend(
    module: fx.GraphModule, example_inputs: Sequence[Any], *, options: Any = None, **rest: Any
) -> Callable[..., Any]:
    """``torch.compile(model, backend="tilewright")``.

    ``options`` as in :class:`~tilewright.torch.options.Options`. Raises ``UserError`` for an option
    or value that does not exist. Operators on which tilewright itself fails run in PyTorch after a
    :class:`~tilewright.torch.faults.BackendWarning`; with ``fallback=False`` that is a
    ``CompilerBug``.
    """
    chosen = read_options(options, rest)
    write_out(module)
    region = region_of(module, example_inputs)
    compilers = {
        kind: keeping(functools.partial(_compile, options=chosen, region=region, kind=kind))
        for kind in ("forward", "backward", "inference")
    }
    token = _region.set(region)
    try:
        with caching(chosen), chosen.keeping(), collector_at_rest():
            return aot_autograd(  # type: ignore[no-any-return]
                fw_compiler=compilers["forward"],
                bw_compiler=compilers["backward"],
                inference_compiler=compilers["inference"],
                partition_fn=min_cut_rematerialization_partition,
                decompositions=decompositions(),
                keep_inference_input_mutations=True,
            )(module, example_inputs)
    finally:
        _region.reset(token)


trace_for(backend)


def _compile(
    module: fx.GraphModule, example_inputs: Sequence[Any], *, options: Options, region: Region,
    kind: str,
) -> Kept:
    """One program: of a forward, a backward, or a graph without gradients."""
    symbols = _symbols(module)
    found = region.record(kind)
    if symbols:
        return Kept(_Sized(module, symbols, options, found), None, options, kind, _reload)
    run, recipe = _program(module, {}, options, found)
    return Kept(run, recipe, options, kind, _reload)


def _program(
    module: fx.GraphModule, sizes: dict[Any, int], options: Options, found: Record
) -> tuple[Callable[..., Any], Recipe | None]:
    """The program of these sizes and its recipe; operators on which tilewright fails, and at worst
    all of them, run in PyTorch, and then there is no recipe to keep.
    """
    try:
        converter = Converter(module, sizes)
        recipe = converter.recipe()
        for error, nodes in failed_rows(converter.failures):
            _tell(fault_of(module, error), nodes, found, options, error)
        return _build(recipe, options, found), None if found.faults else recipe
    except (UserError, ImportError):
        raise
    except Exception as error:
        fault = fault_of(module, error)
        if not options.fallback:
            raise bug(fault, error) from error
        run, nodes = _without_culprits(module, sizes, options, found, fault)
        _tell(fault, nodes, found, options, error)
        return run or _InPyTorch(module, found), None


def _tell(
    fault: Fault, nodes: Sequence[fx.Node], found: Record, options: Options, error: Exception
) -> None:
    """Say which operators run in PyTorch after a failure: all of them if none is named."""
    fault = replace(fault, operators=described(n.target for n in nodes))
    if not options.fallback:
        raise bug(fault, error) from error
    warn(fault, found.kind)
    found.faults.append(fault)


def _without_culprits(
    module: fx.GraphModule, sizes: dict[Any, int], options: Options, found: Record, fault: Fault
) -> tuple[Callable[..., Any] | None, list[fx.Node]]:
    """The program of which few operators run in PyTorch, and these; None if there is no such."""
    reason = f"tilewright failed: {fault.message}"
    made: dict[frozenset[fx.Node], Callable[..., Any]] = {}

    def works(nodes: Collection[fx.Node]) -> bool:
        try:
            recipe = Converter(module, sizes, dict.fromkeys(nodes, reason)).recipe()
            run = _build(recipe, options, found)
        except Exception:  # one failure is being told already
            return False
        made.clear()
        made[frozenset(nodes)] = run
        return True
    with tempfile.TemporaryDirectory() as folder, config.override(reproducers=folder):
        nodes = culprits(module, works)
    return made.get(frozenset(nodes)), nodes


def _build(recipe: Recipe, options: Options, found: Record) -> Callable[..., Any]:
    options.check(recipe)
    program = Program(recipe, options.target, options.numerics)
    found.add(program)
    return program if options.threads is None else _OnThreads(program, options.threads)


def _reload(recipe: Recipe, options: Options, kind: str) -> Callable[..., Any]:
    """The program of a recipe that PyTorch's cache kept."""
    return _build(recipe, options, _region.get().record(kind))


class _InPyTorch:
    """A traced program that PyTorch runs, operator by operator."""

    def __init__(self, module: fx.GraphModule, found: Record) -> None:
        self._boxed_call = True
        self.module, self.record = module, found

    def __call__(self, args: list[Any]) -> Any:
        given = [*args]
        args.clear()
        return fx.Interpreter(self.module).boxed_run(given)


class _OnThreads:
    """A program on a number of threads of its own."""

    def __init__(self, program: Program, count: int) -> None:
        self._boxed_call = True
        self.program, self.count = program, count

    def __call__(self, args: list[Any]) -> list[Any]:
        with threads_of(self.count):
            return self.program(args)


def _symbols(module: fx.GraphModule) -> list[tuple[int, Any]]:
    """The arguments that are named sizes: position and sympy symbol."""
    found: list[tuple[int, Any]] = []
    places = [n for n in module.graph.nodes if n.op == "placeholder"]
    for i, node in enumerate(places):
        meta = node.meta.get("val")
        if isinstance(meta, torch.SymInt | torch.SymFloat):
            found.append((i, meta.node.expr))
    return found


class _Named:
    """A program compiled for all numbers of its named sizes of which its guards hold.

    Raises whatever a row of the table does with a size that is no number; ``UnsupportedSize`` from
    those that say so.
    """

    def __init__(
        self, module: fx.GraphModule, names: dict[Any, Size], values: dict[str, int],
        options: Options, found: Record,
    ) -> None:
        self.options, self.found = options, found
        decisions = Decisions(values)
        with deciding(decisions):
            self.recipe = convert(module, names)
        self.guards = tuple(decisions.guards)
        options.check(self.recipe)
        parts = [step for step in self.recipe.steps if isinstance(step, Part)]
        self.codes = [
            compile_part(part, options.target, options.numerics, values) for part in parts]

    def serves(self, values: dict[str, int]) -> bool:
        """Whether what the conversion decided by its numbers holds for these."""
        return all(guard.holds(values) for guard in self.guards)

    def at(self, values: dict[str, int]) -> Callable[..., Any]:
        """The program for these numbers; nothing is compiled."""
        program = Program(
            at(self.recipe, values), self.options.target, self.options.numerics, self.codes, values)
        self.found.add(program)
        if self.options.threads is None:
            return program
        return _OnThreads(program, self.options.threads)


class _Sized:
    """A program with named sizes: compiled once, or, where it cannot be, for each combination of
    numbers.
    """

    def __init__(
        self, module: fx.GraphModule, symbols: list[tuple[int, Any]], options: Options,
        found: Record,
    ) -> None:
        self.module, self.symbols, self.options, self.record = module, symbols, options, found
        self._boxed_call = True
        self.made: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self.named: list[_Named] = []
        self.names = {s: named(str(s)) for _, s in symbols if s.is_Symbol}
        # A number that is no size is compiled in.
        self.by_name = all(s.is_integer for _, s in symbols)

    def __call__(self, args: list[Any]) -> list[Any]:
        key = tuple(args[i] for i, _ in self.symbols)
        program = self.made.get(key)
        if program is None:
            while len(self.made) >= SizedExecutable.most:
                self.made.pop(next(iter(self.made)))
            with self.options.keeping():
                program = self.made[key] = self._program(key)
        result: list[Any] = program(args)
        return result

    def _program(self, key: tuple[Any, ...]) -> Callable[..., Any]:
        sizes = {s: n for (_, s), n in zip(self.symbols, key, strict=True) if s.is_Symbol}
        if self.by_name:
            values = {str(s): int(n) for s, n in sizes.items()}
            found = next((p for p in self.named if p.serves(values)), None)
            try:
                if found is None:
                    found = _Named(self.module, self.names, values, self.options, self.record)
                    self.named.append(found)
                return found.at(values)
            except ImportError:
                raise
            except Exception as error:
                if isinstance(error, CompilerBug) and not self.options.fallback:
                    raise
                # Another row than those that take names: its graph is compiled for numbers.
                self.by_name = False
                self.record.specialised = first_line(error)
        return _program(self.module, sizes, self.options, self.record)[0]
