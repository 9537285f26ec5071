"""A compiled graph as a differentiable function of tensors, and as an operator of PyTorch.

The gradient of a graph is a graph, so its gradient is too: every order has its compiled program.
The first backward starts from what the forward kept (:mod:`tilewright.ir.partition`); a backward
that is itself differentiated is a function of the inputs and cotangents alone.
"""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import torch

from tilewright.compiler.pipeline import compile_graph
from tilewright.errors import CompilerBug, UserError
from tilewright.frontend.compiled import find_target, make_executable
from tilewright.frontend.reproducer import compiler_bug
from tilewright.ir.autodiff import pullback, vjp_graph, zero_of
from tilewright.ir.graph import Graph, Node, full, input_node
from tilewright.ir.partition import Split, split
from tilewright.ir.types import concrete
from tilewright.torch.batched import is_batched, one_by_one
from tilewright.torch.dtypes import THEIRS
from tilewright.torch.gpu import run

Tensors = Sequence[torch.Tensor]


class Entry:
    """A graph that runs on a list of tensors, with its derivatives."""

    def __init__(self, graph: Graph, target: str | None = None) -> None:
        self.graph, self.target = graph, target
        self.number = next(_numbers)
        self.floats = tuple(n.dtype.is_float for n in graph.outputs)
        _entries[self.number] = self
        self._pulled: dict[tuple[Any, ...], Entry] = {}
        self._split: dict[tuple[int, ...], tuple[Entry, Entry, Split]] = {}
        self._lock = threading.RLock()

    @functools.cached_property
    def executable(self) -> Any:
        """The compiled graph. Raises ``CompilerBug`` if the compiler fails."""
        target = None
        try:
            target = find_target(self.target)
            program = compile_graph(self.graph, target)
            return make_executable(program.plan, target)[1]
        except (UserError, CompilerBug, ImportError):
            raise
        except Exception as error:
            compiler_bug(self.graph, target, (), error)

    def run(self, tensors: Tensors) -> list[torch.Tensor]:
        """The results on these tensors, whatever they require."""
        if any(map(is_batched, tensors)):
            return one_by_one(self.run, tensors)
        return run(self.executable, tensors)

    def pulled(self, wrt: tuple[int, ...], seeded: tuple[bool, ...]) -> Entry:
        """From inputs and cotangents, of the results marked in ``seeded``, to those of ``wrt``."""
        key = (wrt, seeded)
        with self._lock:
            found = self._pulled.get(key)
            if found is None:
                found = self._pulled[key] = Entry(_pull(self.graph, wrt, seeded), self.target)
        return found

    def parts(self, wrt: tuple[int, ...]) -> tuple[Entry, Entry, Split]:
        """The forward, which keeps what the backward by ``wrt`` needs, and that backward."""
        found = self._split.get(wrt)
        if found is None:
            with self._lock:
                found = self._split.get(wrt) or self._divide(wrt)
        return found

    def _divide(self, wrt: tuple[int, ...]) -> tuple[Entry, Entry, Split]:
        made = split(self.graph, wrt)
        self._split[wrt] = (
            Entry(made.forward, self.target), Entry(made.backward, self.target), made)
        return self._split[wrt]

    @functools.cached_property
    def pushed(self) -> Entry:
        """From the floating point inputs' tangents, after the inputs, to those of the results."""
        return Entry(_push(self.graph), self.target)


_entries: weakref.WeakValueDictionary[int, Entry] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def _pull(graph: Graph, wrt: tuple[int, ...], seeded: tuple[bool, ...]) -> Graph:
    whole = vjp_graph(graph, wrt)
    count = len(graph.inputs)
    floats = [i for i, n in enumerate(graph.outputs) if n.dtype.is_float]
    cotangents = whole.inputs[count:]
    zeros = {
        ct: full(ct.type, 0) for i, ct in zip(floats, cotangents, strict=True) if not seeded[i]}
    kept = tuple(ct for ct in cotangents if ct not in zeros)
    if zeros:
        seeds: list[Node | None] = [None] * len(graph.outputs)
        for i, ct in zip(floats, cotangents, strict=True):
            seeds[i] = None if ct in zeros else ct
        chosen = [graph.inputs[i] for i in wrt]
        found = pullback(graph.outputs, seeds, chosen)
        results = [zero_of(n, ct) for n, ct in zip(chosen, found, strict=True)]
    else:
        results = list(whole.outputs[len(graph.outputs):])
    return Graph((*graph.inputs, *kept), tuple(results), f"{graph.name}_vjp")


