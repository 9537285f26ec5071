"""What TorchDynamo does with a function that it cannot trace as a whole, kept for reports.

Where a graph cannot end it gives the function up, which then runs in PyTorch, and hands the backend
nothing. That it did is known where it asks for a function's translation, which is watched here.
"""

from __future__ import annotations

import functools
import inspect
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._dynamo import output_graph
from torch._dynamo.convert_frame import ConvertFrame
from torch._dynamo.utils import get_compilation_metrics

from tilewright.errors import Location
from tilewright.torch.lines import in_pytorch
from tilewright.torch.records import GraphBreak, break_of, owner_behind, owner_of, resumed, told_as

Function = Callable[..., Any]


@dataclass(frozen=True)
class Untraced:
    """A function of which TorchDynamo traced nothing, or nothing from a line on, and why."""

    name: str
    loc: Location
    why: GraphBreak

    def __str__(self) -> str:
        rest = "" if resumed(self.name)[1] is None else "the rest of "
        return f"{rest}{self.loc.function}, {self.loc}, runs in PyTorch: {self.why}"


_untraced: dict[Untraced, list[weakref.ref[Any]]] = {}
"""With what ``torch.compile`` made for the models in which they were met."""

_breaks: dict[GraphBreak, list[weakref.ref[Any]]] = {}
_lock = threading.Lock()


def untraced_of(model: Any) -> tuple[Untraced, ...]:
    """The functions of a model that were given up.

    One that was for another model is not asked for again: it runs in PyTorch for all.
    """
    owner, own = owner_of(model), _functions(model)
    with _lock:
        return tuple(u for u, owners in _untraced.items()
                     if _among(owner, owners) or any(_holds(f, u.loc) for f in own))


def breaks_of(model: Any) -> tuple[GraphBreak, ...]:
    """All graph breaks that were met in the functions of a model."""
    owner = owner_of(model)
    with _lock:
        return tuple(b for b, owners in _breaks.items() if _among(owner, owners))


def _among(owner: Any, owners: list[weakref.ref[Any]]) -> bool:
    return owner is not None and any(r() is owner for r in owners)


def _functions(model: Any) -> list[Any]:
    """The function of a model, or those of its modules."""
    own = getattr(model, "_orig_mod", model)
    found = ([m.forward for m in own.modules()] if isinstance(own, torch.nn.Module)
             else [getattr(own, "_torchdynamo_orig_callable", own)])
    return [inspect.unwrap(getattr(f, "__func__", f)) for f in found]


def _holds(function: Any, loc: Location) -> bool:
    """Whether a line is one of a function's."""
    code = getattr(function, "__code__", None)
    if code is None or (code.co_filename, code.co_name) != (loc.file, loc.function):
        return False
    lines = [line for _, _, line in code.co_lines() if line is not None]
    return bool(code.co_firstlineno <= loc.line <= max(lines, default=0))


def watch(backend: Function) -> None:
    """Remember from now on what happens to functions that are compiled with a backend."""
    convert = ConvertFrame.__call__

    @functools.wraps(convert)
    def call(
        self: Any, frame: Any, cache_entry: Any, hooks: Any, frame_state: Any, skip: int = 0
    ) -> Any:
        owner = owner_behind(self._torchdynamo_orig_backend)
        if getattr(owner, "compiler_fn", owner) is not backend:
            return convert(self, frame, cache_entry, hooks, frame_state, skip + 1)
        before = len(output_graph.graph_break_reasons)
        made = convert(self, frame, cache_entry, hooks, frame_state, skip + 1)
        breaks = [break_of(r) for r in output_graph.graph_break_reasons[before:]]
        _remember(owner, frame.f_code, breaks, made.guarded_code is None)
        return made
    ConvertFrame.__call__ = call  # type: ignore[method-assign]


def _remember(owner: Any, code: Any, breaks: list[GraphBreak], skipped: bool) -> None:
    last = get_compilation_metrics()[-1:] if skipped else []
    with _lock:
        for found in breaks:
            if found.loc is None or not in_pytorch(found.loc.file):
                _enter(_breaks, found, owner)
        if last and last[0].fail_reason and last[0].co_firstlineno == code.co_firstlineno:
            at = last[0]
            name = resumed(code.co_name)[0]
            start = Location(code.co_filename, code.co_firstlineno, name)
            loc = Location(at.fail_user_frame_filename or start.file,
                           at.fail_user_frame_lineno or start.line, name)
            _enter(_untraced, Untraced(code.co_name, start, told_as(at.fail_reason, loc)), owner)


def _enter(known: dict[Any, list[weakref.ref[Any]]], found: Any, owner: Any) -> None:
    owners = known.setdefault(found, [])
    owners[:] = [r for r in owners if r() is not None]
    if not _among(owner, owners):
        owners.append(weakref.ref(owner))


def kept_out(model: Any) -> str | None:
    """Why TorchDynamo is not asked for a model or function at all, if that can be seen."""
    found = _functions(model)[0]
    code = getattr(found, "__code__", None)
    at = f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "its function"
    own = getattr(getattr(model, "_orig_mod", model), "forward", None)
    if any(getattr(f, "_torchdynamo_disable", False) for f in (found, own)):
        return f"{at} is marked with torch.compiler.disable"
    if code is not None and code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE):
        return f"{at} is a generator or a coroutine, which TorchDynamo does not trace"
    return None
