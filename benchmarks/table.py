"""Makes tables of a results file: lines for the terminal, Markdown for the README.

    python benchmarks/table.py [RESULTS] [--readme README.md]

Without ``--readme`` the table is printed; with it, it replaces what stands between the markers
``<!-- benchmarks -->`` and ``<!-- /benchmarks -->`` in that file. All figures come from the results
file; nothing is measured here.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads import WORKLOADS

OURS = "tilewright"
LATEST = Path(__file__).parent / "results" / "latest.json"
START, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"


@dataclass(frozen=True)
class Summary:
    """One line: milliseconds of ours, of every peer and of the floors; None where there is none."""

    workload: str
    threads: int
    ours: float | None
    peers: dict[str, float]
    floor: float | None
    cached_floor: float | None
    disagree: tuple[str, ...]

    @property
    def best_peer(self) -> str | None:
        """The quickest peer."""
        return min(self.peers, key=self.peers.__getitem__) if self.peers else None

    @property
    def advantage(self) -> float | None:
        """The best peer's time over ours: above 1, ours is quicker."""
        if self.ours is None or self.best_peer is None:
            return None
        return self.peers[self.best_peer] / self.ours

    @property
    def above_floor(self) -> float | None:
        """Our time over the floor."""
        return self.ours / self.floor if self.ours is not None and self.floor else None


def floors(name: str, peak: dict[str, Any]) -> tuple[float | None, float | None]:
    """The least milliseconds: by arithmetic or by the copy bandwidth of memory; and of the caches.

    The first takes the bandwidth of a working set far larger than the caches. The second takes that
    of a working set of this workload's size, which may fit into a cache.
    """
    workload = WORKLOADS.get(name)
    if workload is None or not (workload.flops or workload.bytes):
        return None, None
    arithmetic = workload.flops / (peak["gflops"][workload.dtype] * 1e6)
    copies = {int(size): speed for size, speed in peak["copy_gbs"].items()}
    near = min((s for s in copies if s >= workload.bytes), default=max(copies))
    memory, cache = (workload.bytes / (copies[s] * 1e6) for s in (max(copies), near))
    return max(arithmetic, memory), max(arithmetic, min(memory, cache))


def disagreeing(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """The peers whose result is not near the median of all results."""
    found = sorted(r["digest"] for r in rows if r.get("digest") is not None)
    if not found:
        return ()
    middle = found[len(found) // 2]
    return tuple(
        r["peer"] for r in rows
        if r.get("digest") is not None and not abs(r["digest"] - middle) <= 2e-3 * abs(middle)
    )


def summary(rows: list[dict[str, Any]], peaks: list[dict[str, Any]]) -> Summary:
    """The rows of one workload at one number of threads, put together."""
    name, threads = rows[0]["workload"], rows[0]["threads"]
    peak = next(p for p in peaks if p["threads"] == threads)
    times = {r["peer"]: r["min_ms"] for r in rows if "min_ms" in r}
    ours = times.pop(OURS, None)
    return Summary(name, threads, ours, times, *floors(name, peak), disagreeing(rows))


def summaries(result: dict[str, Any]) -> list[Summary]:
    """All lines of a results file, in its order."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in result["rows"]:
        groups.setdefault((row["workload"], row["threads"]), []).append(row)
    return [summary(rows, result["peaks"]) for rows in groups.values()]


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def heading() -> str:
    """The titles of the columns of :func:`line`."""
    return (f"{'workload':30}{'thr':>4}{'ours ms':>9}{'best peer ms':>25}{'peer/ours':>10}"
            f"{'floor ms':>9}{'ours/floor':>11}{'in cache':>9}  others")


def line(s: Summary) -> str:
    """A line for the terminal."""
    best = s.best_peer
    others = ", ".join(f"{p} {number(t)}" for p, t in sorted(s.peers.items()) if p != best)
    wrong = f"  RESULTS DIFFER: {', '.join(s.disagree)}" if s.disagree else ""
    peer = f"{best} {number(s.peers[best])}" if best else "-"
    return (f"{s.workload:30}{s.threads:4}{number(s.ours):>9}{peer:>25}{number(s.advantage):>10}"
            f"{number(s.floor):>9}{number(s.above_floor):>11}{number(s.cached_floor):>9}"
            f"  {others}{wrong}")


def markdown(result: dict[str, Any]) -> str:
    """The table, with the machine and the command that made it."""
    lines = [
        f"Made on {result['date']} by `{result['command']}` ({result['cores']} cores, "
        f"{result['processor']}): the quickest of interleaved rounds, in milliseconds.", "",
    ]
    for peak in result["peaks"]:
        copies = peak["copy_gbs"]
        lines.append(
            f"Peaks measured in the same run with {threads_text(peak['threads'])}: "
            f"{peak['gflops']['float32']:.0f} GFLOP/s f32, "
            f"{peak['gflops']['float64']:.0f} GFLOP/s f64, "
            f"copy {copies[max(copies, key=int)]:.0f} GB/s.")
    lines += ["", "| workload | threads | tilewright | best peer | peer / tilewright | floor | "
                  "tilewright / floor |", "|---|--:|--:|--:|--:|--:|--:|"]
    for s in summaries(result):
        best = f"{s.best_peer} {number(s.peers[s.best_peer])}" if s.best_peer else "-"
        cells = (f"`{s.workload}`", str(s.threads), number(s.ours), best, number(s.advantage),
                 number(s.floor), number(s.above_floor))
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "The floor is the larger of the least arithmetic over the measured peak and the "
                  "least bytes over the measured copy bandwidth of memory; a working set that "
                  "stays in a cache can be quicker."]
    return "\n".join(lines)


def threads_text(threads: int) -> str:
    """'1 thread', '2 threads'."""
    return f"{threads} thread{'s' if threads != 1 else ''}"


def replace_between(text: str, new: str) -> str:
    """The text with a new table between the markers. Raises ``ValueError`` without them."""
    pattern = re.compile(re.escape(START) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no {START} ... {END}")
    return pattern.sub(lambda _: f"{START}\n{new}\n{END}", text, count=1)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description="Make a table of benchmark results.")
    parser.add_argument("results", nargs="?", type=Path, default=LATEST)
    parser.add_argument("--readme", type=Path, help="replace the table in this file")
    options = parser.parse_args()
    if not options.results.exists():
        sys.exit(f"there is no {options.results}; make bench writes it")
    new = markdown(json.loads(options.results.read_text()))
    if options.readme is None:
        print(new)
    else:
        options.readme.write_text(replace_between(options.readme.read_text(), new))


if __name__ == "__main__":
    main()