def _push(graph: Graph) -> Graph:
    """Tangents by transposing the pullback, which is linear in its cotangents."""
    wrt = [i for i, n in enumerate(graph.inputs) if n.dtype.is_float]
    back = vjp_graph(graph, wrt)
    count = len(graph.inputs)
    seeds = back.inputs[count:]
    names = {n.attrs.name for n in back.inputs}
    tangents = []
    for i in wrt:
        name = f"tangent{i}"
        while name in names:
            name += "_"
        tangents.append(input_node(name, graph.inputs[i].type))
    found = pullback(back.outputs[len(graph.outputs):], tangents, seeds)
    results = tuple(zero_of(n, t) for n, t in zip(seeds, found, strict=True))
    return Graph((*graph.inputs, *tangents), results, f"{graph.name}_jvp")


def apply(entry: Entry, tensors: Tensors) -> list[torch.Tensor]:
    """The results, differentiable where a tensor requires gradients or is being transformed."""
    if transformed():
        return list(_Plain.apply(entry, *tensors))
    wrt = tuple(
        i for i, t in enumerate(tensors) if t.requires_grad and t.dtype.is_floating_point)
    if not wrt or not torch.is_grad_enabled():
        return entry.run(tensors)
    return list(_Kept.apply(entry, wrt, *tensors))


def transformed() -> bool:
    """Whether ``torch.func`` transforms the call, or tensors may have tangents."""
    active: bool = torch._C._are_functorch_transforms_active()  # type: ignore[attr-defined]
    return active or _forward_mode()


def _forward_mode() -> bool:
    """Whether tensors may have tangents."""
    level: int = torch.autograd.forward_ad._current_level  # type: ignore[attr-defined]
    return level >= 0


class _Kept(torch.autograd.Function):
    """A graph whose backward starts from what the forward kept."""

    @staticmethod
    def forward(ctx: Any, entry: Entry, wrt: tuple[int, ...], *tensors: torch.Tensor) -> Any:
        forward, _, parts = entry.parts(wrt)
        made = forward.run(tensors)
        ctx.entry, ctx.wrt, ctx.given = entry, wrt, len(tensors)
        ctx.save_for_backward(*tensors, *(made[i] for i in parts.kept))
        results = made[:len(entry.floats)]
        if not all(entry.floats):
            ctx.mark_non_differentiable(
                *(t for t, f in zip(results, entry.floats, strict=True) if not f))
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        saved = ctx.saved_tensors
        if _forward_mode():  # of which the split backward has no derivative
            needed = [i in ctx.wrt for i in range(ctx.given)]
            return (None, None, *_gradients(ctx.entry, needed, saved[:ctx.given], cotangents))
        seeds = [c for c, f in zip(cotangents, ctx.entry.floats, strict=True) if f]
        found = _Backward.apply(ctx.entry, ctx.wrt, ctx.given, *saved, *seeds)
        gradients: list[Any] = [None] * (2 + ctx.given)
        for i, gradient in zip(ctx.wrt, found, strict=True):
            gradients[2 + i] = gradient
        return tuple(gradients)


class _Backward(torch.autograd.Function):
    """The backward of a graph, which is differentiated as a function without anything kept."""

    @staticmethod
    def forward(
        ctx: Any, entry: Entry, wrt: tuple[int, ...], given: int, *tensors: torch.Tensor
    ) -> Any:
        _, backward, parts = entry.parts(wrt)
        first = given + len(parts.kept)
        ctx.entry, ctx.wrt, ctx.given, ctx.kept = entry, wrt, given, len(parts.kept)
        ctx.save_for_backward(*tensors[:given], *tensors[first:])
        return tuple(backward.run(tensors))

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        whole = ctx.entry.pulled(ctx.wrt, ctx.entry.floats)
        needed = [*ctx.needs_input_grad[3:3 + ctx.given],
                  *ctx.needs_input_grad[3 + ctx.given + ctx.kept:]]
        found = _gradients(whole, needed, ctx.saved_tensors, cotangents)
        nothing = [None] * ctx.kept
        return (None, None, None, *found[:ctx.given], *nothing, *found[ctx.given:])


