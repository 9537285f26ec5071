"""One of two processes that train a model together; run by test_distributed.py.

Arguments: rank, file of the store, file of the results.
"""

from __future__ import annotations

import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tilewright.torch import backend, report

STEPS, ROWS = 3, 6


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 512), nn.GELU(), nn.LayerNorm(512), nn.Linear(512, 512), nn.Tanh(),
            nn.Linear(512, 512), nn.Linear(512, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


def network() -> nn.Module:
    torch.manual_seed(0)
    return Network()


def train(model: nn.Module, run: nn.Module, rank: int) -> list[torch.Tensor]:
    """The gradients of some steps on this rank's share of the data."""
    steps = torch.optim.SGD(model.parameters(), lr=0.1)
    random = torch.Generator().manual_seed(1)
    found = []
    for _ in range(STEPS):
        x, y = (torch.randn(2 * ROWS, n, generator=random) for n in (64, 8))
        own = slice(rank * ROWS, (rank + 1) * ROWS)
        steps.zero_grad()
        nn.functional.mse_loss(run(x[own]), y[own]).backward()
        found += [p.grad.clone() for p in model.parameters() if p.grad is not None]
        steps.step()
    return found


def main(rank: int, store: str, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2,
        timeout=timedelta(seconds=120))
    found = {}
    for kind in ("eager", "compiled"):
        # Small buckets: gradients of the last layers leave while the first are computed.
        model = DistributedDataParallel(network(), bucket_cap_mb=1)
        run = model
        if kind == "compiled":
            run = torch.compile(model, backend=backend, options={"fallback": False, "threads": 1})
        found[kind] = train(model, run, rank)
        if kind == "compiled":
            found["graphs"] = len(report(run).graphs)
            found["faults"] = [str(f) for f in report(run).faults]
    dist.destroy_process_group()
    torch.save(found, f"{results}.{rank}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
