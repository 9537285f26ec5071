"""Runs PyTorch's operator samples, eager against compiled, and writes the table of the docs.

    python tests/pytorch/opinfo_run.py --jobs 2 --table docs/torch-operators.md
    python tests/pytorch/opinfo_run.py --only 'interpolate|pad' --most 10

Samples run in worker processes: one that ends, or hangs, is a crash of its sample and no more.
"""

from __future__ import annotations

import argparse
import collections
import json
import queue
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

KINDS = ("compiled", "fallback", "break", "wrong", "crash", "skipped")
MISSING = "the operator is not in the table"
MEMORY = 6 << 30
"""Bytes after which a worker gives way to a fresh one: what was compiled stays in a process."""


# --- a worker -----------------------------------------------------------------------------
def work() -> None:
    """Operators by line, as ``index first-sample dtype most``; one line of JSON per event."""
    import os
    import resource

    import opinfo
    import torch

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what operators print is no event
    torch.set_num_threads(1)

    def say(**event: Any) -> None:
        print(json.dumps(event), file=out, flush=True)

    for line in sys.stdin:
        request = json.loads(line)
        dtype = getattr(torch, request["dtype"])
        op = opinfo.operators(dtype)[request["index"]]
        try:
            samples = list(opinfo.samples(op, dtype, request["most"]))
        except Exception as error:
            say(at=0, kind="skipped", fallbacks=[], message=repr(error)[:300])
            samples = []
        for i, sample in enumerate(samples):
            if i < request["first"]:
                continue
            say(begin=i, count=len(samples))
            outcome = opinfo.check(op, sample)
            say(at=i, kind=outcome.kind, fallbacks=outcome.fallbacks, message=outcome.message)
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        say(done=True, full=used > MEMORY)