class _Plain(torch.autograd.Function):
    """A graph as a function that ``torch.func`` transforms and forward mode differentiates."""

    @staticmethod
    def forward(entry: Entry, *tensors: torch.Tensor) -> Any:
        return tuple(entry.run(tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.entry = inputs[0]
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])
        ctx.mark_non_differentiable(
            *(t for t, f in zip(output, ctx.entry.floats, strict=True) if not f))

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        needed = ctx.needs_input_grad[1:]
        return (None, *_gradients(ctx.entry, needed, ctx.saved_tensors, cotangents))

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> Any:
        tensors = ctx.saved_tensors
        given = [
            torch.zeros_like(t) if tangent is None else tangent.contiguous()
            for t, tangent in zip(tensors, tangents, strict=True) if t.dtype.is_floating_point
        ]
        found = iter(apply(ctx.entry.pushed, [*tensors, *given]))
        return tuple(next(found) if f else None for f in ctx.entry.floats)

    @staticmethod
    def vmap(info: Any, in_dims: Any, entry: Entry, *tensors: torch.Tensor) -> Any:
        """One run per element: a graph has no batching rule."""
        dims = in_dims[1:]
        rows = [
            apply(entry, [t if d is None else t.select(d, i)
                          for t, d in zip(tensors, dims, strict=True)])
            for i in range(info.batch_size)
        ]
        return tuple(map(torch.stack, zip(*rows, strict=True))), (0,) * len(entry.graph.outputs)


def _gradients(
    entry: Entry, needed: Sequence[bool], tensors: Tensors, cotangents: Sequence[Any]
) -> list[Any]:
    """The gradients of an entry by the tensors that need one; None for the others."""
    wrt = tuple(
        i for i, (n, t) in enumerate(zip(needed, tensors, strict=True))
        if n and t.dtype.is_floating_point)
    seeded = tuple(
        f and c is not None for f, c in zip(entry.floats, cotangents, strict=True))
    found: list[Any] = [None] * len(tensors)
    if not wrt or not any(seeded):
        return found
    seeds = [c for c, s in zip(cotangents, seeded, strict=True) if s]
    for i, g in zip(wrt, apply(entry.pulled(wrt, seeded), [*tensors, *seeds]), strict=True):
        found[i] = g
    return found


# --- as an operator, for programs that torch.compile traces -----------------------------------
_library = torch.library.Library("tilewright", "FRAGMENT")
_library.define("call(int entry, Tensor[] inputs) -> Tensor[]")


def entry_of(number: int) -> Entry:
    """The entry with this number. Raises ``KeyError`` if it is gone."""
    return _entries[number]


def _run(entry: int, inputs: Tensors) -> list[torch.Tensor]:
    return entry_of(entry).run(inputs)


def _shapes(entry: int, inputs: Tensors) -> list[torch.Tensor]:
    return [
        torch.empty(concrete(n.shape), dtype=THEIRS[n.dtype], device=inputs[0].device)
        for n in entry_of(entry).graph.outputs
    ]


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.entry = entry_of(inputs[0])
    ctx.save_for_backward(*inputs[1])


def _operator_backward(ctx: Any, cotangents: Sequence[Any]) -> Any:
    entry, tensors = ctx.entry, ctx.saved_tensors
    wrt = tuple(i for i, t in enumerate(tensors) if t.dtype.is_floating_point)
    seeded = tuple(
        f and c is not None for f, c in zip(entry.floats, cotangents, strict=True))
    found: list[Any] = [None] * len(tensors)
    if wrt and any(seeded):
        pulled = entry.pulled(wrt, seeded)
        seeds = [c for c, s in zip(cotangents, seeded, strict=True) if s]
        made = torch.ops.tilewright.call(pulled.number, [*tensors, *seeds])
        for i, gradient in zip(wrt, made, strict=True):
            found[i] = gradient
    return None, found


_library.impl("call", _run, "CPU")
_library.impl("call", _run, "CUDA")
torch.library.register_fake("tilewright::call", _shapes, lib=_library)
torch.library.register_autograd(
    "tilewright::call", _operator_backward, setup_context=_setup, lib=_library)
