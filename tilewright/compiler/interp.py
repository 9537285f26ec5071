"""The NumPy interpreter of plans: what the kernels, the memory and the barriers mean together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tilewright.compiler.bind import Binder
from tilewright.compiler.order import ALIGNMENT
from tilewright.compiler.plan import Launch, Plan, Slot
from tilewright.ir.interp import sections
from tilewright.ir.interp_block import team_of
from tilewright.ir.interp_thread import Thread, poison
from tilewright.ir.loops import Stmt
from tilewright.ir.sizes import evaluate
from tilewright.ir.types import TensorType, as_number, concrete, dtype_of


class PlanCheckError(IndexError):
    """A ``Check`` of a kernel failed; ``code`` is the plan's number for it."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"check {code} failed")


def run_plan(
    plan: Plan, arrays: Sequence[np.ndarray], threads: int = 1, backwards: bool = False
) -> list[np.ndarray]:
    """The results of a plan on arrays of its inputs' types, which stay as they are.

    Between two barriers each thread of the team runs all that it has to before the next one
    starts, the last one first if ``backwards``: what lacks a barrier gives wrong results. Memory
    without defined contents is NaN or the like. Raises :class:`PlanCheckError` for a failed check.
    """
    memory = _Memory(plan, arrays)
    teams = []
    for segment in _segments(plan.launches, memory, threads):
        for tid in reversed(range(threads)) if backwards else range(threads):
            for team, section in segment:
                with np.errstate(all="ignore"):
                    team[tid].run_section(section)
        teams += [team for team, _ in segment]
    for thread in (thread for team in teams for thread in team):
        if thread.failed:
            raise PlanCheckError(thread.failed)
    return memory.results()


class _Memory:
    """The arrays behind the slots of a plan."""

    def __init__(self, plan: Plan, arrays: Sequence[np.ndarray]) -> None:
        if plan.sizes and not plan.words:
            binder = Binder(plan)
            plan = binder.bind(binder.values([a.shape for a in arrays]))
        self.sizes = dict(zip(plan.sizes, plan.words, strict=False))
        for type, array in zip(plan.inputs, arrays, strict=True):
            if TensorType(dtype_of(array), array.shape) != type:
                raise ValueError(f"expected {type}, got {array.dtype}{list(array.shape)}")
        self.plan = plan
        self.arena = np.full(plan.arena, 0xAB, np.uint8)
        self.arrays = {
            "input": [np.array(a, order="C", copy=True).reshape(-1) for a in arrays],
            "output": [
                np.full(as_number(t.size), poison(t.dtype), t.dtype.numpy) for t in plan.outputs],
            "constant": [np.array(a, copy=True).reshape(-1) for a in plan.constants],
        }

    def views(self, launch: Launch) -> dict[str, np.ndarray]:
        """The arrays of a launch's parameters by their names."""
        result = {}
        sizes = self.sizes_of(launch)
        for param, slot in zip(launch.kernel.params, launch.args, strict=True):
            numpy = param.dtype.numpy
            nbytes = evaluate(param.size, sizes) * param.dtype.itemsize
            if slot.kind not in ("arena", "block"):
                view = self.arrays[slot.kind][slot.index]
                if view.nbytes != nbytes and view.size:
                    raise ValueError(f"{launch.kernel.name}: {param.name} on {view.nbytes} bytes")
                result[param.name] = view.view(numpy)
                continue
            start = slot.index
            if slot.kind == "block":
                start = self.plan.words[len(self.plan.sizes) + start]
            if start % ALIGNMENT or start + nbytes > max(len(self.arena), nbytes):
                raise ValueError(f"{launch.kernel.name}: {param.name} is outside the arena")
            result[param.name] = self.arena[start:start + nbytes].view(numpy)
            if param.access == "workspace":
                result[param.name][:] = poison(param.dtype)
        return result

    def sizes_of(self, launch: Launch) -> dict[str, int]:
        """The numbers of a kernel's sizes."""
        pairs = zip(launch.kernel.sizes, launch.sizes, strict=True)
        return {var.name: self.sizes[name] for var, name in pairs}

    def results(self) -> list[np.ndarray]:
        """Copies of the results, as the runtime gives them out."""
        types = [self.type_of(slot) for slot in self.plan.results]
        return [
            np.array(self.arrays[slot.kind][slot.index], copy=True).reshape(concrete(type.shape))
            for slot, type in zip(self.plan.results, types, strict=True)
        ]

    def type_of(self, slot: Slot) -> TensorType:
        if slot.kind == "output":
            return self.plan.outputs[slot.index]
        if slot.kind == "input":
            return self.plan.inputs[slot.index]
        array = self.plan.constants[slot.index]
        return TensorType(dtype_of(array), array.shape)


def _segments(
    launches: Sequence[Launch], memory: _Memory, threads: int
) -> Iterator[list[tuple[list[Thread], list[Stmt]]]]:
    """What a team runs between one meeting and the next: per launch its threads and their code."""
    segment: list[tuple[list[Thread], list[Stmt]]] = []
    for launch in launches:
        if launch.barrier:
            yield segment
            segment = []
        first, *others = sections(launch.kernel.body)
        views = memory.views(launch)
        sizes = memory.sizes_of(launch)
        team: list[Thread] = [*team_of(launch.kernel.name, views, threads, sizes)]
        segment.append((team, first))
        for section in others:
            yield segment
            segment = [(team, section)]
    yield segment
