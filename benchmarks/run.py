"""Time every workload with tilewright and its peers, side by side, and print how they compare.

    python benchmarks/run.py [--only NAME ...] [--seconds 1] [--rounds 3] [--threads 1 2]
                             [--jax-python PATH] [--torch-python PATH] [--peers NAME ...]

Each peer lives in its own process, in its own environment, and holds one workload at a time. In
every round each peer measures in turn while the others wait, so that a slow minute of the machine
hits all of them. The peaks of the machine are measured in the same run. Everything goes into one
JSON file under ``benchmarks/results``; ``table.py`` makes the README's table of it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import queue
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import peak
import table
from worker import PEERS, cores
from workloads import WORKLOADS

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".venv-bench"
COLD = ("mlp_train",)
"""Workloads whose first call is also timed in fresh processes."""

COMPILERS = ("tilewright", "jax", "torch-compile")
"""The peers that have something to compile."""

REST = 0.03
"""Seconds between measurements: a peer's spinning threads go to sleep."""


class Remote:
    """A peer in a process of its own."""

    def __init__(self, peer: str, python: str, threads: int) -> None:
        self.peer, self.python, self.threads = peer, python, threads
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.Queue[str] = queue.Queue()

    def start(self) -> None:
        """Start the process; its first answer comes when its imports are done."""
        self.process = subprocess.Popen(
            [self.python, str(HERE / "worker.py"), "--peer", self.peer, "--serve",
             "--threads", str(self.threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            stderr=None if os.environ.get("BENCH_VERBOSE") else subprocess.DEVNULL)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, self.lines), daemon=True).start()
        answer = self._answer(300)
        if "error" in answer:
            raise RuntimeError(f"{self.peer} does not start with {self.python}: {answer['error']}")

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    def _answer(self, seconds: float) -> dict[str, Any]:
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            self.stop()
            return {"error": f"no answer in {seconds:.0f} s"}
        if not line:
            self.stop()
            return {"error": "the process ended"}
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, seconds: float = 300, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; a dead process is started anew first."""
        if self.process is None:
            self.start()
        assert self.process is not None and self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
        except BrokenPipeError:
            self.stop()
            return {"error": "the process ended"}
        return self._answer(seconds)

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def measure(remotes: list[Remote], name: str, seconds: float, rounds: int) -> list[dict[str, Any]]:
    """One workload with every peer that has it, in rounds."""
    rows: dict[str, dict[str, Any]] = {}
    for remote in remotes:
        made = remote.ask(make=name)
        if "missing" not in made:
            rows[remote.peer] = {"workload": name, "peer": remote.peer, "threads": remote.threads,
                                 **made}
    rounds_of: dict[str, list[dict[str, Any]]] = {peer: [] for peer in rows}
    for _ in range(rounds):
        for remote in remotes:
            row = rows.get(remote.peer)
            if row is None or "error" in row:
                continue
            time.sleep(REST)
            answer = remote.ask(run=seconds / rounds)
            if "error" in answer:
                row["error"] = answer["error"]
            else:
                rounds_of[remote.peer].append(answer)
    for peer, found in rounds_of.items():
        if found and "error" not in rows[peer]:
            rows[peer] |= {
                "min_ms": min(r["min_ms"] for r in found),
                "median_ms": statistics.median(r["median_ms"] for r in found),
                "runs": sum(r["runs"] for r in found),
            }
    return list(rows.values())


def measure_cold(remotes: list[Remote], name: str, rounds: int) -> list[dict[str, Any]]:
    """The first call of a workload, each time in a fresh process; imports do not count."""
    rows = []
    for remote in (r for r in remotes if r.peer in COMPILERS):
        times, made = [], {}
        for _ in range(rounds):
            fresh = Remote(remote.peer, remote.python, remote.threads)
            made = fresh.ask(make=name)
            fresh.stop()
            if "cold_ms" in made:
                times.append(made["cold_ms"])
        row = {"workload": f"cold_{name}", "peer": remote.peer, "threads": remote.threads}
        if times:
            row |= {"min_ms": min(times), "median_ms": statistics.median(times),
                    "runs": len(times), "digest": made.get("digest")}
        elif "error" in made:
            row |= made
        else:
            continue
        rows.append(row)
    return rows


def interpreters(options: argparse.Namespace) -> dict[str, str]:
    """The Python of every peer that is there."""
    found = {"tilewright": sys.executable, "numpy": sys.executable}
    for library, peers in (("jax", ["jax"]), ("torch", ["torch-eager", "torch-compile"])):
        given = getattr(options, f"{library}_python")
        python = given or str(ENVIRONMENTS / library / "bin" / "python")
        if Path(python).exists():
            found |= dict.fromkeys(peers, python)
        elif given:
            sys.exit(f"--{library}-python: there is no {given}")
        else:
            print(f"# {library} is left out: no {python}; make bench-peers creates it, or give "
                  f"--{library}-python")
    return {peer: python for peer, python in found.items() if peer in options.peers}


def processor() -> str:
    """The name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def command_line() -> str:
    """The command of this run, without this machine's paths."""
    words: list[str] = []
    for word in sys.argv[1:]:
        if word.startswith("--") or not words or not words[-1].endswith(("-python", "--out")):
            words.append(word)
    kept = [w for w in words if not w.startswith(("--jax-python", "--torch-python", "--out"))]
    return " ".join(["python benchmarks/run.py", *kept])


