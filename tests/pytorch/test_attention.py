"""Attention as one operator and as its parts."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import scaled_dot_product_attention
from torch_harness import check

from tilewright.torch.convert import Converter


def inputs(length: int = 5, keys: int = 7, width: int = 4) -> list[torch.Tensor]:
    shapes = (2, 3, length, width), (2, 3, keys, width), (2, 3, keys, width)
    return [torch.randn(s, requires_grad=True) for s in shapes]


def test_plain() -> None:
    check(scaled_dot_product_attention, *inputs())


def test_scale() -> None:
    check(lambda q, k, v: scaled_dot_product_attention(q, k, v, scale=0.3), *inputs())


@pytest.mark.parametrize(("length", "keys"), [(6, 6), (4, 7), (7, 4)])
def test_causal(length: int, keys: int) -> None:
    check(lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True),
          *inputs(length, keys))


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 5, 7), (2, 1, 1, 7), (3, 5, 7)])
def test_masks(shape: tuple[int, ...]) -> None:
    mask = torch.rand(shape) < 0.6 if len(shape) % 2 else torch.randn(shape)
    check(lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=mask), *inputs())


def test_rows_that_attend_to_nothing() -> None:
    mask = torch.ones(5, 7, dtype=torch.bool)
    mask[2] = False
    check(lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=mask), *inputs())


def test_dropout() -> None:
    check(lambda q, k, v: scaled_dot_product_attention(q, k, v, dropout_p=0.3), *inputs())


def test_fewer_heads_of_keys() -> None:
    q, k, v = torch.randn(2, 4, 5, 4), torch.randn(2, 2, 7, 4), torch.randn(2, 2, 7, 4)
    for x in (q, k, v):
        x.requires_grad_()
    check(lambda q, k, v: scaled_dot_product_attention(q, k, v, enable_gqa=True), q, k, v)


def test_heads_that_are_views() -> None:
    x = torch.randn(2, 6, 3 * 8, requires_grad=True)

    def f(x: torch.Tensor) -> torch.Tensor:
        q, k, v = (p.view(2, 6, 2, 4).transpose(1, 2) for p in x.split(8, 2))
        return scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
    check(f, x)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_safe_softmax(dim: int) -> None:
    x = torch.randn(4, 5)
    x[2] = -torch.inf
    x[:, 3] = -torch.inf
    x[1, 1] = torch.nan
    check(lambda x: torch.ops.aten._safe_softmax(x, dim), x)


def test_any_number_of_heads() -> None:
    shape = (2, 2, 5, 4)
    check(lambda x: scaled_dot_product_attention(x, x, x, is_causal=True),
          torch.randn(shape, requires_grad=True), dynamic=True)


def test_a_call_of_attention_is_a_fallback() -> None:
    x = torch.randn(2, 2, 5, 4)
    operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    module = make_fx(lambda x: operator(x, x, x), tracing_mode="fake")(x)
    [node] = module.graph.find_nodes(op="call_function", target=operator)
    [found] = Converter(module, {}, {node: "it failed"}).recipe().fallbacks
    assert found.target == str(operator)
    assert found.reason == "it failed"
