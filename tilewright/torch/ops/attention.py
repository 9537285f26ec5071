"""Scaled dot product attention as PyTorch's kernel for CPUs has it.

Without dropout PyTorch traces attention as one operator that keeps the logarithm of each row's sum,
so that the backward computes the probabilities again rather than keep them (Dao et al. 2022). With
dropout, or on odd shapes, it traces products and a softmax.
"""

from __future__ import annotations

import math

import torch

from tilewright.ir import build
from tilewright.ir.graph import Node, make
from tilewright.ir.sizes import Dim
from tilewright.ir.types import bool_
from tilewright.torch.nodes import cast, expand, iota, number, reduce, wide
from tilewright.torch.ops.reductions import finite_rows
from tilewright.torch.table import Call, NotCompiled, row

aten = torch.ops.aten

BATCH, HEAD, SHARE, QUERY, KEY, WIDTH = range(6)
ROWS, COLUMNS = (BATCH, HEAD, SHARE, QUERY, WIDTH), (BATCH, HEAD, KEY, WIDTH)
SQUARE = (BATCH, HEAD, SHARE, QUERY, KEY)
"""Labels: ``SHARE`` counts the heads of queries that share one head of keys and values."""


def _scores(q: Node, k: Node, scale: float | None, causal: bool, mask: Node | None) -> Node:
    """The masked scores by ``SQUARE``; minus infinity where there is no attention."""
    factor = 1 / math.sqrt(int(q.shape[-1])) if scale is None else scale
    scores = build.contract(q, k, ROWS, COLUMNS, SQUARE) * factor
    batch, heads, share, queries, keys = scores.shape
    nothing = number(-math.inf, scores.dtype, scores.shape)
    if mask is not None:
        mask = build.reshape(
            expand(mask, (batch, heads * share, queries, keys)), scores.shape)
        if mask.dtype is bool_:
            scores = build.where(mask, scores, nothing)
        else:
            scores = scores + cast(mask, scores.dtype)
    if causal:
        seen = make("ge", (iota(scores.shape, 3), iota(scores.shape, 4)))
        scores = build.where(seen, scores, nothing)
    return scores


def _shared(x: Node, heads: Dim) -> Node:
    """Queries, or what is shaped like them, by ``ROWS``, in the type that PyTorch computes in."""
    batch, every, *rest = x.shape
    share: Dim = 1
    if every != heads:
        every, heads = int(every), int(heads)
        if every % heads:
            raise NotCompiled("heads of queries that are no multiple of those of keys")
        share = every // heads
    return build.reshape(cast(x, wide(x.dtype)), (batch, heads, share, *rest))


@row(aten._scaled_dot_product_flash_attention_for_cpu)
def attention(
    call: Call, query: Node, key: Node, value: Node, dropout_p: float = 0.0,
    is_causal: bool = False, *, attn_mask: Node | None = None, scale: float | None = None,
) -> list[Node]:
    if dropout_p:
        raise NotCompiled("attention with dropout as one operator")
    k, v = (cast(x, wide(x.dtype)) for x in (key, value))
    q = _shared(query, k.shape[1])
    scores = _scores(q, k, scale, is_causal, attn_mask)
    largest = finite_rows(reduce("reduce_max", scores, (4,), True))
    weights = make("exp", (scores - expand(largest, scores.shape),))
    total = reduce("sum", weights, (4,), True)
    # A row that attends to nothing gives zeros.
    empty = make("eq", (total, number(0, total.dtype, total.shape)))
    divisor = build.where(empty, number(1, total.dtype, total.shape), total)
    out = build.contract(weights / expand(divisor, weights.shape), v, SQUARE, COLUMNS, ROWS)
    logarithm = largest + make("log", (divisor,))
    return [build.reshape(x, t.shape) for x, t in zip((out, logarithm), call.out, strict=True)]


@row(aten._scaled_dot_product_flash_attention_for_cpu_backward)
def attention_backward(
    call: Call, grad_out: Node, query: Node, key: Node, value: Node, out: Node, logsumexp: Node,
    dropout_p: float, is_causal: bool, *, attn_mask: Node | None = None,
    scale: float | None = None,
) -> list[Node]:
    if dropout_p:
        raise NotCompiled("attention with dropout as one operator")
    k, v = (cast(x, wide(x.dtype)) for x in (key, value))
    q, g, y = (_shared(x, k.shape[1]) for x in (query, grad_out, out))
    factor = 1 / math.sqrt(int(q.shape[-1])) if scale is None else scale
    scores = _scores(q, k, scale, is_causal, attn_mask)
    known = build.reshape(cast(logsumexp, scores.dtype), (*scores.shape[:-1], 1))
    weights = make("exp", (scores - expand(known, scores.shape),))
    value_grad = build.contract(weights, g, SQUARE, ROWS, COLUMNS)
    weight_grad = build.contract(g, v, ROWS, COLUMNS, SQUARE)
    # The sum over keys of weight and its gradient is that over the width of result and gradient.
    shared = reduce("sum", g * y, (4,), True)
    score_grad = weights * (weight_grad - expand(shared, weights.shape)) * factor
    query_grad = build.contract(score_grad, k, SQUARE, COLUMNS, ROWS)
    key_grad = build.contract(score_grad, q, SQUARE, ROWS, COLUMNS)
    return [build.reshape(query_grad, query.shape), key_grad, value_grad]
