"""Where in the user's program a traced operator comes from."""

from __future__ import annotations

import functools
import os
import re

import torch
from torch import fx

from tilewright.errors import Location

_FRAME = re.compile(r'File "(.*?)", line (\d+), in (\S+)')
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep


@functools.lru_cache(maxsize=4096)
def _innermost(trace: str) -> Location | None:
    frames = [Location(file, int(line), name) for file, line, name in _FRAME.findall(trace)]
    own = [f for f in frames if not f.file.startswith(_TORCH)]
    return own[-1] if own else frames[-1] if frames else None


def location_of(node: fx.Node) -> Location | None:
    """The innermost line outside of PyTorch on the stack where an operator was called."""
    trace = node.meta.get("stack_trace")
    return _innermost(trace) if trace else None


def module_of(node: fx.Node) -> str:
    """The path of the ``nn.Module`` that called an operator: ``blocks.3.attn.qkv``."""
    stack = node.meta.get("nn_module_stack") or node.meta.get("fwd_nn_module_stack")
    if not stack:
        return ""
    path = list(stack.values())[-1][0]
    path = re.sub(r"^L\['(\w+)'\]\.?", "", path)
    path = re.sub(r"\._modules\['([^']+)'\]", r".\1", path)
    return re.sub(r"\[(\d+)\]", r".\1", path).strip(".")
