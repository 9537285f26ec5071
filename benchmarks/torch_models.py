"""Times a training step of whole PyTorch networks: eager, Inductor and tilewright.

    python benchmarks/torch_models.py [--only NAME ...] [--rounds 5] [--seconds 1] [--threads 2]
        [--without PEER ...] [--quick] [--again] [--output FILE.json] [--markdown FILE.md]

The networks are those of ``tests/pytorch``, at moderate sizes. Each gets a process of its own, in
which all peers train a copy in interleaved rounds; of a peer's rounds the shortest counts. Cold is
the first step, with empty disk caches and everything imported. A step is forward, backward and the
update by PyTorch's own optimiser. Beside the times stand the three slowest kernels of tilewright,
each with the module and the line that it comes from; those of equal layers count together.

A network's row is written when it is measured. A run goes on where one with the same settings
ended, unless it is to measure --again. --quick is one short round of one layer each, to try it.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "pytorch"), str(ROOT)]

PEERS = ("eager", "inductor", "tilewright")
RESULTS = Path(__file__).parent / "results" / "torch_models.json"
PAUSE = 0.3
"""Seconds between measurements: a peer's spinning threads go to sleep."""

COLD = {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1", "TILEWRIGHT_CACHE": "off"}


def sizes(quick: bool = False) -> dict[str, Any]:
    """The size of every network."""
    from model_cases import Size
    from plain_cases import PLAIN
    from transformers_cases import TRANSFORMERS

    text = Size(width=256, layers=4, heads=4, words=8192, length=128, batch=8, image=64,
                blocks=(3, 3))
    pictures = replace(text, width=32, heads=4, batch=16)
    found = {name: text for name in (*PLAIN, *TRANSFORMERS)}
    found["mlp"] = replace(text, batch=256)
    found["vae"] = replace(text, width=128, image=28, batch=256)
    found["dlrm"] = replace(text, width=64, batch=512)
    found["lenet"] = replace(pictures, image=28, batch=128)
    found["resnet18"] = found["resnet50"] = replace(pictures, width=32, blocks=(2, 2, 2, 2))
    for name in ("mobilenet", "unet", "diffusion", "convnext"):
        found[name] = pictures
    found["dcgan"] = replace(pictures, width=64, batch=64)
    found["swin"] = replace(pictures, width=64, image=32)
    for name in ("lstm", "gru"):
        found[name] = replace(text, length=32, batch=32)
    # Mamba's loop over time is unrolled by tracing.
    found["mamba"] = replace(text, length=16, layers=2)
    if quick:
        return {name: replace(size, layers=1, batch=2) for name, size in found.items()}
    return found


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
    total = sum(profile.kernels.values())
    alike: dict[tuple[int, int], list[tuple[Any, float]]] = {}
    for (part, number), seconds in profile.kernels.items():
        alike.setdefault((part.native.address, number), []).append((part, seconds))
    order = sorted(alike.items(), key=lambda entry: -sum(s for _, s in entry[1]))[:3]
    found = []
    for (_, number), runs in order:
        part, seconds = runs[0][0], sum(s for _, s in runs)
        kernel = part.program.plan.launches[number].kernel
        loc = kernel.loc
        found.append({
            "kernel": re.sub(r"_[0-9a-f]{8}$", "", kernel.name), "kind": kinds[part],
            "runs": len(runs),
            "milliseconds": seconds * 1e3, "share": seconds / total, "module": module_path(loc),
            "line": f"{Path(loc.file).name}:{loc.line}" if loc is not None else ""})
    return found


def named(kernel: dict[str, Any]) -> str:
    """A kernel in words: ``12 x layer.3.mlp.up: contract_gelu (model.py:31) 8%``."""
    many = f"{kernel['runs']} x " if kernel["runs"] > 1 else ""
    place = f"{kernel['module']}: " if kernel["module"] else ""
    line = f", {kernel['line']}" if kernel["line"] else ""
    return f"{many}{place}`{kernel['kernel']}` ({kernel['kind']}{line}) {kernel['share']:.0%}"


def timed(step: Callable[[], Any], seconds: float) -> float:
    """Seconds per step, over at least this time and at least two steps."""
    steps, start = 0, time.perf_counter()
    while steps < 2 or time.perf_counter() - start < seconds:
        step()
        steps += 1
    return (time.perf_counter() - start) / steps


def measure(
    name: str, size: Any, peers: list[str], rounds: int, seconds: float, threads: int
) -> Any:
    """One network with every peer, in this process."""
    import torch
    from plain_cases import PLAIN
    from transformers_cases import TRANSFORMERS

    import tilewright as tw

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    case = {**PLAIN, **TRANSFORMERS}[name]
    torch.manual_seed(0)
    model, batch = case.build(size), case.batch(size)
    row: dict[str, Any] = {"model": name, "threads": threads, "size": vars_of(size),
                           "parameters": sum(p.numel() for p in model.parameters())}
    with tw.threads(threads):
        steps: dict[str, Callable[[], Any]] = {}
        for peer in peers:
            compile = compiler(peer)
            compile(torch.nn.Linear(2, 2))(torch.ones(2, 2)).sum().backward()  # imports
            step = case.step(copy.deepcopy(model), compile)
            steps[peer] = lambda step=step: step(batch)  # type: ignore[misc]
            start = time.perf_counter()
            first = steps[peer]().item()
            row[peer] = {"cold": time.perf_counter() - start, "first_loss": first}
        for peer in peers:
            steps[peer]()
        for _ in range(rounds):
            for peer in peers:
                time.sleep(PAUSE)
                steps[peer]()
                spent = timed(steps[peer], seconds)
                row[peer]["step"] = min(row[peer].get("step", spent), spent)
        if "tilewright" in peers:
            row["slowest"] = slowest(steps["tilewright"])
            row["fallbacks"] = fallbacks()
    return row


def fallbacks() -> list[str]:
    """The operators that ran in PyTorch, and programs that tilewright failed to compile."""
    from tilewright.torch.records import regions

    records = [r for region in regions() for r in region.records]
    found = {f.target for r in records for p in r.programs for f in p.recipe.fallbacks}
    return sorted(found) + [f.message.splitlines()[0] for r in records for f in r.faults]


def vars_of(size: Any) -> dict[str, Any]:
    """The fields of a size."""
    return {name: getattr(size, name) for name in size.__dataclass_fields__}


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "| network | eager ms | Inductor ms | tilewright ms | eager / ours | Inductor / ours "
        "| cold: Inductor s | ours s | slowest kernels (share of all kernels) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['model']} | {row['error']} |" + " |" * 7)
            continue
        found = {peer: row.get(peer, {}) for peer in PEERS}
        ours = found["tilewright"].get("step")
        cells = [row["model"]] + [number(found[p].get("step"), 1e3) for p in PEERS]
        cells += [number(ratio(found[p].get("step"), ours)) for p in ("eager", "inductor")]
        cells += [number(found[p].get("cold")) for p in ("inductor", "tilewright")]
        cells.append("; ".join(map(named, row.get("slowest", ()))))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratio(theirs: float | None, ours: float | None) -> float | None:
    """Above 1, ours is quicker."""
    return theirs / ours if theirs is not None and ours else None


