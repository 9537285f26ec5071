"""Programs with named sizes: compiled once, or, where it cannot be, per combination of numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx._graph_pickler import GraphPickler
from torch.fx._graph_pickler import Options as Pickling
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from tilewright.errors import CompilerBug
from tilewright.frontend.named import Decisions, Guard
from tilewright.frontend.reproducer import first_line
from tilewright.ir.decide import deciding
from tilewright.ir.sizes import named
from tilewright.runtime.executable import SizedExecutable
from tilewright.torch.builds import built, entered
from tilewright.torch.by_data import depends_on_data
from tilewright.torch.convert import convert
from tilewright.torch.options import Options
from tilewright.torch.parts import compile_part
from tilewright.torch.program import Program
from tilewright.torch.recipe import Recipe, parts_of
from tilewright.torch.records import Record
from tilewright.torch.sizes import at

Places = tuple[tuple[int, "str | None"], ...]
"""The arguments that are numbers: position, and the name of those that are sizes by themselves."""


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe for all numbers of its sizes of which its guards hold; ``hints`` were the first."""

    recipe: Recipe
    guards: tuple[Guard, ...]
    hints: Mapping[str, int]

    def serves(self, values: Mapping[str, int]) -> bool:
        """Whether what the conversion decided by its numbers holds for these."""
        return all(guard.holds(values) for guard in self.guards)


@dataclass(frozen=True)
class SizedRecipe:
    """What is kept of a program with named sizes: the traced one, packed, is for other numbers."""

    places: Places
    named: tuple[NamedRecipe, ...]
    module: bytes


def symbols_of(module: fx.GraphModule) -> list[tuple[int, Any]]:
    """The arguments that are numbers: position and sympy expression.

    The ragged size of a nested tensor is none: it is compared and handed on.
    """
    found: list[tuple[int, Any]] = []
    for i, node in enumerate(module.graph.find_nodes(op="placeholder")):
        meta = node.meta.get("val")
        if isinstance(meta, torch.SymInt | torch.SymFloat) and not depends_on_data(meta):
            if not isinstance(meta.node.hint, torch.SymInt):
                found.append((i, meta.node.expr))
    return found


def _hints(module: fx.GraphModule) -> tuple[int, ...] | None:
    """The numbers that a program was traced with; None if they are not known."""
    metas = [n.meta.get("val") for n in module.graph.find_nodes(op="placeholder")]
    found = [metas[i].node.hint for i, _ in symbols_of(module)]
    return None if any(hint is None for hint in found) else tuple(found)


def _named_recipe(
    module: fx.GraphModule, values: Mapping[str, int], kind: str
) -> NamedRecipe:
    """Raises whatever a row of the table does with a size that is no number; ``UnsupportedSize``
    from those that say so.
    """
    decisions = Decisions(values)
    names = {s: named(str(s)) for _, s in symbols_of(module) if s.is_Symbol}
    with deciding(decisions):
        recipe = convert(module, names, kind)
    return NamedRecipe(replace(recipe, sizes={}), tuple(decisions.guards), dict(values))


class _Compiled:
    """A named recipe in machine code."""

    def __init__(self, made: NamedRecipe, options: Options, found: Record) -> None:
        self.made, self.options, self.found = made, options, found
        options.check(made.recipe)
        self.codes = [
            compile_part(part, options.target, options.numerics, made.hints)
            for part in parts_of(made.recipe)]

    def at(self, values: Mapping[str, int]) -> Callable[..., Any]:
        """The program for these numbers; nothing is compiled."""
        program = Program(
            at(self.made.recipe, values), self.options.target, self.options.numerics, self.codes,
            values)
        return entered(program, self.options, self.found)


class Sized:
    """A program with named sizes. ``traced`` gives what PyTorch traced, if that is needed."""

    def __init__(
        self, places: Places, traced: Callable[[], fx.GraphModule], options: Options,
        found: Record, kept: Sequence[NamedRecipe] = (),
    ) -> None:
        self.places, self.options, self.record = places, options, found
        self._traced = traced
        self._boxed_call = True
        self.made: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self.named = [_Compiled(recipe, options, found) for recipe in kept]
        self.by_name = True

    @functools.cached_property
    def module(self) -> fx.GraphModule:
        """What PyTorch traced."""
        return self._traced()

    def __call__(self, args: list[Any]) -> list[Any]:
        key = tuple([args[i] for i, _ in self.places])
        program = self.made.get(key)
        if program is None:
            program = self.prepare(key)
        result: list[Any] = program(args)
        return result

    def prepare(self, key: tuple[Any, ...]) -> Callable[..., Any]:
        """The program for these numbers, which is kept for the latest of them."""
        while len(self.made) >= SizedExecutable.most:
            self.made.pop(next(iter(self.made)))
        with self.options.keeping():
            made = self.made[key] = self._program(key)
        return made

    def recipe(self) -> SizedRecipe | None:
        """What another process can use; None if all of it is compiled for numbers."""
        if not self.by_name or not self.named:
            return None
        return SizedRecipe(self.places, tuple(p.made for p in self.named), pack(self.module))

    def _program(self, key: tuple[Any, ...]) -> Callable[..., Any]:
        if self.by_name:
            values = {name: int(n) for (_, name), n in zip(self.places, key, strict=True) if name}
            found = next((p for p in self.named if p.made.serves(values)), None)
            try:
                if found is None:
                    recipe = _named_recipe(self.module, values, self.record.kind)
                    found = _Compiled(recipe, self.options, self.record)
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
        symbols = symbols_of(self.module)
        sizes = {s: n for (_, s), n in zip(symbols, key, strict=True) if s.is_Symbol}
        return built(self.module, sizes, self.options, self.record)[0]


def sized(module: fx.GraphModule, options: Options, found: Record) -> Sized:
    """A traced program with named sizes, made for the numbers that it was traced with."""
    symbols = symbols_of(module)
    places = tuple((i, str(s) if s.is_Symbol else None) for i, s in symbols)
    made = Sized(places, lambda: module, options, found)
    # A number that is no size is compiled in.
    made.by_name = all(s.is_integer for _, s in symbols)
    hints = _hints(module)
    if hints is not None:
        made.prepare(hints)
    return made


def reloaded(kept: SizedRecipe, options: Options, found: Record) -> Sized:
    """The program that another process kept."""
    return Sized(kept.places, lambda: unpack(kept.module), options, found, kept.named)


def pack(module: fx.GraphModule) -> bytes:
    """A traced program for another process. Raises what the pickler of PyTorch raises."""
    found: bytes = GraphPickler.dumps(module, Pickling(ops_filter=None))
    return found


def unpack(data: bytes) -> fx.GraphModule:
    """The traced program."""
    found: fx.GraphModule = GraphPickler.loads(data, FakeTensorMode(shape_env=ShapeEnv()))
    return found
