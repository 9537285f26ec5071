"""Which operators of a traced program tilewright fails on: only those run in PyTorch then.

A row that fails is known by its operator. A compile that fails is tried again without halves of
the operators, first by kind and then one by one, until no smaller group lets it succeed. Parts that
were compiled before are found again by their structure, so most tries are quick.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import fx

from tilewright.torch.steps import find_loop
from tilewright.torch.table import find

Works: TypeAlias = "Callable[[Collection[fx.Node]], bool]"
"""Whether the program compiles if these operators are left to PyTorch."""


def culprits(module: fx.GraphModule, works: Works) -> list[fx.Node]:
    """A small group of operators without which the program compiles; empty if there is none."""
    kinds: dict[Any, list[fx.Node]] = {}
    for node in module.graph.nodes:
        compiled = find(node.target) is not None or find_loop(node.target) is not None
        if node.op == "call_function" and compiled:
            kinds.setdefault(node.target, []).append(node)
    groups = _smallest(list(kinds.values()), works)
    if len(groups) == len(kinds):
        return []
    if len(groups) == 1:
        groups = _smallest([[node] for node in groups[0]], works)
    return [node for group in groups for node in group]


def _smallest(groups: Sequence[list[fx.Node]], works: Works) -> Sequence[list[fx.Node]]:
    """Some of the groups; if all together let the program compile, these do."""
    while len(groups) > 1:
        middle = len(groups) // 2
        for half in (groups[:middle], groups[middle:]):
            if works([node for group in half for node in group]):
                groups = half
                break
        else:
            break
    return groups


def described(targets: Iterable[Any]) -> str:
    """Operators in words: ``aten.tanh.default``, ``2 calls of aten.tanh.default``."""
    counts: dict[str, int] = {}
    for target in targets:
        counts[str(target)] = counts.get(str(target), 0) + 1
    return _listed([name if n == 1 else f"{n} calls of {name}" for name, n in counts.items()])


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def failed_rows(failures: Mapping[fx.Node, Exception]) -> list[tuple[Exception, list[fx.Node]]]:
    """The failures of rows, each with the operators on which the same one failed alike."""
    found: dict[tuple[Any, str], tuple[Exception, list[fx.Node]]] = {}
    for node, error in failures.items():
        found.setdefault((node.target, repr(error)), (error, []))[1].append(node)
    return list(found.values())
