"""Groups of nodes become kernels: one schedule per family, sized by the target's data."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.alike import lower_once
from tilewright.compiler.schedules.columns import lower_columns
from tilewright.compiler.schedules.contraction import lower_contraction
from tilewright.compiler.schedules.filters import lower_filters
from tilewright.compiler.schedules.full import lower_full
from tilewright.compiler.schedules.gpu import families
from tilewright.compiler.schedules.group import Group
from tilewright.compiler.schedules.groups import lower_groups
from tilewright.compiler.schedules.parts import joined, padded
from tilewright.compiler.schedules.pointwise import lower_pointwise
from tilewright.compiler.schedules.reduction import lower_rows
from tilewright.compiler.schedules.routine import lower_routine
from tilewright.compiler.schedules.scan import lower_scan
from tilewright.compiler.schedules.scatter import lower_scatter
from tilewright.compiler.schedules.search import searchsorted
from tilewright.compiler.schedules.sort import lower_sort
from tilewright.compiler.schedules.taps import lower_taps
from tilewright.compiler.target import Target

FAMILIES: dict[str, Callable[[Group, Target], LoweredKernel]] = {
    "pointwise": lower_pointwise, "rows": lower_rows, "columns": lower_columns,
    "full": lower_full, "taps": lower_taps, "filters": lower_filters,
    "contraction": lower_contraction, "grouped": lower_groups, "scatter": lower_scatter,
    "scan": lower_scan, "sort": lower_sort, "routine": lower_routine,
}

ON_GPU = families(FAMILIES)

EXPRESSIONS = (searchsorted, padded, joined)
"""What any family's kernels may compute on the way, beside the rules of ``access.py``."""


def lower(group: Group, target: Target) -> list[LoweredKernel]:
    """The kernels of a group, in order."""
    return lower_once(group, target, lower_afresh)


def lower_afresh(group: Group, target: Target) -> list[LoweredKernel]:
    """As :func:`lower`, whatever was lowered before."""
    table = FAMILIES if target.gpu is None else ON_GPU
    return [table[group.family](group, target)]
