"""The texts of the stages that are neither a graph nor a kernel: groups, kernels, the plan."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.lowered import LoweredKernel, Workspace
from tilewright.compiler.plan import Plan, Slot
from tilewright.compiler.schedules.group import Group
from tilewright.ir.text import show


def show_groups(groups: Sequence[Group]) -> str:
    """One line per group: its family and domain, what it reduces or contracts, what it stores."""
    lines = []
    for group in groups:
        over = f" over {list(group.axes)}" if group.axes else ""
        anchors = ", ".join(f"{n.op.name} {n.type}" for n in group.anchors)
        stores = ", ".join(f"{value.op.name} {target.type}" for value, target in group.stores)
        heart = f": {anchors}" if anchors else ""
        lines.append(f"{group.family} {list(group.shape)}{over}{heart} -> {stores}")
    return "\n".join(lines)


def show_kernels(kernels: Sequence[LoweredKernel]) -> str:
    """Every kernel as a schedule wrote it, under a line that says what its parameters hold."""
    parts = []
    for lowered in kernels:
        held = ", ".join(
            f"{param.name}: {home.nbytes} bytes" if isinstance(home, Workspace)
            else f"{param.name}: {home.op.name} {home.type}"
            for param, home in zip(lowered.kernel.params, lowered.args, strict=True)
        )
        parts.append(f"# {held}\n{show(lowered.kernel)}")
    return "\n\n".join(part.rstrip("\n") for part in parts)


def show_loops(plan: Plan) -> str:
    """Each kernel of the plan once."""
    kernels = {launch.kernel.name: launch.kernel for launch in plan.launches}
    return "\n\n".join(show(kernel).rstrip("\n") for kernel in kernels.values())


def show_plan(plan: Plan) -> str:
    """The launches on their slots, the barriers between them, and where the results are."""
    lines = [f"arena {plan.arena} bytes"]
    for launch in plan.launches:
        if launch.barrier:
            lines.append("barrier")
        args = (
            f"{param.name} = {show_slot(slot)}"
            for param, slot in zip(launch.kernel.params, launch.args, strict=True)
        )
        lines.append(f"{launch.kernel.name}({', '.join(args)})")
    for number, slot in enumerate(plan.results):
        donor = plan.donated[number] if number < len(plan.donated) else None
        taken = "" if donor is None else f", the memory of donated input {donor}"
        lines.append(f"result {number} = {show_slot(slot)}{taken}")
    for code, info in plan.checks.items():
        lines.append(f"check {code}: {info.message}")
    return "\n".join(lines)


def show_slot(slot: Slot) -> str:
    """``input 0``, ``arena 4096``."""
    return f"{slot.kind} {slot.index}"