class Worker:
    """A process that runs samples."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True)

    def ask(self, request: dict[str, Any]) -> None:
        """Start an operator."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def event(self, seconds: float) -> dict[str, Any] | None:
        """The next event; None if the process ended or was silent for so long."""
        assert self.process.stdout is not None
        timer = threading.Timer(seconds, self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        return json.loads(line) if line else None

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


# --- all operators ------------------------------------------------------------------------
def run_all(
    names: list[tuple[int, str]], dtype: str, most: int | None, jobs: int, seconds: float,
) -> dict[str, list[dict[str, Any]]]:
    """The outcome of every sample, by operator."""
    todo: queue.Queue[tuple[int, str]] = queue.Queue()
    for item in names:
        todo.put(item)
    results: dict[str, list[dict[str, Any]]] = {name: [] for _, name in names}

    def job() -> None:
        worker = Worker()
        while True:
            try:
                index, name = todo.get_nowait()
            except queue.Empty:
                break
            request = {"index": index, "dtype": dtype, "most": most}
            worker = run_operator(worker, request, results[name], seconds)
            counts = collections.Counter(r["kind"] for r in results[name])
            print(f"{name:50} {dict(counts)}", file=sys.stderr, flush=True)
        worker.close()

    threads = [threading.Thread(target=job) for _ in range(jobs)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return results


def run_operator(
    worker: Worker, request: dict[str, Any], found: list[dict[str, Any]], seconds: float
) -> Worker:
    """Fill in the outcomes of one operator's samples; the worker to go on with."""
    first, current = 0, 0
    worker.ask({**request, "first": first})
    while True:
        event = worker.event(seconds)
        if event is None:
            code = worker.process.wait()
            found.append({"at": current, "kind": "crash", "fallbacks": [],
                          "message": f"the process ended with {code}"})
            worker.close()
            worker = Worker()
            worker.ask({**request, "first": current + 1})
            current += 1
        elif event.get("done"):
            if event["full"]:
                worker.close()
                worker = Worker()
            return worker
        elif "begin" in event:
            current = event["begin"]
        else:
            found.append(event)


# --- what is written ----------------------------------------------------------------------
def summary(results: dict[str, list[dict[str, Any]]]) -> str:
    """Totals, and the operators that ran in PyTorch by the number of samples they reached."""
    every = [r for found in results.values() for r in found]
    counts = collections.Counter(r["kind"] for r in every)
    ran = sum(n for kind, n in counts.items() if kind != "skipped")
    lines = [f"{len(results)} operators, {ran} samples: " + ", ".join(
        f"{counts[k]} {k} ({100 * counts[k] / max(1, ran):.1f} %)" for k in KINDS if counts[k])]
    reached: collections.Counter[str] = collections.Counter()
    for r in every:
        for key in {f"{target}: {reason}" for target, reason in r["fallbacks"]}:
            reached[key] += 1
    lines += [f"{n:6} {key}" for key, n in reached.most_common()]
    for name, found in results.items():
        bad = [r for r in found if r["kind"] in ("wrong", "crash")]
        if bad:
            lines.append(f"{name}: {len(bad)} {bad[0]['kind']}: {bad[0]['message'][:2000]}")
    return "\n".join(lines)


def table(results: dict[str, list[dict[str, Any]]], dtype: str, most: int | None) -> str:
    """The page of the docs."""
    which = "every sample" if most is None else f"up to {most} samples, evenly spread, of those"
    limit = "" if most is None else f" --most {most}"
    every = [r for found in results.values() for r in found if r["kind"] != "skipped"]
    counts = collections.Counter(r["kind"] for r in every)
    share = {k: f"{counts[k]} ({100 * counts[k] / max(1, len(every)):.1f} %)" for k in KINDS}
    whole = sum(1 for found in results.values() if found and all(
        r["kind"] in ("compiled", "skipped") for r in found))
    lines = [
        "# PyTorch's operators, compiled", "",
        f"Made by `python tests/pytorch/opinfo_run.py --dtype {dtype}{limit} --table "
        f"docs/torch-operators.md`: {which}",
        "that PyTorch has of each of its operators "
        "(`torch.testing._internal.common_methods_invocations.op_db`) for",
        f"`{dtype}`, forward and gradient, eager against the backend of `torch.compile`.", "",
        "- **compiled**: all of it is compiled and agrees with eager PyTorch (eigenvectors and "
        "singular vectors up to",
        "  their signs, eigenvalues of matrices that are not symmetric in any order; a look at "
        "whether something",
        "  failed, after it, is no call)",
        "- **partly**: operators that are not compiled are called in PyTorch between compiled "
        "parts; agrees",
        "- **broken**: PyTorch cannot trace it as one graph (sizes of results or branches depend "
        "on data,",
        "  sparse tensors): it runs in PyTorch, or in parts around the break; agrees",
        "- **wrong**, **crash**: what they say", "",
        "| operators | all samples compiled | samples | compiled | partly | broken | wrong "
        "| crash |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
        f"| {len(results)} | {whole} | {len(every)} | {share['compiled']} | {share['fallback']} "
        f"| {share['break']} | {share['wrong']} | {share['crash']} |", "",
        "| operator | samples | compiled | partly | broken | wrong | crash | called in PyTorch |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for name, found in sorted(results.items()):
        own = collections.Counter(r["kind"] for r in found)
        ran = len(found) - own["skipped"]
        if not ran:
            continue
        cells = [str(own[k]) if own[k] else "" for k in KINDS[:5]]
        lines.append(f"| `{name}` | {ran} | " + " | ".join(cells) + f" | {called(found)} |")
    return "\n".join(lines) + "\n"


def called(found: list[dict[str, Any]]) -> str:
    """What ran in PyTorch, and why if there is a row for it."""
    reasons: dict[str, set[str]] = {}
    for outcome in found:
        for target, reason in outcome["fallbacks"]:
            reasons.setdefault(target.removeprefix("aten."), set()).add(reason)
    return ", ".join(
        f"`{target}`" + ("" if MISSING in why else f" ({', '.join(sorted(why))})")
        for target, why in sorted(reasons.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="operators whose names this expression finds")
    parser.add_argument("--dtype", default="float32", help="element type of the samples")
    parser.add_argument("--most", type=int, help="samples per operator, evenly spread; all if not")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes")
    parser.add_argument("--seconds", type=float, default=600, help="after which a sample hangs")
    parser.add_argument("--json", type=Path, help="file for the outcome of every sample")
    parser.add_argument("--rest", type=Path, help="such a file, for the operators not run")
    parser.add_argument("--table", type=Path, help="file for the table")
    options = parser.parse_args()
    if options.worker:
        work()
        return
    import opinfo
    import torch

    names = [(i, opinfo.name_of(op))
             for i, op in enumerate(opinfo.operators(getattr(torch, options.dtype)))
             if re.search(options.only, opinfo.name_of(op))]
    results = run_all(names, options.dtype, options.most, options.jobs, options.seconds)
    if options.rest:
        results = {**json.loads(options.rest.read_text()), **results}
    print(summary(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    if options.table:
        options.table.write_text(table(results, options.dtype, options.most))


if __name__ == "__main__":
    main()
