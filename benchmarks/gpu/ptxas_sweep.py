"""What ptxas makes of every kernel of every workload at its real size, on several architectures.

    python benchmarks/gpu/ptxas_sweep.py [--only NAME ...] [--architectures sm_75 sm_80 ...]
                                         [--known FILE] [--all]

Nothing runs: workloads are traced, compiled and assembled. Prints a line for each pair, and one for
each of its kernels that has a spill, a frame in local memory or a warning (with ``--all`` for every
kernel); the exit code is 1 if there is one. ``--known`` keeps in a file what was found, by the
text of each kernel, so that another run assembles what has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

sys.path.insert(1, str(Path(__file__).parents[1]))

import tilewright_steps  # noqa: E402
import workloads  # noqa: E402

import tilewright as tw  # noqa: E402
from tilewright.codegen import llvm  # noqa: E402
from tilewright.codegen.gpu import ptx  # noqa: E402
from tilewright.codegen.gpu.architectures import gpu_target  # noqa: E402
from tilewright.codegen.gpu.assembler import Report, assemble, tool  # noqa: E402
from tilewright.codegen.gpu.emit import Entry  # noqa: E402
from tilewright.codegen.gpu.program import entries_of  # noqa: E402
from tilewright.compiler.pipeline import compile_graph  # noqa: E402
from tilewright.compiler.target import Target  # noqa: E402
from tilewright.errors import TilewrightError  # noqa: E402
from tilewright.ir.graph import Graph  # noqa: E402

ARCHITECTURES = ("sm_75", "sm_80", "sm_90a", "sm_120")


class Traced(Exception):  # noqa: N818 - it carries a result
    """The graph of the function that was about to run."""


def graph_of(name: str) -> Graph:
    """What a workload compiles, at its real size."""
    jit = tw.jit

    def tracing(function: Any, **options: Any) -> Any:
        def call(*inputs: Any) -> NoReturn:
            raise Traced(jit(function, **options).trace(*inputs))
        return call

    with mock.patch.object(tw, "jit", tracing):
        kind = workloads.WORKLOADS[name].kind
        try:
            tilewright_steps.steps()[kind](*workloads.inputs_of(name))()
        except Traced as traced:
            graph: Graph = traced.args[0]
            return graph
    raise AssertionError(f"{name} runs nothing that is compiled")


@dataclass(frozen=True)
class Found:
    """What ptxas says of one kernel.

    kernel    its name in the plan
    threads   of a block
    shared    bytes of a block
    warnings  of ptxas
    """

    kernel: str
    threads: int
    shared: int
    report: Report
    warnings: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether registers were enough, and ptxas has nothing to say."""
        r = self.report
        return not (r.stack or r.spill_stores or r.spill_loads or self.warnings)

    def __str__(self) -> str:
        r = self.report
        text = (f"{self.kernel:42s} {self.threads:5d} threads {r.registers:4d} registers "
                f"{self.shared:6d} shared {r.stack:4d} stack "
                f"{r.spill_stores:4d} stored {r.spill_loads:4d} loaded")
        return "\n".join([text, *(f"  {w}" for w in self.warnings)])


class Known:
    """Reports by the text that they are of, kept in a file if there is one."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.kept: dict[str, dict[str, Any]] = {}
        if file is not None and file.exists():
            self.kept = json.loads(file.read_text())
        version = subprocess.run([tool("ptxas"), "--version"], capture_output=True, text=True)
        sources = (Path(module.__file__).read_text() for module in (llvm, ptx))
        self.ground = "\n".join((version.stdout, llvm.version(), *sources))

    def assembled(self, entry: Entry, target: Target) -> tuple[Report, tuple[str, ...]]:
        """The report of an entry and the warnings about it."""
        text = "\n".join([*sorted(entry.declarations), "", entry.text, ""])
        key = hashlib.sha256("\n".join((self.ground, target.cpu, text)).encode()).hexdigest()
        if key not in self.kept:
            found = assemble(ptx.ptx(text, target), target.cpu)
            (report,) = found.reports.values()
            self.kept[key] = {
                "report": asdict(report),
                "warnings": [f"{w.number} {w.text}" for w in found.warnings]}
            if self.file is not None:
                self.file.write_text(json.dumps(self.kept))
        kept = self.kept[key]
        return Report(**kept["report"]), tuple(kept["warnings"])


def swept(graph: Graph, architecture: str, known: Known) -> Iterator[Found]:
    """Each kernel of a graph on an architecture, equal ones once."""
    target = gpu_target(architecture)
    seen: set[str] = set()
    for launch in compile_graph(graph, target).plan.launches:
        for entry in entries_of(launch.kernel, target):
            if entry.name not in seen:
                seen.add(entry.name)
                report, warnings = known.assembled(entry, target)
                yield Found(launch.kernel.name, entry.threads, max(entry.shared, report.shared),
                            report, warnings)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Put the kernels of the workloads through ptxas.")
    parser.add_argument("--only", nargs="*", help="names of workloads, or how they begin")
    parser.add_argument("--architectures", nargs="*", default=ARCHITECTURES)
    parser.add_argument("--known", type=Path, help="a file that keeps what was found")
    parser.add_argument("--all", action="store_true", help="a line for every kernel")
    options = parser.parse_args()
    chosen = tuple(options.only) if options.only else ("",)
    options.names = [name for name in workloads.WORKLOADS if name.startswith(chosen)]
    if not options.names:
        parser.error(f"no workload begins with {chosen[0]}; "
                     f"there are {', '.join(workloads.WORKLOADS)}")
    return options


def main() -> None:
    """Run as a script."""
    options = arguments()
    try:
        known = Known(options.known)
    except TilewrightError as error:
        sys.exit(str(error))
    failed = []
    for name in options.names:
        graph = graph_of(name)
        for architecture in options.architectures:
            found = list(swept(graph, architecture, known))
            clean = all(f.clean for f in found)
            most = max((f.report.registers for f in found), default=0)
            print(f"{'ok   ' if clean else 'SPILL'} {name:36s} {architecture:7s} "
                  f"{len(found):3d} kernels, at most {most:3d} registers", flush=True)
            for f in found:
                if options.all or not f.clean:
                    print(f"      {f}", flush=True)
            if not clean:
                failed.append(f"{name} on {architecture}")
    pairs = len(options.names) * len(options.architectures)
    print(f"{pairs - len(failed)} of {pairs} clean")
    if failed:
        sys.exit(f"not clean: {', '.join(failed)}")


if __name__ == "__main__":
    main()
