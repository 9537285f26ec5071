"""Host memory of training a transformer with torch.compile: eager, Inductor, tilewright.

    python benchmarks/torch_memory.py [--steps 2000] [--layers 12] [--only tilewright inductor]

Every system trains in a process of its own. Told are, in MiB: what the process has before the model
is made, the highest that the first steps reach (compiling included), the highest of all later steps
(Linux: the mark is set back in between), and what it has after a twentieth and at the end of the
later steps: these two are the same if nothing grows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

KINDS = ("eager", "inductor", "tilewright")
FIRST = 3


def status(name: str) -> float:
    """MiB of a line of ``/proc/self/status``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


def work(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train with one system in this process."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        options.width, options.heads, 4 * options.width, dropout=0.0, activation="gelu",
        batch_first=True, norm_first=True)
    model: Any = nn.Sequential(
        nn.TransformerEncoder(layer, options.layers, enable_nested_tensor=False),
        nn.Linear(options.width, options.width))
    steps = torch.optim.AdamW(model.parameters(), lr=1e-4)
    x = torch.randn(options.batch, options.length, options.width)
    base = status("VmRSS")
    run = model if kind == "eager" else torch.compile(model, backend=kind)

    def step() -> float:
        steps.zero_grad()
        loss = (run(x) - x).square().mean()
        loss.backward()
        steps.step()
        return float(loss.item())

    start = time.perf_counter()
    for _ in range(FIRST):
        step()
    first, seconds = status("VmHWM"), time.perf_counter() - start
    Path("/proc/self/clear_refs").write_text("5")
    early, mark = 0.0, max(1, options.steps // 20)
    start = time.perf_counter()
    for i in range(options.steps):
        loss = step()
        if i + 1 == mark:
            early = status("VmRSS")
    return {
        "kind": kind, "base": base, "first": first, "peak": status("VmHWM"), "early": early,
        "end": status("VmRSS"), "compile_s": seconds,
        "step_ms": (time.perf_counter() - start) / options.steps * 1e3, "loss": loss,
    }


def main() -> None:
    """Run every system and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in (("steps", 2000), ("layers", 12), ("width", 256), ("heads", 4),
                        ("length", 128), ("batch", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--only", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--work", choices=KINDS, help="train with this system, here")
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(options.work, options)))
        return
    rows = []
    arguments = [a for a in sys.argv[1:] if a != "--only" and a not in KINDS]
    for kind in options.only:
        done = subprocess.run(
            [sys.executable, __file__, *arguments, "--work", kind], stdout=subprocess.PIPE,
            text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print("  ".join(
            f"{k} {v:.5g}" if isinstance(v, float) else str(v) for k, v in rows[-1].items()))
    peaks = {row["kind"]: row["peak"] for row in rows}
    if {"inductor", "tilewright"} <= set(peaks):
        print(f"peak, tilewright / inductor: {peaks['tilewright'] / peaks['inductor']:.3f}")


if __name__ == "__main__":
    main()
