"""Operators of PyTorch that ask for data while they are traced, in other words for this backend.

PyTorch's own way through them ends a graph: it branches on a value, or makes a result whose size it
does not know. Where a graph is traced for this backend, by TorchDynamo and then by AOTAutograd, a
function of ours takes their place; what it returns has the types, values, errors and warnings of
PyTorch's. Graphs for other backends, and calls outside of graphs, are as they were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch._dynamo.symbolic_convert import tls
from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

from tilewright.torch.tracing import traced_for

Function = Callable[..., Any]

_ours: ContextVar[bool] = ContextVar("tilewright_traced", default=False)
_backends: list[Function] = []


@contextlib.contextmanager
def traced_for_us() -> Iterator[None]:
    """What AOTAutograd traces meanwhile is for this backend."""
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)


def ours() -> bool:
    """Whether AOTAutograd traces for this backend now."""
    return _ours.get()


def answers_for(backend: Function) -> None:
    """Graphs that TorchDynamo traces for this backend are ours."""
    _backends.append(backend)


def _asked() -> bool:
    """Whether what is traced now is for this backend.

    Inside of ``torch.func``'s transformations it is left as it is: looks have no rules for them.
    """
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    translator = getattr(tls, "current_tx", None)
    return _ours.get() or any(traced_for(translator, b) for b in _backends)


def instead_of(
    op: torch._ops.OpOverload, key: torch._C.DispatchKey | None = None
) -> Callable[[Function], Function]:
    """Enter a function for an operator; it returns ``NotImplemented`` to leave it to PyTorch.

    ``key`` is the dispatch key at which it is called, for one that is not composite.
    """
    at = torch._C.DispatchKey.CompositeImplicitAutograd if key is None else key

    def enter(function: Function) -> Function:
        def run(*args: Any, **kwargs: Any) -> Any:
            made = function(*args, **kwargs) if _asked() else NotImplemented
            return op._op_dk(at, *args, **kwargs) if made is NotImplemented else made
        op.py_impl(at)(run)
        return function
    return enter


def instead_of_formulas(op: torch._ops.OpOverload) -> Callable[[Function], Function]:
    """Enter a function in the place of the formulas that PyTorch traces an operator by."""
    def enter(function: Function) -> Function:
        def choice(known: Function) -> Function:
            return lambda *args, **kwargs: (function if _asked() else known)(*args, **kwargs)
        for key, known in list(op.py_kernels.items()):
            if callable(known):
                op.py_kernels[key] = choice(known)
        op._dispatch_cache.clear()
        return function
    return enter


def inlined_instead_of(original: Function) -> Callable[[Function], Function]:
    """Enter a function that TorchDynamo reads in place of one that it would call."""
    def enter(function: Function) -> Function:
        def handle(variable: Any, tx: Any, *args: Any, **kwargs: Any) -> Any:
            if not _asked():
                return None
            made = torch._dynamo.variables.base.VariableTracker.build(tx, function)
            return tx.inline_user_function_return(made, args, kwargs)
        handlers: dict[Function, Function] = TorchInGraphFunctionVariable._get_handlers()
        handlers.setdefault(original, handle)
        return function
    return enter
