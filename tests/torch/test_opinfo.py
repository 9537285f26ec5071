"""PyTorch's own samples of its operators: all of the operator compiled, results as eager's."""

from __future__ import annotations

import functools
from typing import Any

import opinfo
import pytest
import torch

COMPILED = """
    abs add addcmul addmm all amax any arange argmax argmin atan2 baddbmm bmm cat clamp clone
    constant_pad_nd copysign cos div.no_rounding_mode div.floor_rounding eq exp expand flip fmod
    full isnan log_softmax logaddexp masked_fill matmul mean mm mul
    nn.functional.binary_cross_entropy nn.functional.embedding nn.functional.gelu
    nn.functional.layer_norm nn.functional.linear nn.functional.mse_loss
    nn.functional.silu nn.functional.softplus permute pow repeat round select slice softmax
    sqrt squeeze stack std sub sum t tanh transpose tril triu unbind unsqueeze var view where
""".split()
"""Operators of which every sample is compiled."""


@functools.cache
def by_name() -> dict[str, Any]:
    return {opinfo.name_of(op): op for op in opinfo.operators(torch.float32)}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_and_as_eager(name: str) -> None:
    for sample in opinfo.samples(by_name()[name], torch.float32, 2):
        outcome = opinfo.check(by_name()[name], sample)
        assert outcome.kind in ("compiled", "skipped"), outcome
