"""Times a training step of whole PyTorch networks: eager, Inductor and tilewright.

    python benchmarks/torch_models.py [--only NAME ...] [--rounds 5] [--seconds 1] [--threads 2]
        [--without PEER ...] [--quick] [--again] [--output FILE.json] [--markdown FILE.md]

The networks are those of ``tests/pytorch``, at moderate sizes. Every peer trains one in a process
of its own, in interleaved rounds; of a peer's rounds the shortest counts. Cold is the first step,
with empty disk caches and everything imported. A step is forward, backward and the update by
PyTorch's own optimiser. Beside the times stand the three slowest kernels of tilewright, each with
the module and the line that it comes from; those of equal layers count together.

A network's row is written when it is measured. A run goes on where one with the same settings
ended, unless it is to measure --again. --quick is one short round of one layer each, to try it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "pytorch"), str(ROOT)]

PEERS = ("eager", "inductor", "tilewright")
WORKER = Path(__file__).with_name("torch_model_worker.py")
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


def vars_of(size: Any) -> dict[str, Any]:
    """The fields of a size."""
    return {name: getattr(size, name) for name in size.__dataclass_fields__}


class Peer:
    """The process of one peer, which has run its first step."""

    def __init__(self, name: str, peer: str, options: argparse.Namespace) -> None:
        command = [sys.executable, str(WORKER), name, peer, "--threads", str(options.threads),
                   *(["--quick"] if options.quick else [])]
        self.said = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command, env={**os.environ, **COLD}, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.said)
        self.first = self.answer()

    def answer(self) -> Any:
        """The next line; a RuntimeError with the last thing that it said if there is none."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.said.seek(0)
            raise RuntimeError((self.said.read().strip().splitlines() or ["no result"])[-1][:200])
        return json.loads(line)

    def ask(self, line: object) -> Any:
        """The answer to a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.said.close()


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One network with every peer: first steps one after the other, then rounds."""
    row: dict[str, Any] = {"model": name, "size": vars_of(sizes(options.quick)[name])}
    peers: dict[str, Peer] = {}
    try:
        for peer in PEERS:
            if peer not in options.without:
                peers[peer] = Peer(name, peer, options)
                row[peer] = peers[peer].first
        for _ in range(options.rounds):
            for peer, process in peers.items():
                time.sleep(PAUSE)
                spent = process.ask(options.seconds)
                row[peer]["step"] = min(row[peer].get("step", spent), spent)
        if "tilewright" in peers:
            row |= peers["tilewright"].ask("kernels")
    except RuntimeError as error:
        row["error"] = str(error)
    finally:
        for process in peers.values():
            process.close()
    return row


def named(kernel: dict[str, Any]) -> str:
    """A kernel in words: ``12 x layer.3.mlp.up: contract_gelu (model.py:31) 8%``."""
    many = f"{kernel['runs']} x " if kernel["runs"] > 1 else ""
    place = f"{kernel['module']}: " if kernel["module"] else ""
    line = f", {kernel['line']}" if kernel["line"] else ""
    return f"{many}{place}`{kernel['kernel']}` ({kernel['kind']}{line}) {kernel['share']:.0%}"


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


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[])
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
            rows[name] = {**measure(name, options), "settings": settings}
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
        print(table([rows[name]]).splitlines()[-1], flush=True)
        if options.markdown:
            options.markdown.write_text(table(list(rows.values())) + "\n")


if __name__ == "__main__":
    main()
