"""A traced program as one that runs: compiled, but for what tilewright fails on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from torch import fx

from tilewright import config
from tilewright.errors import UserError
from tilewright.runtime.threads import threads as threads_of
from tilewright.torch.convert import Converter
from tilewright.torch.culprits import culprits, described, failed_rows
from tilewright.torch.faults import bug, fault_of, warn
from tilewright.torch.options import Options
from tilewright.torch.program import Program
from tilewright.torch.recipe import Recipe
from tilewright.torch.records import Fault, Record


def built(
    module: fx.GraphModule, sizes: dict[Any, int], options: Options, found: Record
) -> tuple[Callable[..., Any], Recipe | None]:
    """The program of these sizes and its recipe; operators on which tilewright fails, and at worst
    all of them, run in PyTorch, and then there is no recipe to keep.
    """
    try:
        converter = Converter(module, sizes, kind=found.kind)
        recipe = converter.recipe()
        for error, nodes in failed_rows(converter.failures):
            _tell(fault_of(module, error), nodes, found, options, error)
        return program_of(recipe, options, found), None if found.faults else recipe
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
            recipe = Converter(module, sizes, dict.fromkeys(nodes, reason), found.kind).recipe()
            run = program_of(recipe, options, found)
        except Exception:  # one failure is being told already
            return False
        made.clear()
        made[frozenset(nodes)] = run
        return True
    with tempfile.TemporaryDirectory() as folder, config.override(reproducers=folder):
        nodes = culprits(module, works)
    return made.get(frozenset(nodes)), nodes


def program_of(recipe: Recipe, options: Options, found: Record) -> Callable[..., Any]:
    """The program of a recipe. Raises ``Unsupported`` if it calls PyTorch and may not."""
    options.check(recipe)
    return entered(Program(recipe, options.target, options.numerics), options, found)


def entered(program: Program, options: Options, found: Record) -> Callable[..., Any]:
    """A program in its record, on the threads that were asked for."""
    found.add(program)
    return program if options.threads is None else _OnThreads(program, options.threads)


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
