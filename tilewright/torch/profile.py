"""Times of programs, steps and kernels, while they run on the user's tensors.

Steps are timed where they are called. For times of kernels, a part's launches are linked as
programs of their own, which run one after another on the same table; what entering a program takes
is measured with an empty one and taken off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from tilewright.runtime.threads import threads_now
from tilewright.torch.parts import CompiledPart
from tilewright.torch.program import Program

EMPTY_RUNS = 20


@dataclass
class Span:
    """One run of a program, by the clock, on so many threads."""

    program: Program
    threads: int
    start: float
    end: float = 0.0


@dataclass
class Profile:
    """The shortest times that were seen, in seconds.

    steps    by program and number of the step
    kernels  by part and number of the launch
    runs     of programs, in order, since :meth:`begin`
    """

    steps: dict[tuple[Program, int], float] = field(default_factory=dict)
    kernels: dict[tuple[CompiledPart, int], float] = field(default_factory=dict)
    runs: list[Span] = field(default_factory=list)

    def begin(self) -> None:
        """Forget the runs."""
        self.runs = []


class watching:  # noqa: N801 - reads as a verb: with watching(programs, profile)
    """Note times of these programs in a ``with`` block; of every kernel too if ``kernels``."""

    def __init__(
        self, programs: Iterable[Program], profile: Profile, kernels: bool = False
    ) -> None:
        self.programs, self.profile, self.kernels = list(programs), profile, kernels

    def __enter__(self) -> None:
        self.before: list[Any] = []
        for program in self.programs:
            self.before.append((program, program.steps, [p.enter for p in program.parts]))
            if self.kernels:
                for part in program.parts:
                    part.enter = _by_launch(part, self.profile)
            else:
                last = len(program.steps) - 1
                program.steps = [
                    self._timed(program, i, step, i == last)
                    for i, step in enumerate(program.steps)
                ]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for program, steps, enters in self.before:
            program.steps = steps
            for part, enter in zip(program.parts, enters, strict=True):
                part.enter = enter

    def _timed(
        self, program: Program, index: int, step: Callable[[Any], None], last: bool
    ) -> Callable[[Any], None]:
        steps, profile = self.profile.steps, self.profile

        def run(slots: Any) -> None:
            start = time.perf_counter()
            step(slots)
            end = time.perf_counter()
            key = (program, index)
            steps[key] = min(steps.get(key, end - start), end - start)
            if index == 0:
                profile.runs.append(Span(program, threads_now(), start))
            if last:
                profile.runs[-1].end = end
        return run


def _by_launch(part: CompiledPart, profile: Profile) -> Callable[..., int]:
    """What enters the part's launches one by one, in the place of its program."""
    from tilewright.codegen import cpu

    plan, target, enter = part.program.plan, part.native.target, part.enter
    pieces = [
        cpu.build(replace(plan, launches=(replace(launch, barrier=False),)), target)
        for launch in plan.launches
    ]
    empty = cpu.build(replace(plan, launches=()), target)

    def once(native: Any, team: int, rest: tuple[Any, ...]) -> tuple[float, int]:
        start = time.perf_counter()
        status = enter(team, native.address, *rest)
        return time.perf_counter() - start, int(status)

    def run(team: int, address: int, *rest: Any) -> int:
        spent = min(once(empty, team, rest)[0] for _ in range(EMPTY_RUNS))
        for number, piece in enumerate(pieces):
            seconds, status = once(piece, team, rest)
            if status:
                return status
            seconds = max(0.0, seconds - spent)
            key = (part, number)
            profile.kernels[key] = min(profile.kernels.get(key, seconds), seconds)
        return 0
    return run
