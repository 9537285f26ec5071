"""Where in the user's program a traced operator comes from."""

from __future__ import annotations

import functools
import os
import re
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import fx

from tilewright.errors import Location
from tilewright.frontend.location import is_user_file

_FRAME = re.compile(r'File "(.*?)", line (\d+), in (\S+)')
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep


@functools.lru_cache(maxsize=4096)
def _innermost(trace: str) -> Location | None:
    frames = [Location(file, int(line), name) for file, line, name in _FRAME.findall(trace)]
    own = [f for f in frames if not f.file.startswith(_TORCH) and is_user_file(f.file)]
    return own[-1] if own else frames[-1] if frames else None


@dataclass(frozen=True, slots=True)
class ModuleLocation(Location):
    """A line of the user's program, and the path of the ``nn.Module`` that ran it."""

    module: str


def location_of(node: fx.Node) -> Location | None:
    """The innermost line outside of PyTorch on the stack where an operator was called.

    Where PyTorch's own modules call each other alone, the ``forward`` of the module that called it.
    """
    trace = node.meta.get("stack_trace")
    module = module_of(node)
    found = _innermost(trace) if trace else _forward_of(node)
    if found is None or not module:
        return found
    return ModuleLocation(found.file, found.line, found.function, module)


def _forward_of(node: fx.Node) -> Location | None:
    stack = _modules_of(node)
    kind: Any = list(stack.values())[-1][1] if stack else None
    code = getattr(getattr(kind, "forward", None), "__code__", None)
    if code is None:
        return None
    return Location(code.co_filename, code.co_firstlineno, f"{kind.__name__}.forward")


def module_path(loc: Location | None) -> str:
    """The path of the module at a location; empty where none ran it."""
    return loc.module if isinstance(loc, ModuleLocation) else ""


def module_of(node: fx.Node) -> str:
    """The path of the ``nn.Module`` that called an operator: ``blocks.3.attn.qkv``."""
    stack = _modules_of(node)
    if not stack:
        return ""
    return _path(list(stack.values())[-1][0])


def _modules_of(node: fx.Node) -> dict[str, Any]:
    found: dict[str, Any] = node.meta.get("nn_module_stack") or node.meta.get(
        "fwd_nn_module_stack") or {}
    return found


@functools.lru_cache(maxsize=4096)
def _path(source: str) -> str:
    """The path in the words of ``named_modules``, of one in Dynamo's: ``L['self'].a[0]``."""
    path = re.sub(r"^[LG]\['(\w+)'\]\.?", "", source)
    path = re.sub(r"\._modules\['([^']+)'\]", r".\1", path)
    return re.sub(r"\[(\d+)\]", r".\1", path).strip(".")


def in_pytorch(file: str) -> bool:
    """Whether a file is one of PyTorch's."""
    return file.startswith(_TORCH)


def user_line() -> Location | None:
    """The line of the user's program that runs now: neither ours nor PyTorch's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if is_user_file(file) and not file.startswith(_TORCH):
            return Location(file, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return None
