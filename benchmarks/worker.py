"""Runs workloads with one peer: on its own, a JSON line each; or under ``run.py``, on command.

    python benchmarks/worker.py --peer jax [--threads 1] [--only NAME ...] [--seconds 2]

The peer's own interpreter runs this file, so it needs nothing but NumPy and that peer. With
``--serve`` it reads one JSON command per line from standard input and answers each with one line:
``{"make": name}`` builds a workload and times its first call, ``{"run": seconds}`` measures it.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

PEERS = {
    "tilewright": "tilewright_steps",
    "numpy": "peers.numpy_steps",
    "jax": "peers.jax_steps",
    "torch-eager": "peers.torch_steps",
    "torch-compile": "peers.torch_steps",
}
"""The module of each peer. It has ``setup(peer, threads)``, ``steps()`` with a builder per kind of
workload, ``wait(result)`` and ``numbers(array)``."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TILEWRIGHT_NUM_THREADS",
)

NO_DISK_CACHES = {"TILEWRIGHT_CACHE": "off", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
"""A first call is that of a user whose machine has never seen the program."""


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def confine(threads: int) -> None:
    """Keep this process to that many cores and tell the libraries so, before they are loaded."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    os.environ.update(NO_DISK_CACHES)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores()[:threads])


def first(result: Any) -> Any:
    """The first array in nested results."""
    while isinstance(result, tuple | list | dict):
        result = next(iter(result.values() if isinstance(result, dict) else result))
    return result


class Worker:
    """One peer in this process, with at most one workload at a time."""

    def __init__(self, peer: str, threads: int) -> None:
        confine(threads)
        begin = time.perf_counter()
        self.peer, self.threads = peer, threads
        self.module = importlib.import_module(PEERS[peer])
        self.module.setup(peer, threads)
        self.steps: dict[str, Callable[..., Any]] = self.module.steps()
        self.import_ms = (time.perf_counter() - begin) * 1e3
        self.workloads = importlib.import_module("workloads")
        self.call: Callable[[], Any] | None = None

    def once(self) -> float:
        """Seconds of one measurement."""
        begin = time.perf_counter()
        self.module.wait(self.call())  # type: ignore[misc]
        return time.perf_counter() - begin

    def make(self, name: str) -> dict[str, Any]:
        """Build a workload; its first call is the cold one."""
        self.call = None
        gc.collect()
        workload = self.workloads.WORKLOADS[name]
        if workload.kind not in self.steps:
            return {"missing": True}
        one = self.steps[workload.kind](*self.workloads.inputs_of(name))
        if one is None:
            return {"missing": True}
        begin = time.perf_counter()
        result = self.module.wait(one())
        cold = time.perf_counter() - begin
        self.call = one if workload.repeat == 1 else repeated(one, workload.repeat)
        digest = float(abs(self.module.numbers(first(result)).astype("float64")).mean())
        return {"cold_ms": cold * 1e3, "digest": digest}

    def run(self, seconds: float) -> dict[str, Any]:
        """Measure for about so many seconds, at least three times after a warm-up."""
        self.once()
        times: list[float] = []
        begin = time.perf_counter()
        while len(times) < 3 or (time.perf_counter() - begin < seconds and len(times) < 1000):
            times.append(self.once())
        return {"min_ms": min(times) * 1e3, "median_ms": statistics.median(times) * 1e3,
                "runs": len(times)}


def repeated(one: Callable[[], Any], times: int) -> Callable[[], Any]:
    """A measurement of that many calls."""
    def call() -> Any:
        for _ in range(times):
            result = one()
        return result
    return call


def serve(worker: Worker, answers: Any) -> None:
    """Answer commands until the input ends."""
    print(json.dumps({"ready": worker.peer, "import_ms": worker.import_ms}), file=answers)
    for line in sys.stdin:
        command = json.loads(line)
        if "make" in command:
            answer = attempt(worker.make, command["make"])
        else:
            answer = attempt(worker.run, command["run"])
        print(json.dumps(answer), file=answers)


def attempt(action: Callable[..., dict[str, Any]], argument: Any) -> dict[str, Any]:
    """The answer, or the error in the place of it."""
    try:
        return action(argument)
    except Exception as error:
        traceback.print_exc()
        lines = str(error).splitlines() or [""]
        return {"error": f"{type(error).__name__}: {lines[0][:200]}"}


def alone(worker: Worker, names: list[str], seconds: float, answers: Any) -> None:
    """One JSON line per workload."""
    for name in names:
        made = attempt(worker.make, name)
        if "missing" not in made:
            row = {"workload": name, "peer": worker.peer, "threads": worker.threads, **made}
            if "error" not in made:
                row |= attempt(worker.run, seconds)
            rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
            print(json.dumps(rounded), file=answers)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description="Time workloads with one peer.")
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--threads", type=int, default=len(cores()))
    parser.add_argument("--only", nargs="*", default=None, help="names of workloads; default all")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--serve", action="store_true", help="take commands from standard input")
    options = parser.parse_args()
    # Whatever a library prints goes to standard error: standard output carries the answers only.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker(options.peer, options.threads)
    if options.serve:
        serve(worker, answers)
    else:
        names = options.only or list(worker.workloads.WORKLOADS)
        alone(worker, names, options.seconds, answers)


if __name__ == "__main__":
    main()
