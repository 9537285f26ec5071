"""What TorchDynamo does otherwise while it traces a graph for this backend.

Its settings hold for a process and for every backend. Those here answer for who asks: they look at
which backend the graph is for that is being traced, and are as PyTorch has them for the others.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch._dynamo import convert_frame
from torch._dynamo.callback import callback_handler
from torch._dynamo.eval_frame import innermost_backend

from tilewright.compiler.collector import collector_at_rest

Function = Callable[..., Any]


class RecurrentLayers(int):
    """``allow_rnn``: whether recurrent layers become part of a graph.

    It is a 0, since PyTorch writes its settings to logs.
    """

    function: Function

    def __bool__(self) -> bool:
        asking = sys._getframe(1).f_locals.get("self")
        return traced_for(getattr(asking, "tx", None), self.function)


class Loggers(set[Any]):
    """``ignore_logging_functions``: methods of loggers that do not end a graph.

    Beside those that a user enters they are the methods which remember what they were called with
    and say it once (``warning_once`` of ``transformers``). What those say while a graph is traced
    is said then, and the graph goes on.
    """

    def __init__(self, function: Function, entries: Any = ()) -> None:
        super().__init__(entries)
        self.function = function

    def __contains__(self, method: object) -> bool:
        return super().__contains__(method) or self._said(sys._getframe(1).f_locals)

    def __repr__(self) -> str:
        return repr(set(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Loggers:
        """PyTorch's settings are copied for a thread that reads them first."""
        return Loggers(self.function, self)

    def __reduce__(self) -> tuple[Any, ...]:
        return set, (list(self),)

    def _said(self, call: dict[str, Any]) -> bool:
        """Whether TorchDynamo's frame is such a call, which has then been done."""
        logger, name = getattr(call.get("self"), "value", None), call.get("name")
        if not isinstance(name, str) or not traced_for(call.get("tx"), self.function):
            return False
        if not isinstance(getattr(type(logger), name, None), functools._lru_cache_wrapper):
            return False
        try:
            args = [a.as_python_constant() for a in call["args"]]
            kwargs = {k: v.as_python_constant() for k, v in call["kwargs"].items()}
            return getattr(logger, name)(*args, **kwargs) is None
        except Exception:  # it is called again, outside of a graph, and raises there
            return False


def traced_for(translator: Any, function: Function) -> bool:
    """Whether the graph of one of TorchDynamo's translators is for a backend."""
    return _is(getattr(getattr(translator, "output", None), "compiler_fn", None), function)


def _is(compiler: Any, function: Function) -> bool:
    """Whether a backend in PyTorch's wrappers is this one."""
    compiler = innermost_backend(compiler)
    return getattr(compiler, "compiler_fn", compiler) is function


def collector_rests_for(function: Function) -> None:
    """Python's cyclic collector rests while TorchDynamo traces and compiles for this backend.

    PyTorch tells of each compilation as it begins; what ends with it is on a stack of contexts of
    the function that tells.
    """
    def begin(about: object) -> None:
        frame: FrameType | None = sys._getframe(1)
        stack = None
        while frame is not None and frame.f_code is not _COMPILE:
            stack = frame.f_locals.get("stack", stack)
            frame = frame.f_back
        compiler = None if frame is None else frame.f_locals.get("compiler_fn")
        if isinstance(stack, contextlib.ExitStack) and _is(compiler, function):
            stack.enter_context(collector_at_rest())
    callback_handler.register_start_callback(begin)


_COMPILE = getattr(getattr(convert_frame, "_compile", None), "__code__", None)
"""The code of TorchDynamo's function for one graph."""


def trace_for(function: Function) -> None:
    """From now on, and in every thread, graphs for this backend are traced with these settings.

    What a user has set or sets stays in force.
    """
    layers = RecurrentLayers()
    layers.function = function
    _by_default("allow_rnn", layers)
    _by_default("ignore_logging_functions", Loggers(function))
    config = torch._dynamo.config
    entries = getattr(config, "ignore_logging_functions", None)
    if type(entries) is set:  # PyTorch has copied its default, or a user has set it
        config.ignore_logging_functions = Loggers(function, entries)


def _by_default(name: str, value: Any) -> None:
    """Another default of a setting; a setting itself would hold for the current thread alone."""
    entry = torch._dynamo.config._config.get(name)  # type: ignore[attr-defined]
    if entry is not None and not entry.default:
        entry.default = value
