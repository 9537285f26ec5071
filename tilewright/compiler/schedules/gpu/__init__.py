"""Schedules for GPUs, by family.

A ``parallel`` loop has a thread for each iteration, and threads of neighbouring iterations run
together: neighbours should touch neighbouring elements. Each barrier of a kernel begins another
launch. The families that have no schedule here run that of a CPU, without vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tilewright.compiler.lowered import LoweredKernel
from tilewright.compiler.schedules.gpu.attention import lower_attention
from tilewright.compiler.schedules.gpu.contraction import lower_contraction
from tilewright.compiler.schedules.gpu.pointwise import lower_pointwise
from tilewright.compiler.schedules.group import Group
from tilewright.compiler.target import Target

Schedule = Callable[[Group, Target], LoweredKernel]

OWN: dict[str, Schedule] = {
    "pointwise": lower_pointwise, "contraction": lower_contraction, "attention": lower_attention,
}


def families(of_cpu: dict[str, Schedule]) -> dict[str, Schedule]:
    """All families' schedules, given those of a CPU."""
    return {family: without_vectors(s) for family, s in of_cpu.items()} | OWN


def without_vectors(schedule: Schedule) -> Schedule:
    """A schedule for a machine whose threads work on one element at a time."""

    def lower(group: Group, target: Target) -> LoweredKernel:
        return schedule(group, replace(target, vector_bytes=1, masked=False))

    return lower
