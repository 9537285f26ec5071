"""Looks at computed values: what PyTorch asks them and then raises, warns, or does nothing.

A part of a graph computes the answer; what follows from it is done when the part has run. A look
computes nothing, so it is no operator that is not compiled.
"""

from __future__ import annotations

import warnings

import torch
from torch._higher_order_ops.effects import _EffectType, _register_effectful_op

aten = torch.ops.aten

KINDS: dict[str, type[Exception]] = {
    "RuntimeError": RuntimeError, "ValueError": ValueError, "UserWarning": UserWarning,
}

_library = torch.library.Library("tilewright", "FRAGMENT")
_library.define("look(Tensor truth, str kind, str message) -> ()")


def _look(truth: torch.Tensor, kind: str, message: str) -> None:
    if not truth.any():
        return
    found = KINDS[kind](message)
    if not isinstance(found, Warning):
        raise found
    warnings.warn(found, stacklevel=2)


_library.impl("look", _look, "CPU")
_library.impl("look", lambda truth, kind, message: None, "Meta")
_register_effectful_op("tilewright::look", _EffectType.ORDERED)

look = torch.ops.tilewright.look.default
"""Raises or warns where ``truth`` holds: ``kind`` is the name of one of :data:`KINDS`."""

CHECK_ERRORS = aten._linalg_check_errors.default
"""Raises if a code of a factorisation is not 0."""

LOOKS = frozenset({CHECK_ERRORS, look})
"""Operators with effects, and no results, that do nothing where their first argument is 0."""

CHECKS = frozenset({
    aten._assert_scalar, aten._assert_tensor_metadata, aten.sym_constrain_range,
    aten.sym_constrain_range_for_size, torch.ops.prims._sink_tokens,
})
"""Operators without results that do nothing, or that PyTorch evaluates when it traces."""
