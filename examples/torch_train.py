"""A small transformer learns to write like Python's documentation, eagerly and compiled.

    python examples/torch_train.py            # some minutes
    python examples/torch_train.py --quick    # some seconds of training

An ordinary PyTorch program: model, optimiser, loop. Compiled and eager differ in the one line that
``train`` has for it. Both start from the same weights and see the same batches, so their losses
are the same within rounding; the speed of both is printed at the end.

The text is what ``help()`` prints about the language; it comes with Python.
"""

from __future__ import annotations

import argparse
import time
from pydoc_data.topics import topics

import torch
from torch import nn
from torch.nn import functional

CHARACTERS = "".join(chr(i) for i in range(32, 127)) + "\n"


def text() -> torch.Tensor:
    """The documentation as numbers of characters."""
    place = {c: i for i, c in enumerate(CHARACTERS)}
    whole = "\n".join(topics[name] for name in sorted(topics))
    return torch.tensor([place[c] for c in whole if c in place])


class Attention(nn.Module):
    """Every character looks at those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(x).chunk(3, -1)
        )
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(seen.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Attention and a network for each character, both added to what there was."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Writer(nn.Module):
    """A transformer that guesses the next character."""

    def __init__(self, width: int, heads: int, layers: int, length: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(CHARACTERS), width)
        self.place = nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, len(CHARACTERS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def batches(data: torch.Tensor, count: int, size: int, length: int) -> list[torch.Tensor]:
    """Pieces of the text, one character longer than what the model sees."""
    random = torch.Generator().manual_seed(1)
    starts = torch.randint(len(data) - length - 1, (count, size), generator=random)
    return [torch.stack([data[i:i + length + 1] for i in row]) for row in starts.tolist()]


def train(options: argparse.Namespace, compiled: bool) -> tuple[list[float], list[float]]:
    """The loss and the seconds of every step."""
    torch.manual_seed(0)
    model: nn.Module = Writer(options.width, options.heads, options.layers, options.length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    if compiled:
        model = torch.compile(model, backend="tilewright")  # the one line
    losses, seconds = [], []
    for batch in batches(text(), options.steps, options.batch, options.length):
        start = time.perf_counter()
        optimizer.zero_grad()
        scores = model(batch[:, :-1])
        loss = functional.cross_entropy(scores.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    return losses, seconds


def main() -> None:
    """Train both ways and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in (("steps", 200), ("width", 256), ("heads", 4), ("layers", 4),
                        ("length", 128), ("batch", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--quick", action="store_true", help="a tiny model and few steps")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.width, options.layers = 20, 32, 2
        options.length, options.batch = 32, 4
    runs = {}
    for name, compiled in (("eager", False), ("tilewright", True)):
        losses, seconds = runs[name] = train(options, compiled)
        shown = [f"{losses[i]:.4f}" for i in range(0, len(losses), max(1, len(losses) // 5))]
        print(f"{name:>10}: loss {' '.join(shown)} ... {losses[-1]:.4f}; first step "
              f"{seconds[0]:.2f} s, then {1e3 * min(seconds[1:]):.2f} ms at best")
    (eager, before), (ours, after) = runs["eager"], runs["tilewright"]
    apart = max(abs(a - b) for a, b in zip(eager, ours, strict=True))
    print(f"losses differ by {apart:.1e} at most; a step takes "
          f"{min(before[1:]) / min(after[1:]):.2f} times as long without the line")


if __name__ == "__main__":
    main()
