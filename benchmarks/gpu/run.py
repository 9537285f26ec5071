"""Build, check and time every case on a GPU with tilewright and its peers, in one run.

    python benchmarks/gpu/run.py [--only NAME ...] [--target cuda] [--rounds 5] [--out FILE]
    python benchmarks/gpu/run.py --target sim

Results are compared with the truth in f64 (training steps: with the loss of the same step on the
CPU). Times are the device's own, between events around calls that follow each other, on copies of
random inputs that together are larger than the L2 cache; the peers take turns in rounds. Peers are
PyTorch's eager kernels (cuBLAS, cuDNN; attention by the quickest of its own, FlashAttention among
them) and Inductor's (Triton, for products too), where PyTorch has CUDA. A peer that fails on a case
is a line below it, and the others go on.

With ``--target sim`` tiny cases of the same kinds are checked in the simulator, and nothing is
timed. The exit code is 1 if a result of ours is wrong.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(1, str(HERE.parent))

import numpy as np  # noqa: E402
import tilewright_steps  # noqa: E402
from cases import FULL, TINY, Case, compared  # noqa: E402
from ours import Ours  # noqa: E402
from report import heading, lines  # noqa: E402

import tilewright as tw  # noqa: E402
from tilewright.errors import TilewrightError  # noqa: E402

MOST_COPIES, MOST_CALLS = 64, 2000
SECONDS = 0.05
"""About what one measurement takes."""


def nbytes(tree: Any) -> int:
    """Bytes of nested arrays."""
    if isinstance(tree, dict):
        return sum(map(nbytes, tree.values()))
    if isinstance(tree, list | tuple):
        return sum(map(nbytes, tree))
    return int(np.asarray(tree).nbytes)


def copies_of(case: Case, inputs: tuple[Any, ...], l2: int) -> int:
    """How many copies of the inputs are larger than twice the L2 cache."""
    if not case.rotates:
        return 1
    return max(2, min(MOST_COPIES, -(-2 * l2 // max(nbytes(inputs), 1))))


def difference(case: Case, result: np.ndarray, inputs: tuple[Any, ...], loss: float) -> float:
    """How far a result is from what it should be, over its magnitude."""
    if case.truth is not None:
        return compared(case, result, inputs)
    return float(np.abs(np.mean(np.abs(result)) - loss) / abs(loss))


def loss_on_cpu(case: Case, inputs: tuple[Any, ...]) -> float:
    """The mean magnitude of the first result of a step, compiled for the CPU."""
    copies = tw.tree.map(np.array, inputs)  # steps may write over what they are given
    result = tilewright_steps.steps()[case.kind](*copies)()
    while isinstance(result, tuple | list):
        result = result[0]
    return float(np.mean(np.abs(result)))


def built(peer: Any, case: Case, inputs: tuple[Any, ...], copies: int, loss: float) -> Any:
    """A peer's calls and the row of its check; no calls if it fails."""
    row: dict[str, Any] = {"case": case.name, "peer": peer.name}
    try:
        calls = peer.make(case, inputs, copies)
        row["difference"] = difference(case, peer.numbers(calls[0]()), inputs, loss)
    except Exception as error:
        return [], row | {"error": failure(error)}
    if not row["difference"] <= case.tolerance:
        row["error"] = f"differs by {row['difference']:.2g}, more than {case.tolerance:g}"
    return calls, row


def case_rows(case: Case, peers: list[Any], rounds: int, l2: int) -> list[dict[str, Any]]:
    """One case with every peer: built, checked, and timed in rounds if there are any."""
    inputs = case.inputs(np.random.default_rng(0))
    loss = loss_on_cpu(case, inputs) if case.truth is None else 0.0
    copies = copies_of(case, inputs, l2)
    with ExitStack() as switches:
        for peer in peers:
            switches.enter_context(peer.precision(case))
        made = [(peer, *built(peer, case, inputs, copies, loss)) for peer in peers]
        if rounds:
            measure([entry for entry in made if entry[1]], rounds)
    return [row for _, _, row in made]


