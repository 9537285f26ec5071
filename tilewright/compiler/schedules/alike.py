"""Groups that differ only in the values that they read and write have the same kernels.

    layer 1: rows(x1) -> y1;  layer 2: rows(x2) -> y2
->  one kernel rows(in0) -> out0, run on x1, y1 and on x2, y2
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import TypeAlias

from tilewright.compiler.lowered import LoweredKernel, Workspace
from tilewright.compiler.schedules.group import Group, location
from tilewright.compiler.target import Target
from tilewright.ir.digest import reported
from tilewright.ir.graph import Node
from tilewright.ir.hints import hint_values

MASKED = ("attention", "remade")
"""Families that look into constants."""

MOST_KEPT = 4096
"""Forms of groups whose kernels are kept."""

Lower: TypeAlias = Callable[[Group, Target], list[LoweredKernel]]
Hole: TypeAlias = "int | Workspace"
"""In place of an argument: the number of a buffer, or memory of the kernel's own."""


@dataclass(frozen=True)
class Form:
    """What the kernels of a group follow from: ``key``, and the ``buffers`` that they run on."""

    key: Hashable
    buffers: list[Node]


def form_of(group: Group) -> Form:
    """The group with its values known by numbers, in the order in which they are come across."""
    numbers: dict[Node, int] = {}
    buffers: dict[Node, int] = {}
    parts: list[Hashable] = []
    for node in group.members(group.writer()):
        for source in node.inputs:
            if source not in numbers:
                home = group.homes[source]
                numbers[source] = len(numbers)
                parts.append((
                    source.type, home.type, buffers.setdefault(home, len(buffers)),
                    # What a constant mask hides decides what a kernel of attention goes through.
                    home.attrs if group.family in MASKED and home.op.name == "const" else None,
                ))
        numbers[node] = len(numbers)
        parts.append((
            node.op.name, node.attrs, node.type, tuple([numbers[n] for n in node.inputs]),
            node.loc if reported(node) else None,
        ))
    again = tuple([group.uses.get(n, 2) > 1 for n in numbers])
    anchors = tuple([numbers[n] for n in group.anchors])
    stores = tuple([(numbers[value], target.type) for value, target in group.stores])
    key = (group.family, group.shape, group.axes, anchors, stores, again, tuple(parts),
           hint_values())
    return Form(key, [*buffers, *(target for _, target in group.stores)])


_kept: dict[tuple[Hashable, Target], list[tuple[LoweredKernel, tuple[Hole, ...]]]] = {}
"""The kernels of the forms seen last, and what their arguments are made of."""


def lower_once(group: Group, target: Target, lower: Lower) -> list[LoweredKernel]:
    """What ``lower`` makes of the group, by way of an equal one that was lowered before."""
    form = form_of(group)
    found = _kept.get((form.key, target))
    if found is None:
        return _keep(form, target, lower(group, target))
    own: dict[Workspace, Workspace] = {}
    place = location(group)

    def fill(hole: Hole) -> Node | Workspace:
        if isinstance(hole, Workspace):
            return own.setdefault(hole, Workspace(hole.nbytes))
        return form.buffers[hole]

    return [
        replace(
            known, args=tuple(map(fill, holes)),
            kernel=known.kernel if known.kernel.loc == place else replace(known.kernel, loc=place),
        )
        for known, holes in found
    ]


def _keep(form: Form, target: Target, made: list[LoweredKernel]) -> list[LoweredKernel]:
    """Remember the kernels of a form, without its values; returns them."""
    number = {node: i for i, node in enumerate(form.buffers)}
    while len(_kept) >= MOST_KEPT:
        _kept.pop(next(iter(_kept)), None)
    _kept[form.key, target] = [
        (
            replace(known, args=()),
            tuple([arg if isinstance(arg, Workspace) else number[arg] for arg in known.args]),
        )
        for known in made
    ]
    return made
