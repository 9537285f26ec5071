"""Random numbers: PyTorch's generator draws them, in its order, from its seed.

A draw is a call of PyTorch ahead of the compiled program; what is done with the numbers (scaling,
masking) is compiled. So a compiled model sees the same masks as an eager one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._functorch.compile_utils import rand_ops
from torch._guards import detect_fake_mode

_library = torch.library.Library("tilewright", "DEF")
_library.define(
    "bernoulli(SymInt[] size, SymInt[] stride, float p, *, Device? device=None) -> Tensor",
    tags=[torch.Tag.nondeterministic_seeded],
)


def _draw(size: Any, stride: Any, p: float, *, device: Any = None) -> torch.Tensor:
    drawn = torch.empty_strided(size, stride, dtype=torch.bool, device=device)
    return drawn if drawn.is_meta else drawn.bernoulli_(p)


_library.impl("bernoulli", _draw, "CompositeExplicitAutograd")
rand_ops.append(torch.ops.tilewright.bernoulli)  # two equal calls are two draws


def native_dropout(x: torch.Tensor, p: float, train: bool | None) -> Any:
    """Dropout and its mask, of numbers that eager PyTorch would draw."""
    if not train or p == 0:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    if p == 1:
        return torch.zeros_like(x), torch.zeros_like(x, dtype=torch.bool)
    # Eager PyTorch draws in the order in which a tensor like this one lies in memory.
    stride = torch.empty_like(x).stride()
    mask = torch.ops.tilewright.bernoulli(x.shape, stride, 1 - p, device=x.device)
    return x * mask * (1.0 / (1.0 - p)), mask


SAVED, AGAIN = (
    torch.ops.higher_order.run_and_save_rng_state, torch.ops.higher_order.run_with_rng_state)
"""What checkpointing makes of draws: one that tells the generator's state, one that repeats it."""


def draws(node: fx.Node) -> bool:
    """Whether a node takes numbers from PyTorch's generator, or sets it as it was once."""
    target: Any = node.target
    return target in (SAVED, AGAIN) or (
        torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()))


def draws_again(node: fx.Node) -> None:
    """Note the results of checkpointing's operators, which tracing leaves out."""
    if node.target not in (SAVED, AGAIN) or node.meta.get("val") is not None:
        return
    given = fx.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    (*before, operator), args = given[0][:1 + (node.target is AGAIN)], given[0]
    mode = detect_fake_mode([n.meta.get("val") for n in node.graph.nodes])
    with mode or contextlib.nullcontext():
        made = operator(*args[1 + len(before):], **given[1])
        state = torch.empty(torch.get_rng_state().shape, dtype=torch.uint8)
    node.meta["val"] = made if node.target is AGAIN else (state, made)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.native_dropout.default: native_dropout,
}
