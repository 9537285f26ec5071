"""What happens when the compiler itself fails: an error, and a script that fails likewise."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from tilewright import config
from tilewright.compiler.target import Target
from tilewright.errors import CompilerBug
from tilewright.frontend.location import here
from tilewright.ir.graph import Graph
from tilewright.ir.text import show

SCRIPT = '''\
"""Reproduces a failure of tilewright's compiler: run it with python.

{error}

It ends without an exception once the failure is mended: the graph below then compiles, runs, and
gives what the interpreter gives.
"""

import numpy as np

from tilewright.compiler.pipeline import compile_graph
from tilewright.ir.interp import run_graph
from tilewright.ir.symbolic import specialise
from tilewright.ir.text import parse
from tilewright.runtime.program import code_of, runs, target_named

GRAPH = r"""
{graph}
"""
TARGET = {target!r}
DONATED = {donated!r}
SIZES = {sizes!r}

graph = parse(GRAPH)
numbers = specialise(graph, SIZES)
random = np.random.default_rng(0)
inputs = []
for node in numbers.inputs:
    values = random.uniform(0, 1 if node.dtype.is_float else 2, node.shape)
    inputs.append(np.asarray(values).astype(node.dtype.numpy))
expected = run_graph(numbers, inputs)
target = target_named(TARGET)
compiled = compile_graph(graph, target, DONATED, hints=SIZES)
results = runs(compiled.plan, code_of(compiled.plan, target), target)(inputs)
for result, value in zip(results, expected, strict=True):
    np.testing.assert_allclose(
        result.astype(np.float64), value.astype(np.float64), rtol=1e-2, atol=1e-2)
print("compiled and ran: the failure does not occur")
'''


def write(
    graph: Graph, target: Target | None, donated: tuple[int, ...], error: Exception,
    sizes: Mapping[str, int] | None = None,
) -> Path:
    """Write the script for this graph and failure; its name follows from its contents."""
    text = SCRIPT.format(
        error=first_line(error),
        graph=show(graph).rstrip("\n"),
        donated=donated,
        sizes=dict(sizes or {}),
        target=name_of(target) if target is not None else None,
    )
    folder = Path(config.get("reproducers") or tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    path = folder / f"tilewright_bug_{digest}.py"
    path.write_text(text)
    return path


def name_of(target: Target) -> str:
    """The name by which :func:`target_named` finds a target, that of a GPU on any machine."""
    return target.name if target.gpu is None else f"sim:{target.name}"


def first_line(error: Exception) -> str:
    """The error's type and the first line of its message."""
    message = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {message}".replace('"""', "'''").replace("\\", "/")


def compiler_bug(
    graph: Graph, target: Target | None, donated: tuple[int, ...], error: Exception,
    sizes: Mapping[str, int] | None = None,
) -> NoReturn:
    """Raise the :class:`CompilerBug` of this failure, after its reproducer is written."""
    lines = [
        f"this is a bug in tilewright, not in your program: compiling {graph.name} failed",
        f"  failure:    {first_line(error)}",
    ]
    loc = here()
    if loc is not None:
        lines.append(f"  at:         {loc.file}:{loc.line} in {loc.function}")
    lines += written_lines(graph, target, donated, error, sizes)
    raise CompilerBug("\n".join(lines)) from error


def written_lines(
    graph: Graph, target: Target | None, donated: tuple[int, ...], error: Exception,
    sizes: Mapping[str, int] | None = None,
) -> list[str]:
    """Lines of a message that name the script, which is written now, or say why it is not."""
    try:
        return [
            f"  reproducer: python {write(graph, target, donated, error, sizes)}",
            "  hint:       please report it with that file"]
    except Exception as problem:  # the first failure matters more than the second
        return [f"  reproducer: could not be written ({first_line(problem)})"]


def fault_lines(
    graph: Graph, target: Target, donated: tuple[int, ...], sizes: Mapping[str, int],
    error: Exception,
) -> list[str]:
    """Lines of the message for a kernel of this graph's that went wrong on a GPU."""
    return [f"  whose:      a bug in tilewright, not in your program; a part of {graph.name}",
            *written_lines(graph, target, donated, error, sizes)]
