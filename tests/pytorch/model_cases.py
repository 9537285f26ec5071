"""The networks that must train: builders of any size, batches, and one way to train them all.

``tests/pytorch/test_models.py`` trains each of them at a tiny size, ``benchmarks/torch_models.py``
times a step of larger ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Batch = tuple[Tensor, ...]
Compile = Callable[[nn.Module], Callable[..., Any]]


@dataclass(frozen=True)
class Size:
    """How large a network is. ``image`` is the side of square images."""

    width: int = 16
    layers: int = 1
    heads: int = 2
    words: int = 61
    length: int = 8
    batch: int = 2
    image: int = 16
    blocks: tuple[int, ...] = (1, 1)


TINY = Size()


def adamw(parameters: Any, lr: float) -> torch.optim.Optimizer:
    """AdamW whose step is small where a gradient is mere rounding, as of biases before a norm."""
    return torch.optim.AdamW(parameters, lr=lr, eps=1e-4)


@dataclass(frozen=True)
class Case:
    """A network and how it is trained.

    build      the networks that are trained (most cases: one)
    batch      random inputs and targets
    loss       of the (compiled) networks on a batch
    optimizer  of all parameters
    why        what is set so that PyTorch traces one graph
    """

    build: Callable[[Size], nn.Module]
    batch: Callable[[Size], Batch]
    loss: Callable[..., Tensor]
    optimizer: Callable[..., torch.optim.Optimizer] = adamw
    rate: float = 1e-3
    why: str = ""

    def train(
        self, model: nn.Module, batches: Sequence[Batch], compile: Compile
    ) -> tuple[list[float], dict[str, Tensor]]:
        """The losses of one step per batch, and the parameters and buffers after the last."""
        step = self.step(model, compile)
        torch.manual_seed(7)
        losses = [step(batch).item() for batch in batches]
        return losses, dict(model.state_dict())

    def step(self, model: nn.Module, compile: Compile) -> Callable[[Batch], Tensor]:
        """One step of training: forward, backward, update."""
        if isinstance(model, Adversaries):
            return model.step(self, compile)
        model.train()
        run = compile(model)
        optimizer = self.optimizer(model.parameters(), lr=self.rate)

        def step(batch: Batch) -> Tensor:
            optimizer.zero_grad()
            value = self.loss(run, *batch)
            value.backward()
            optimizer.step()
            return value.detach()
        return step


class Adversaries(nn.Module):
    """A generator and a discriminator, each with an optimiser, trained in turns."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def step(self, case: Case, compile: Compile) -> Callable[[Batch], Tensor]:
        """One step of both; the loss is the sum of theirs."""
        generate, judge = compile(self.generator), compile(self.discriminator)
        ours = case.optimizer(self.generator.parameters(), lr=case.rate)
        theirs = case.optimizer(self.discriminator.parameters(), lr=case.rate)
        score = functional.binary_cross_entropy_with_logits

        def step(batch: Batch) -> Tensor:
            noise, real = batch
            yes, no = torch.ones(len(real)), torch.zeros(len(real))
            theirs.zero_grad()
            fake = generate(noise)
            caught = score(judge(real), yes) + score(judge(fake.detach()), no)
            caught.backward()
            theirs.step()
            ours.zero_grad()
            passed = score(judge(fake), yes)
            passed.backward()
            ours.step()
            return (caught + passed).detach()
        return step


# --- batches and losses -----------------------------------------------------------------
def tokens(s: Size) -> Tensor:
    """Random words."""
    return torch.randint(3, s.words, (s.batch, s.length))


def images(channels: int = 3) -> Callable[[Size], Batch]:
    """Random images and their classes."""
    def batch(s: Size) -> Batch:
        return torch.randn(s.batch, channels, s.image, s.image), torch.randint(0, 10, (s.batch,))
    return batch


def classified(model: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Cross entropy of logits (batch, classes)."""
    return functional.cross_entropy(model(x), y)


def next_word(model: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Cross entropy of logits (batch, length, words)."""
    return functional.cross_entropy(model(x).flatten(0, 1), y.flatten())


def own_loss(*names: str) -> Callable[..., Tensor]:
    """The loss that a network of ``transformers`` computes from inputs with these names."""
    def loss(model: Callable[..., Any], *batch: Tensor) -> Tensor:
        found: Tensor = model(**dict(zip(names, batch, strict=True))).loss
        return found
    return loss