def number(value: float | None, scale: float = 1.0) -> str:
    """Three digits."""
    return "-" if value is None else f"{value * scale:.3g}"


def in_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A network in a process of its own, with empty caches."""
    command = [sys.executable, __file__, "--one", name, "--rounds", str(options.rounds),
               "--seconds", str(options.seconds), "--threads", str(options.threads),
               "--without", *options.without, *(["--quick"] if options.quick else [])]
    done = subprocess.run(
        command, env={**os.environ, **COLD}, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no result"])[-1]
        return {"model": name, "error": last[:200]}
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--without", nargs="*", default=[], choices=PEERS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--again", action="store_true", help="measure what is in the output too")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 0.2
    if options.one:
        peers = [p for p in PEERS if p not in options.without]
        row = measure(options.one, sizes(options.quick)[options.one], peers, options.rounds,
                      options.seconds, options.threads)
        print(json.dumps(row))
        return
    run(options)


def run(options: argparse.Namespace) -> None:
    """Measure the networks that the output lacks."""
    settings = {n: getattr(options, n)
                for n in ("rounds", "seconds", "threads", "without", "quick")}
    rows = {}
    if options.output.exists() and not options.again:
        kept = json.loads(options.output.read_text())
        rows = {r["model"]: r for r in kept if r.get("settings") == settings and "error" not in r}
    for name in options.only or sizes():
        if name not in rows:
            rows[name] = {**in_process(name, options), "settings": settings}
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
        print(table([rows[name]]).splitlines()[-1], flush=True)
        if options.markdown:
            options.markdown.write_text(table(list(rows.values())) + "\n")


if __name__ == "__main__":
    main()
