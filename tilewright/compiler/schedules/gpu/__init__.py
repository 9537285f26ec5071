"""Schedules for GPUs, by family.

Threads of neighbouring numbers run together and touch neighbouring elements, 16 bytes each where
operands allow it (``vectors.py``). Those that work on one thing are a team (``team.py``), whose
sums have an order given by the sizes alone. Each top-level barrier of a kernel begins another
launch. The families that have no schedule here run that of a CPU, without vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.filters import along_rows
from tilewright.compiler.schedules.gpu.attention import lower_attention
from tilewright.compiler.schedules.gpu.columns import lower_columns
from tilewright.compiler.schedules.gpu.contraction import lower_contraction
from tilewright.compiler.schedules.gpu.full import lower_full
from tilewright.compiler.schedules.gpu.long_rows import lower_rows
from tilewright.compiler.schedules.gpu.long_sort import lower_sort
from tilewright.compiler.schedules.gpu.pointwise import lower_pointwise
from tilewright.compiler.schedules.gpu.remade import lower_remade
from tilewright.compiler.schedules.gpu.scan import lower_scan
from tilewright.compiler.schedules.gpu.scatter import lower_scatter
from tilewright.compiler.schedules.gpu.taps import lower_taps
from tilewright.compiler.schedules.group import Group
from tilewright.compiler.target import Target

Schedule = Callable[[Group, Target], LoweredKernel]


def lower_filters(group: Group, target: Target) -> LoweredKernel:
    """Sums over windows are sums of any other kind."""
    return (lower_rows if along_rows(group) else lower_columns)(group, target)


OWN: dict[str, Schedule] = {
    "pointwise": lower_pointwise, "rows": lower_rows, "columns": lower_columns,
    "full": lower_full, "taps": lower_taps, "filters": lower_filters,
    "contraction": lower_contraction, "attention": lower_attention, "remade": lower_remade,
    "scatter": lower_scatter,
    "scan": lower_scan, "sort": lower_sort,
}


def families(of_cpu: dict[str, Schedule]) -> dict[str, Schedule]:
    """All families' schedules, given those of a CPU."""
    return {family: without_vectors(s) for family, s in of_cpu.items()} | OWN


def without_vectors(schedule: Schedule) -> Schedule:
    """A schedule for a machine whose threads work on one element at a time."""

    def lower(group: Group, target: Target) -> LoweredKernel:
        return schedule(group, replace(target, vector_bytes=1, masked=False))

    return lower
