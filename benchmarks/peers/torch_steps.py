"""The workloads in PyTorch, as its users write them; eager, or under ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

_mode = ["torch-eager"]


def setup(peer: str, threads: int) -> None:
    """Choose the mode and the number of threads."""
    _mode[0] = peer
    torch.set_num_threads(threads)


def wait(result: Any) -> Any:
    """On a CPU torch is done when it returns."""
    return result


def numbers(array: Any) -> np.ndarray:
    """A tensor as a NumPy array."""
    return array.detach().numpy()


def tensors(tree: Any) -> Any:
    """Nested arrays as tensors with their own memory."""
    if isinstance(tree, dict):
        return {k: tensors(v) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map(tensors, tree))
    return torch.tensor(tree)


def compiled(function: Any) -> Any:
    """The function, compiled if that is the mode."""
    if _mode[0] != "torch-compile":
        return function
    torch._dynamo.reset()
    return torch.compile(function)


def inference(function: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """A builder: inputs -> the call on them without gradients."""
    def build(*inputs: Any) -> Callable[[], Any]:
        f, arguments = compiled(function), tensors(inputs)

        def call() -> Any:
            with torch.no_grad():
                return f(*arguments)
        return call
    return build


def gradient(
    function: Callable[..., Tensor], with_value: bool = False
) -> Callable[..., Callable[[], Any]]:
    """A builder: inputs -> the gradient by the first of them."""
    def build(*inputs: Any) -> Callable[[], Any]:
        f, arguments = compiled(function), tensors(inputs)
        arguments[0].requires_grad_()

        def call() -> Any:
            value = f(*arguments)
            grads = torch.autograd.grad(value, arguments[0])
            return (value, *grads) if with_value else grads
        return call
    return build


def training(model: nn.Module, optimiser: Any, loss: Callable[..., Tensor], *batch: Tensor) -> Any:
    """The usual training loop."""
    net = compiled(model)

    def call() -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        value = loss(net, *batch)
        value.backward()
        optimiser.step()
        return value
    return call


def assign(layer: nn.Linear, weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    """Give a linear layer these numbers."""
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight.T))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def black_scholes(spot: Tensor, strike: Tensor, time: Tensor) -> Tensor:
    """The price of a call option."""
    rate, volatility = 0.05, 0.2
    spread = volatility * torch.sqrt(time)
    high = (torch.log(spot / strike) + (rate + 0.5 * volatility ** 2) * time) / spread

    def cumulative(x: Tensor) -> Tensor:
        return 0.5 * (1 + torch.erf(x * 0.70710678))
    return spot * cumulative(high) - strike * torch.exp(-rate * time) * cumulative(high - spread)


def classifier(momentum: float) -> Callable[..., Callable[[], Any]]:
    """A builder of the training step of an MLP."""
    def build(layers: list[Any], x: np.ndarray, y: np.ndarray) -> Callable[[], Any]:
        modules: list[nn.Module] = []
        for w, b in layers:
            modules += [assign(nn.Linear(*w.shape), w, b), nn.ReLU()]
        net = nn.Sequential(*modules[:-1])
        optimiser = torch.optim.SGD(net.parameters(), 0.01, momentum=momentum)
        return training(
            net, optimiser, lambda f, x, y: F.cross_entropy(f(x), y), *tensors((x, y)))
    return build


class Block(nn.Module):
    """A transformer block with its norms in front."""

    def __init__(self, weights: dict[str, Any], heads: int) -> None:
        super().__init__()
        d, self.heads = weights["qkv"].shape[0], heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv = assign(nn.Linear(d, 3 * d), weights["qkv"], weights["qkv_b"])
        self.out = assign(nn.Linear(d, d), weights["out"], weights["out_b"])
        self.up = assign(nn.Linear(d, 4 * d), weights["up"], weights["up_b"])
        self.down = assign(nn.Linear(4 * d, d), weights["down"], weights["down_b"])

    def forward(self, x: Tensor) -> Tensor:
        """f32[batch, t, d] -> the same."""
        batch, t, d = x.shape
        joint = self.qkv(self.norm1(x)).view(batch, t, 3, self.heads, d // self.heads)
        q, k, v = joint.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    """A small GPT whose output layer is its embedding."""

    def __init__(self, weights: dict[str, Any], heads: int = 8) -> None:
        super().__init__()
        self.wte = nn.Embedding.from_pretrained(torch.tensor(weights["wte"]), freeze=False)
        self.wpe = nn.Embedding.from_pretrained(torch.tensor(weights["wpe"]), freeze=False)
        self.blocks = nn.ModuleList(Block(block, heads) for block in weights["blocks"])
        self.norm = nn.LayerNorm(weights["wte"].shape[1])

    def forward(self, ids: Tensor) -> Tensor:
        """Scores of the next tokens, f32[batch, t, vocabulary]."""
        x = self.wte(ids) + self.wpe.weight[:ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.wte.weight.T


def gpt_loss(net: Any, ids: Tensor) -> Tensor:
    """Cross entropy of the next tokens."""
    return F.cross_entropy(net(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def gpt_train(weights: dict[str, Any], ids: np.ndarray) -> Callable[[], Any]:
    """A builder of the training step of a GPT with Adam."""
    net = GPT(weights)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    return training(net, optimiser, gpt_loss, torch.tensor(ids))


def decode(weights: list[Any], x: Tensor) -> Tensor:
    """One token through eight residual blocks."""
    for up, down in weights:
        x = x + F.gelu(x @ up, approximate="tanh") @ down
    return x


def mlp(layers: list[Any], x: Tensor) -> Tensor:
    """Linear layers with relu between them."""
    for w, b in layers[:-1]:
        x = torch.relu(x @ w + b)
    return x @ layers[-1][0] + layers[-1][1]


def layer_norm_gelu_residual(x: Tensor, r: Tensor, g: Tensor, b: Tensor) -> Tensor:
    """Add, normalise, activate, add."""
    return F.gelu(F.layer_norm(x + r, (x.shape[-1],), g, b), approximate="tanh") + r


def steps() -> dict[str, Callable[..., Any]]:
    """A builder per kind of workload."""
    return {
        "linear": inference(F.linear),
        "matmul": inference(torch.matmul),
        "batched_matmul": inference(lambda a, b: a @ b.mT),
        "layer_norm_gelu_residual": inference(layer_norm_gelu_residual),
        "softmax": inference(lambda x: torch.softmax(x, -1)),
        "cross_entropy_grad": gradient(F.cross_entropy, with_value=True),
        "black_scholes": inference(black_scholes),
        "shifted_difference": inference(
            lambda x: sum((torch.diff(x, dim=a) ** 2).sum() for a in range(3))),
        "column_sum": inference(lambda x: x.sum(0)),
        "embedding_grad": gradient(lambda w, i: (w[i] ** 2).sum()),
        "mlp_train": classifier(0.0),
        "momentum_train": classifier(0.9),
        "gpt_forward": lambda weights, ids: inference(GPT(weights))(ids),
        "gpt_train": gpt_train,
        "decode": inference(decode),
        "dispatch": inference(lambda a, b: torch.tanh(a @ b) + 1),
        "dispatch_tree": inference(mlp),
    }