def measure(made: list[tuple[Any, list[Any], dict[str, Any]]], rounds: int) -> None:
    """Time what was built, the peers in turn, and put the times into their rows."""
    counts, times = [0] * len(made), [[] for _ in made]
    for i, (peer, calls, row) in enumerate(made):
        try:
            for call in calls:
                call()
            once = peer.measure(calls, 3)
            counts[i] = max(3, min(MOST_CALLS, int(SECONDS * 1e3 / max(once, 1e-6))))
        except Exception as error:
            row["error"] = failure(error)
    for _ in range(rounds):
        for (peer, calls, row), count, found in zip(made, counts, times, strict=True):
            try:
                if count:
                    found.append(peer.measure(calls, count))
            except Exception as error:
                row["error"] = failure(error)
    for (_, _, row), found in zip(made, times, strict=True):
        if len(found) == rounds:
            row |= {"min_ms": min(found), "median_ms": statistics.median(found)}


def failure(error: Exception) -> str:
    """The kind of an error and the beginning of its message."""
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:200]}"


def peers_of(options: argparse.Namespace) -> list[Any]:
    """tilewright, and PyTorch's two where PyTorch has a GPU."""
    peers: list[Any] = [Ours(options.target)]
    if options.target == "sim":
        return peers
    try:
        import torch_peer
    except ImportError:
        print("# PyTorch is not installed: its columns are left out")
        return peers
    if not torch_peer.available():
        print("# this PyTorch has no CUDA: its columns are left out")
        return peers
    return [*peers, *(torch_peer.Torch(name) for name in ("torch", "triton"))]


def commit() -> str:
    """The commit of this tree, with a mark if it was changed since."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, text=True,
                          capture_output=True)
    return done.stdout.strip() or "unknown"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time tilewright and its peers on a GPU.")
    parser.add_argument("--target", default="cuda", help="cuda, cuda:1, or sim: tiny, untimed")
    parser.add_argument("--only", nargs="*", help="names of cases, or how they begin")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="default benchmarks/results/gpu.json, "
                                                 "gpu-partial.json with --only, none for sim")
    options = parser.parse_args()
    cases = TINY if options.target == "sim" else FULL
    chosen = tuple(options.only) if options.only else ("",)
    options.cases = [case for name, case in cases.items() if name.startswith(chosen)]
    if not options.cases:
        parser.error(f"no case begins with {chosen[0]}; there are {', '.join(cases)}")
    return options


def main() -> None:
    """Run as a script."""
    options = arguments()
    timed = options.target != "sim"
    try:
        peers = peers_of(options)
    except TilewrightError as error:
        sys.exit(f"there is no GPU to measure on: {error}\n"
                 "--target sim checks tiny cases without one")
    driver = peers[0].driver
    result: dict[str, Any] = {
        "command": " ".join(["python benchmarks/gpu/run.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "commit": commit(), "device": driver.properties.title, "target": driver.name,
        "copy_gbs": peers[0].copy_rate() / 1e9 if timed else None, "rows": [],
    }
    print(f"# {result['device']}, commit {result['commit']}" + (
        f", copies {result['copy_gbs']:.0f} GB/s" if timed else ": checks alone, no times"))
    print(heading(timed), flush=True)
    for case in options.cases:
        rows = case_rows(case, peers, options.rounds if timed else 0, driver.properties.l2)
        result["rows"] += rows
        print("\n".join(lines(case, rows, result["copy_gbs"])), flush=True)
    name = "gpu-partial.json" if options.only else "gpu.json"
    out = options.out or (HERE.parent / "results" / name if timed else None)
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"# written to {out}")
    wrong = [r["case"] for r in result["rows"] if r["peer"] == Ours.name and "error" in r]
    if wrong:
        sys.exit(f"wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
