"""Times the first training step of a transformer with torch.compile: Inductor and tilewright.

    python benchmarks/torch_first_step.py [--layers 12] [--rounds 2] [--threads 1] [--quick]
        [--output FILE.json] [--markdown FILE.md]

Every figure is of a process of its own that has imported everything and compiled a tiny program.
Cold starts with empty caches on disk; warm is a second process that finds what the cold one left.
Systems take turns; of the rounds the shortest counts. Beside the time by the clock stands the
processors' time, of the process and its children (Inductor's C++ compiler), which a machine with
other work to do changes less. A step is forward, backward and SGD.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KINDS = ("inductor", "tilewright")
STARTS = ("cold", "warm")
RESULTS = Path(__file__).parent / "results" / "torch_first_step.json"


def processors() -> float:
    """Seconds of processor time of this process and of its children that ended."""
    return sum(
        use.ru_utime + use.ru_stime
        for use in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def work(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """The first step and a later one, in this process."""
    import torch
    from torch import nn

    torch.set_num_threads(options.threads)
    small = torch.compile(torch.sin, backend=kind, dynamic=False)
    small(torch.ones(2, requires_grad=True)).sum().backward()
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        options.width, 4, 4 * options.width, dropout=0.0, activation="gelu", batch_first=True,
        norm_first=True)
    model: Any = nn.Sequential(
        nn.TransformerEncoder(layer, options.layers, enable_nested_tensor=False),
        nn.Linear(options.width, options.width))
    steps = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.randn(options.batch, options.length, options.width)
    run = torch.compile(model, backend=kind, dynamic=False)

    def step() -> float:
        steps.zero_grad()
        loss = (run(x) - x).square().mean()
        loss.backward()
        steps.step()
        return float(loss.item())

    start, used = time.perf_counter(), processors()
    loss = step()
    row = {"first_s": time.perf_counter() - start, "processors_s": processors() - used}
    best = float("inf")
    for _ in range(options.steps):
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
    return {**row, "step_ms": best * 1e3, "loss": loss}


def measured(kind: str, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """One process whose caches are in this folder."""
    threads = str(options.threads)
    environment = {
        **os.environ, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/torch",
        "TILEWRIGHT_CACHE": f"{folder}/tilewright", "TILEWRIGHT_NUM_THREADS": threads,
        "OMP_NUM_THREADS": threads}
    arguments = [f"--{name}={getattr(options, name)}" for name in SIZES]
    done = subprocess.run(
        [sys.executable, __file__, "--work", kind, *arguments], env=environment,
        stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(best: dict[str, dict[str, Any]]) -> str:
    """The shortest times, and tilewright's share of Inductor's, as Markdown."""
    lines = ["| start | seconds | Inductor | tilewright | tilewright / Inductor |",
             "|---|---|--:|--:|--:|"]
    for start in STARTS:
        for name, field in (("by the clock", "first_s"), ("of processors", "processors_s")):
            theirs, ours = (best[f"{kind} {start}"][field] for kind in KINDS)
            lines.append(f"| {start} | {name} | {theirs:.2f} | {ours:.2f} | {ours / theirs:.3f} |")
    theirs, ours = (best[f"{kind} cold"]["step_ms"] for kind in KINDS)
    lines.append(
        f"| later | ms by the clock | {theirs:.1f} | {ours:.1f} | {ours / theirs:.3f} |")
    return "\n".join(lines)


SIZES = {"layers": 12, "width": 256, "batch": 4, "length": 128, "steps": 5, "threads": 1}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two layers, one round")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--work", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(options.work, options)))
        return
    if options.quick:
        options.layers, options.rounds = 2, 1
    best: dict[str, dict[str, Any]] = {}
    for _ in range(options.rounds):
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                for start in STARTS:
                    row = measured(kind, folder, options)
                    print(kind, start, {k: round(v, 3) for k, v in row.items()}, flush=True)
                    known = best.setdefault(f"{kind} {start}", row)
                    known.update({k: min(known[k], row[k]) for k in row})
    options.output.parent.mkdir(parents=True, exist_ok=True)
    facts = {name: getattr(options, name) for name in (*SIZES, "rounds")}
    options.output.write_text(json.dumps({**facts, "best": best}, indent=1) + "\n")
    print(table(best))
    if options.markdown:
        options.markdown.write_text(table(best) + "\n")


if __name__ == "__main__":
    main()
