"""Linear layers and attention of a sequence with itself, which are few operators of a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch.nn import functional
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)
from torch_harness import check, compiled, losses, same

from tilewright.torch import builds
from tilewright.torch.linear_calls import gradient, linear

aten = torch.ops.aten


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[Any]]:
    """The operators of all programs that are built."""
    found: Counter[Any] = Counter()
    build = builds.Converter

    def counting(module: fx.GraphModule, *args: Any, **kwargs: Any) -> Any:
        found.update(n.target for n in module.graph.nodes if n.op == "call_function")
        return build(module, *args, **kwargs)
    monkeypatch.setattr(builds, "Converter", counting)
    torch._dynamo.reset()
    with torch._functorch.config.patch(enable_autograd_cache=False):
        yield found


# --- linear layers ----------------------------------------------------------------------
@pytest.mark.parametrize(("shape", "bias", "dtype"), [
    ((6, 5), True, torch.float32), ((2, 3, 5), False, torch.float32),
    ((2, 1, 3, 5), True, torch.float64)], ids=str)
def test_a_layer_is_one_operator(
    traced: Counter[Any], shape: tuple[int, ...], bias: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    given = [torch.randn(s, dtype=dtype) for s in (shape, (4, 5), (4,))[:2 + bias]]
    check(functional.linear, *(t.requires_grad_() for t in given))
    assert traced[linear] == traced[gradient] == 1
    assert aten.mm.default not in traced and aten.addmm.default not in traced


@pytest.mark.parametrize("wanted", [1, 2, 4, 6])
def test_gradients_that_somebody_wants(traced: Counter[Any], wanted: int) -> None:
    torch.manual_seed(0)
    given = [torch.randn(s) for s in ((2, 3, 5), (4, 5), (4,))]
    for i, t in enumerate(given):
        t.requires_grad_(bool(wanted >> i & 1))
    check(functional.linear, *given)
    assert traced[gradient] == 1


def test_what_no_gradient_needs_may_change(traced: Counter[Any]) -> None:
    torch.manual_seed(0)

    def f(x: Tensor, weight: Tensor) -> Tensor:
        y = x * 2
        return functional.linear(y, weight) + y.add_(1)
    check(f, torch.randn(3, 4).requires_grad_(), torch.randn(4, 4))
    assert traced[linear] == traced[gradient] == 1


def test_views_of_operands(traced: Counter[Any]) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 7, 5), torch.randn(5, 8), torch.randn(4, 2)
    check(lambda x, w, b: functional.linear(x.transpose(0, 1), w.t()[::2], b[:, 0]) + 1,
          *(t.requires_grad_() for t in (x, weight, bias)))
    assert traced[linear] == 1


def test_weights_that_are_shared(traced: Counter[Any]) -> None:
    torch.manual_seed(0)
    check(lambda x, w: functional.linear(functional.linear(x, w).relu(), w),
          torch.randn(3, 4).requires_grad_(), torch.randn(4, 4).requires_grad_())
    assert traced[linear] == traced[gradient] == 2


def test_without_gradients(traced: Counter[Any]) -> None:
    torch.manual_seed(0)
    check(functional.linear, torch.randn(2, 3, 5), torch.randn(4, 5), torch.randn(4))
    assert traced == {linear: 1}


@pytest.mark.parametrize(("shape", "dtype"), [
    ((5,), torch.float32), ((0, 5), torch.float32), ((3, 5), torch.bfloat16),
    ((3, 5), torch.complex64)], ids=str)
def test_others_are_pytorchs(
    traced: Counter[Any], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    given = [torch.randn(s, dtype=dtype).requires_grad_() for s in (shape, (4, 5), (4,))]
    run = torch.compile(functional.linear, backend="tilewright")
    same(run(*given), functional.linear(*given), rtol=2e-2, atol=2e-2)
    assert linear not in traced


def test_a_batch_of_any_size() -> None:
    torch.manual_seed(0)
    for n in (3, 5):
        check(functional.linear, *(
            torch.randn(s).requires_grad_() for s in ((n, 2, 6), (4, 6), (4,))), dynamic=True)


def test_graphs_of_other_backends_have_pytorchs_operators() -> None:
    found: list[Any] = []

    def look(module: fx.GraphModule, example_inputs: Any) -> Any:
        found.extend(n.target for n in module.graph.nodes if n.op == "call_function")
        return module
    x, weight = torch.randn(3, 5), torch.randn(4, 5, requires_grad=True)
    compiled(functional.linear)(x, weight).sum().backward()
    other = aot_autograd(fw_compiler=look, bw_compiler=look)
    torch.compile(functional.linear, backend=other)(x, weight).sum().backward()
    assert aten.mm.default in found and linear not in found


def test_policies_of_checkpoints_see_pytorchs_operators(traced: Counter[Any]) -> None:
    torch.manual_seed(0)

    def contexts() -> Any:
        def policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
            saved = op in (aten.addmm.default, aten.mm.default)
            return CheckpointPolicy.MUST_SAVE if saved else CheckpointPolicy.PREFER_RECOMPUTE
        return create_selective_checkpoint_contexts(policy)

    def f(x: Tensor, weight: Tensor) -> Any:
        return checkpoint(
            lambda x: functional.linear(x, weight).sin().exp(), x, use_reentrant=False,
            context_fn=contexts)
    given = [torch.randn(s).requires_grad_() for s in ((3, 4), (4, 4))]
    expected, made = f(*given), compiled(f)(*given)
    same(made, expected)
    same(torch.autograd.grad(made.sum(), given), torch.autograd.grad(expected.sum(), given))
    assert linear not in traced and traced[aten.mm.default] == 3


def test_what_the_operators_mean() -> None:
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(s).requires_grad_() for s in ((2, 3, 5), (4, 5), (4,)))
    expected = functional.linear(x, weight, bias)
    same(linear(x, weight, bias), expected)
    given = torch.randn(2, 3, 4)
    every = torch.autograd.grad(expected, (x, weight, bias), given)
    same(gradient(given, x, weight, True), list(every))
    same(gradient(given, x, None, False), [every[1]])
    same(gradient(given, None, weight, True), [every[0], every[2]])


# --- attention --------------------------------------------------------------------------
class Attention(nn.Module):
    """``nn.MultiheadAttention`` of a sequence with itself, causal or not."""

    def __init__(self, causal: bool, **options: Any) -> None:
        super().__init__()
        self.causal = causal
        self.layer = nn.MultiheadAttention(8, 2, **options)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        mask = None
        if self.causal:
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[self.layer.batch_first])
        found: Tensor = self.layer(
            x, x, x, need_weights=False, attn_mask=mask, is_causal=self.causal)[0]
        return found


def with_parameters(model: nn.Module, x: Tensor) -> None:
    """The result and all gradients, as eager's."""
    names = [n for n, _ in model.named_parameters()]

    def f(x: Tensor, *values: Tensor) -> Any:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,))
    check(f, x, *(p.detach().clone().requires_grad_() for p in model.parameters()))


