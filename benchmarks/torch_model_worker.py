"""One peer's training step of one network, for ``torch_models.py``, which talks to it by lines.

    python benchmarks/torch_model_worker.py NETWORK PEER [--threads 2] [--quick]

The first line of the output has the first step's seconds and loss. Then a line of input, a number
of seconds, is answered by the seconds per step over at least that time, and ``kernels`` by the
three slowest kernels and by what ran in PyTorch. A peer has a process of its own since what
TorchDynamo decides for one holds for the code: a forward that it leaves to eager for one backend
is eager for all.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "pytorch"), str(ROOT)]


def compiler(peer: str) -> Callable[[Any], Any]:
    """How a peer runs a network."""
    import torch

    if peer == "eager":
        return lambda model: model
    if peer == "inductor":
        return lambda model: torch.compile(model, dynamic=False)
    from tilewright.torch import backend

    return lambda model: torch.compile(model, backend=backend, dynamic=False)


def slowest(step: Callable[[], Any]) -> list[dict[str, Any]]:
    """The three kernels of tilewright that take the longest."""
    from tilewright.torch.lines import module_path
    from tilewright.torch.profile import Profile, watching
    from tilewright.torch.records import regions

    profile = Profile()
    programs = [p for r in regions() for record in r.records for p in record.programs]
    kinds = {part: program.record.kind for program in programs for part in program.parts}
    with watching(programs, profile, kernels=True):
        for _ in range(3):
            step()
    total = sum(part.times * seconds for (part, _), seconds in profile.kernels.items())
    alike: dict[tuple[int, int], list[tuple[Any, float]]] = {}
    for (part, number), seconds in profile.kernels.items():
        alike.setdefault((part.native.address, number), []).append((part, part.times * seconds))
    order = sorted(alike.items(), key=lambda entry: -sum(s for _, s in entry[1]))[:3]
    found = []
    for (_, number), runs in order:
        part, seconds = runs[0][0], sum(s for _, s in runs)
        kernel = part.program.plan.launches[number].kernel
        loc = kernel.loc
        found.append({
            "kernel": re.sub(r"_[0-9a-f]{8}$", "", kernel.name), "kind": kinds[part],
            "runs": sum(part.times for part, _ in runs),
            "milliseconds": seconds * 1e3, "share": seconds / total, "module": module_path(loc),
            "line": f"{Path(loc.file).name}:{loc.line}" if loc is not None else ""})
    return found


def timed(step: Callable[[], Any], seconds: float) -> float:
    """Seconds per step, over at least this time and at least two steps."""
    steps, start = 0, time.perf_counter()
    while steps < 2 or time.perf_counter() - start < seconds:
        step()
        steps += 1
    return (time.perf_counter() - start) / steps


def step_of(name: str, peer: str, size: Any) -> tuple[Callable[[], Any], int]:
    """A step of training, not run yet, and how many parameters it trains."""
    import torch
    from plain_cases import PLAIN
    from transformers_cases import TRANSFORMERS

    case = {**PLAIN, **TRANSFORMERS}[name]
    torch.manual_seed(0)
    model, batch = case.build(size), case.batch(size)
    compile = compiler(peer)
    compile(torch.nn.Linear(2, 2))(torch.ones(2, 2)).sum().backward()  # imports
    step = case.step(model, compile)
    return lambda: step(batch), sum(p.numel() for p in model.parameters())


def fallbacks() -> list[str]:
    """The operators that ran in PyTorch, and programs that tilewright failed to compile."""
    from tilewright.torch.records import regions

    records = [r for region in regions() for r in region.records]
    found = {f.target for r in records for p in r.programs for f in p.recipe.fallbacks}
    return sorted(found) + [f.message.splitlines()[0] for r in records for f in r.faults]


def main() -> None:
    """Run the first step, then answer."""
    import torch
    from torch_models import sizes

    import tilewright as tw

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("peer")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    answers, sys.stdout = sys.stdout, sys.stderr
    with tw.threads(options.threads):
        size = sizes(options.quick)[options.network]
        step, parameters = step_of(options.network, options.peer, size)
        start = time.perf_counter()
        loss = step().item()
        answer: Any = {"cold": time.perf_counter() - start, "first_loss": loss,
                       "parameters": parameters}
        step()
        print(json.dumps(answer), file=answers, flush=True)
        for line in sys.stdin:
            if line.strip() == "kernels":
                answer = {"slowest": slowest(step), "fallbacks": fallbacks()}
            else:
                step()
                answer = timed(step, float(line))
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
