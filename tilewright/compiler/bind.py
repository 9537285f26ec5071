"""A plan with named sizes, for some numbers: what each run reads, where its memory is.

    plan: sizes (n,), blocks of 4*n and 8*n bytes;   n = 100
->  plan: arena 1280 bytes, words (100, 0, 448)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tilewright.compiler.order import Interval, place
from tilewright.compiler.plan import Plan
from tilewright.errors import ShapeError
from tilewright.ir.sizes import Dim, evaluator
from tilewright.ir.symbolic import places_of
from tilewright.ir.types import TensorType


def bind(plan: Plan, values: Mapping[str, int]) -> Plan:
    """The plan for these numbers of its sizes; the plan itself if it has none.

    Raises ``ShapeError`` for numbers for which the program does not make sense.
    """
    return Binder(plan).bind(tuple(values[name] for name in plan.sizes)) if plan.sizes else plan


@dataclass
class Binder:
    """Binds a plan to the numbers of its sizes, again and again."""

    plan: Plan

    @functools.cached_property
    def places(self) -> dict[str, tuple[int, int, int, int]]:
        """Where each size is read: see :func:`tilewright.ir.symbolic.places_of`.

        Raises ``ValueError`` for a size that no input has: whoever binds the plan must know it.
        """
        found = places_of([t.shape for t in self.plan.inputs])
        missing = [name for name in self.plan.sizes if name not in found]
        if missing:
            raise ValueError(f"no input has the size {missing[0]}")
        return found

    def values(
        self, shapes: Sequence[tuple[int, ...]], names: Sequence[str] = ()
    ) -> tuple[int, ...]:
        """The numbers of the plan's sizes, from the shapes of the inputs.

        ``names`` are what messages call the inputs. Raises ``ShapeError`` for shapes that do not
        fit, with both inputs that say something else of a size.
        """
        found = {}
        called = [names[i] if i < len(names) else f"input {i}" for i in range(len(shapes))]
        for i, (type, shape) in enumerate(zip(self.plan.inputs, shapes, strict=True)):
            if len(shape) != type.rank:
                raise ShapeError(
                    f"{called[i]} has the wrong shape", expected=type.shape, got=shape)
        for name, (i, axis, factor, offset) in self.places.items():
            found[name], rest = divmod(shapes[i][axis] - offset, factor)
            if rest or found[name] < 0:
                raise ShapeError(
                    f"{called[i]} has the wrong shape", got=shapes[i],
                    expected=self.plan.inputs[i].shape)
        self._compare(shapes, found, called)
        return tuple(found[name] for name in self.plan.sizes)

    def _compare(
        self, shapes: Sequence[tuple[int, ...]], found: Mapping[str, int], called: Sequence[str]
    ) -> None:
        wanted = self._shapes(*(found[name] for name in self.plan.sizes))
        at = 0
        for i, (type, shape) in enumerate(zip(self.plan.inputs, shapes, strict=True)):
            for axis, (dim, size) in enumerate(zip(type.shape, shape, strict=True)):
                if wanted[at] != size:
                    raise self._mismatch(i, axis, dim, shapes, found, called)
                at += 1

    def _mismatch(
        self, i: int, axis: int, dim: Dim, shapes: Sequence[tuple[int, ...]],
        found: Mapping[str, int], called: Sequence[str],
    ) -> ShapeError:
        """Which inputs disagree, and about what."""
        if isinstance(dim, int):
            return ShapeError(
                f"{called[i]} has the wrong shape", expected=self.plan.inputs[i].shape,
                got=shapes[i])
        said = ", ".join(
            f"{name} = {found[name]} in axis {self.places[name][1]} of "
            f"{called[self.places[name][0]]}"
            for name in self.plan.sizes if name in str(dim)
        )
        return ShapeError(
            f"axis {axis} of {called[i]} does not go with the other arguments",
            expected=f"{dim}, with {said}", got=f"{shapes[i][axis]} in the shape {shapes[i]}")

    @functools.cached_property
    def _shapes(self) -> Any:
        return evaluator([d for t in self.plan.inputs for d in t.shape], self.plan.sizes)

    @functools.cached_property
    def _numbers(self) -> Any:
        plan = self.plan
        dims: list[Dim] = [d for t in (*plan.inputs, *plan.outputs) for d in t.shape]
        dims += [x for c in plan.conditions for x in (c.a, c.b)]
        dims += [block.nbytes for block in plan.blocks]
        dims += [x for launch in plan.launches for x in (launch.flops, launch.bytes)]
        return evaluator(dims, plan.sizes)

    def bind(self, values: tuple[int, ...]) -> Plan:
        """The plan for these numbers, in the order of its sizes. Raises as :func:`bind` does."""
        plan = self.plan
        numbers = iter(self._numbers(*values))

        def typed(types: Sequence[TensorType]) -> tuple[TensorType, ...]:
            return tuple(t.with_shape(tuple(next(numbers) for _ in t.shape)) for t in types)

        inputs, outputs = typed(plan.inputs), typed(plan.outputs)
        for condition in plan.conditions:
            a, b = next(numbers), next(numbers)
            if not condition.holds(a, b):
                raise ShapeError(
                    f"{condition.what} is not possible for these sizes", loc=condition.loc,
                    expected=f"{condition.a} {condition.relation} {condition.b}",
                    got=", ".join(f"{n} = {v}" for n, v in zip(plan.sizes, values, strict=True)))
        blocks = [Interval(next(numbers), b.first, b.last) for b in plan.blocks]
        launches = tuple(
            replace(launch, flops=next(numbers), bytes=next(numbers)) for launch in plan.launches)
        offsets, arena = place(blocks)
        return replace(
            plan, inputs=inputs, outputs=outputs, launches=launches, arena=arena,
            words=(*values, *offsets))