@pytest.mark.parametrize(("options", "causal"), [
    ({"batch_first": True}, False), ({"batch_first": False}, True),
    ({"batch_first": True, "bias": False}, True),
    ({"batch_first": True, "dropout": 0.25}, False)], ids=str)
def test_attention_is_written_out(
    traced: Counter[Any], options: dict[str, Any], causal: bool
) -> None:
    torch.manual_seed(0)
    with_parameters(Attention(causal, **options), torch.randn(3, 5, 8).double().requires_grad_())
    assert traced[linear] == traced[gradient] == 2
    assert traced[aten.unbind.int] == 1 and aten.select.int not in traced


def test_attention_with_more_to_it_is_pytorchs(traced: Counter[Any]) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=True).requires_grad_(False)
    x = torch.randn(3, 5, 8)
    hidden = torch.zeros(3, 5, dtype=torch.bool)
    hidden[1, 3:] = True
    for f in (
        lambda x: layer(x, x, x),
        lambda x: layer(x, x, x, need_weights=False, key_padding_mask=hidden)[0],
        lambda x: layer(x, x, x * 2, need_weights=False)[0],
        lambda x: layer(x[0], x[0], x[0], need_weights=False)[0],
    ):
        check(f, x)
    assert aten.unbind.int not in traced


def test_a_transformer_is_trained_as_in_eager(traced: Counter[Any]) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    batches = [(torch.randn(3, 6, 16),) for _ in range(4)]

    def loss(run: Any, x: Tensor) -> Tensor:
        return (run(x) - x.flip(1)).square().mean()
    expected, made = (losses(model, batches, loss, ours, lr=0.1) for ours in (False, True))
    torch.testing.assert_close(made, expected)
    assert traced[linear] == traced[gradient] == 8 and traced[aten.unbind.int] == 2