def best_of(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The higher of two measurements of each peak: a busy moment lowers one, nothing raises it."""
    return {
        key: best_of(value, second[key]) if isinstance(value, dict) else max(value, second[key])
        for key, value in first.items()
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time tilewright against its peers.")
    parser.add_argument("--only", nargs="*", default=None, help="workloads; default all")
    parser.add_argument("--seconds", type=float, default=1.0, help="per workload and peer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="*", default=[len(cores())])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--jax-python", help="a Python that has jax")
    parser.add_argument("--torch-python", help="a Python that has torch")
    parser.add_argument("--out", type=Path, help="default benchmarks/results/latest.json, "
                                                 "or partial.json with --only")
    options = parser.parse_args()
    known = {*WORKLOADS, *(f"cold_{name}" for name in COLD)}
    for name in options.only or []:
        if name not in known:
            parser.error(f"no workload {name}; there are {', '.join(sorted(known))}")
    return options


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything that was asked for, printing as it goes."""
    pythons = interpreters(options)
    result: dict[str, Any] = {
        "command": command_line(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "processor": processor(), "cores": len(cores()), "peaks": [], "rows": [],
    }
    seconds = min(0.3, options.seconds / 2)
    for threads in options.threads:
        result["peaks"].append(peak.measure(threads, seconds))
        remotes = [Remote(peer, python, threads) for peer, python in pythons.items()]
        print(table.heading(), flush=True)
        try:
            for name in WORKLOADS:
                if options.only is None or name in options.only:
                    report(result, measure(remotes, name, options.seconds, options.rounds))
        finally:
            for remote in remotes:
                remote.stop()
        for name in COLD:
            if options.only is None or f"cold_{name}" in options.only:
                report(result, measure_cold(remotes, name, options.rounds))
        result["peaks"][-1] = best_of(result["peaks"][-1], peak.measure(threads, seconds))
        print("# peaks: " + json.dumps(result["peaks"][-1]), flush=True)
    return result


def report(result: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Keep the rows of a workload and print its line."""
    result["rows"] += rows
    if rows:
        print(table.line(table.summary(rows, result["peaks"])), flush=True)
    for row in rows:
        if "error" in row:
            print(f"    {row['peer']}: {row['error']}", flush=True)


def main() -> None:
    """Run as a script."""
    options = arguments()
    result = run(options)
    name = "latest.json" if options.only is None else "partial.json"
    out = options.out or HERE / "results" / name
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"# written to {out}")


if __name__ == "__main__":
    main()
