"""What a call of a tiny compiled module costs: eager, Inductor and tilewright.

    python benchmarks/torch_calls.py [--rounds 20] [--calls 500]

A layer of 8 x 8 with a rectifier, one thread, everything compiled: microseconds of a call without
gradients, and of a forward with its backward. Of interleaved rounds the quickest counts. What is
computed takes less than a microsecond, so that the rest is PyTorch's and the backends' own.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from typing import Any

import torch

import tilewright as tw
from tilewright.torch import backend

PEERS: dict[str, Callable[[Any], Any]] = {
    "eager": lambda model: model,
    "Inductor": lambda model: torch.compile(model),
    "tilewright": lambda model: torch.compile(model, backend=backend),
}


def inference(model: Any, x: torch.Tensor) -> None:
    """A call without gradients."""
    with torch.no_grad():
        model(x)


def training(model: Any, x: torch.Tensor) -> None:
    """A forward and its backward."""
    model(x).sum().backward()


def seconds(work: Callable[[Any, torch.Tensor], None], model: Any, x: torch.Tensor, calls: int,
            ) -> float:
    """Seconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        work(model, x)
    return (time.perf_counter() - start) / calls


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    plain = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())
    x = torch.randn(8, 8)
    print("| a call | " + " | ".join(f"{peer} us" for peer in PEERS) + " | ours / Inductor |")
    print("|---" * (len(PEERS) + 2) + "|")
    with tw.threads(1):
        for work in (inference, training):
            models = {peer: make(copy.deepcopy(plain)) for peer, make in PEERS.items()}
            best = dict.fromkeys(models, float("inf"))
            for model in models.values():
                seconds(work, model, x, 50)
            for _ in range(options.rounds):
                for peer, model in models.items():
                    best[peer] = min(best[peer], seconds(work, model, x, options.calls))
            times = " | ".join(f"{1e6 * best[peer]:.1f}" for peer in PEERS)
            ratio = best["tilewright"] / best["Inductor"]
            print(f"| {work.__name__} | {times} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
