"""A compiled function that runs on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from tilewright.compiler.bind import Binder
from tilewright.compiler.plan import Plan
from tilewright.errors import CompilerBug, DTypeError, OutOfBounds, ShapeError
from tilewright.ir.types import TensorType, concrete
from tilewright.runtime.dispatch import fast_call
from tilewright.runtime.pool import address_of, pool
from tilewright.runtime.results import Layout, lay_out
from tilewright.runtime.spec import Arguments, Leaf, List, Tree
from tilewright.runtime.support import support, words
from tilewright.runtime.threads import team, threads_now
from tilewright.runtime.work import Work, estimate


class Native(Protocol):
    """Machine code of a program: the address of ``tw_program``, bytes of scratch per thread."""

    @property
    def address(self) -> int: ...  # noqa: D102

    @property
    def scratch(self) -> int: ...  # noqa: D102


class Executable:
    """Machine code with the plan that it follows; call it with a list of arrays.

    A plan with named sizes has to be bound to numbers: see :class:`SizedExecutable`.
    With ``work`` given, the plan may lack its launches.
    Safe to call from several Python threads at once. An input that is not C-contiguous, aligned and
    in native byte order is copied first. A donated input's memory becomes a result: the array that
    was given must not be used afterwards, and may be the very array that is returned.
    """

    def __init__(self, plan: Plan, native: Native, work: Work | None = None) -> None:
        self.plan, self.native = plan, native
        self.layout: Layout = lay_out(plan)
        self.work: Work = work or estimate(plan)
        self.arena, self.stride = (-(-n // 64) * 64 for n in (plan.arena, native.scratch))
        self.constants = [_aligned(c) for c in plan.constants]
        inputs, results = range(len(plan.inputs)), range(len(plan.results))
        self._call = fast_call(
            self, Arguments(tuple(Leaf(i) for i in inputs)), List(tuple(Leaf(i) for i in results)),
            self._call_slowly,
        )

    def __call__(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        """The results for one array per input of the plan.

        Raises ``ShapeError`` or ``DTypeError`` for an array of another type than planned, and
        ``OutOfBounds`` when an index is outside its axis.
        """
        result: list[np.ndarray] = self._call(*arrays)
        return result

    def _call_slowly(self, *arrays: Any) -> list[np.ndarray]:
        if len(arrays) != len(self.plan.inputs):
            raise TypeError(f"expected {len(self.plan.inputs)} arrays, got {len(arrays)}")
        prepared = [
            prepare(a, t, i) for i, (a, t) in enumerate(zip(arrays, self.plan.inputs, strict=True))
        ]
        self._separate(prepared)
        return self._run(prepared)

    def _separate(self, arrays: list[np.ndarray]) -> None:
        """Copy each donated input that cannot be written or shares memory with another input."""
        shared = overlapping((address_of(a), address_of(a) + a.nbytes) for a in arrays)
        for i in self.layout.donated:
            if i in shared or not arrays[i].flags.writeable:
                arrays[i] = arrays[i].copy()

    def _run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Run on arrays that are in order, without the native call."""
        layout, memory = self.layout, pool()
        fresh = [memory.array(f.shape, f.dtype) for f in layout.fresh]
        table = words(layout.entries)
        for i, array in enumerate((*arrays, *fresh[:len(self.plan.outputs)], *self.constants)):
            table[i] = address_of(array)
        table[layout.arena + 1:layout.arena + 1 + len(self.plan.words)] = self.plan.words
        threads = 1
        if self.work.mode >= 2:
            threads = max(1, min(threads_now(), self.work.most_threads))
        space = memory.take(self.arena + threads * self.stride)
        try:
            table[layout.arena] = space
            run = support().run if self.work.mode else support().run_here
            status = run(
                team().address, self.native.address, table.ctypes.data, threads,
                space + self.arena, self.stride, self.work.mode == 3,
            )
        finally:
            memory.give(space)
        if status:
            self.fail(status)
        made = [*arrays, *fresh[:len(self.plan.outputs)], *self.constants]
        for copy, (_, source, _) in zip(fresh[len(self.plan.outputs):], layout.copies, strict=True):
            copy[...] = made[source].reshape(copy.shape)
        return [(fresh if s.kind == "fresh" else arrays)[s.index] for s in layout.sources]

    def fail(self, code: int) -> None:
        """Raise what an error code of the program stands for."""
        check = self.plan.checks.get(code)
        if check is None:
            raise CompilerBug(f"the program reported the error {code}, unknown to its plan")
        raise OutOfBounds(check.message, expected=check.expected, loc=check.loc)


class SizedExecutable:
    """Machine code of a plan with named sizes; call it with arrays of any sizes that fit it.

    ``make`` is what runs a plan for some numbers: :class:`Executable` if left out.
    What a run needs to know is worked out once per distinct sizes and kept for the latest of them.
    """

    most = 256

    def __init__(
        self, plan: Plan, native: Any, make: Callable[[Plan, Any], Any] | None = None
    ) -> None:
        self.plan, self.native = plan, native
        self._binder = Binder(plan)
        self._make = make or Executable
        self._made: dict[tuple[int, ...], Any] = {}
        self._by_shapes: dict[tuple[tuple[int, ...], ...], Any] = {}

    def __call__(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        """The results for one array per input of the plan.

        Raises ``ShapeError`` where sizes of the same name differ, and as :class:`Executable` does.
        """
        shapes = tuple([a.shape if hasattr(a, "shape") else np.shape(a) for a in arrays])
        found = self._by_shapes.get(shapes)
        if found is None:
            found = self.at(shapes)
            self._by_shapes[shapes] = found
            _forget(self._by_shapes, self.most)
        return found(arrays)

    def at(
        self, shapes: Sequence[tuple[int, ...]], names: Sequence[str] = ()
    ) -> Any:
        """What runs on arrays of these shapes; ``names`` are what messages call the inputs.

        Raises ``ShapeError`` for shapes that do not fit.
        """
        if len(shapes) != len(self.plan.inputs):
            raise TypeError(f"expected {len(self.plan.inputs)} arrays, got {len(shapes)}")
        return self.bound(self._binder.values(shapes, names))

    def bound(self, values: tuple[int, ...]) -> Any:
        """What runs for these numbers, in the order of the plan's sizes. Raises as :meth:`at`."""
        found = self._made.get(values)
        if found is None:
            found = self._made[values] = self._make(self._binder.bind(values), self.native)
            _forget(self._made, self.most)
        return found


def executable_of(
    plan: Plan, native: Native, work: Work | None = None
) -> Executable | SizedExecutable:
    """What runs a plan's machine code on arrays; ``work`` as :class:`Executable` takes it."""
    return SizedExecutable(plan, native) if plan.sizes else Executable(plan, native, work)


def _forget(made: dict[Any, Any], most: int) -> None:
    """Drop the oldest entries beyond so many."""
    while len(made) > most:
        made.pop(next(iter(made)), None)


def make_fast_call(
    executable: Executable, in_spec: Arguments, out_spec: Tree, slow: Callable[..., Any]
) -> Callable[..., Any]:
    """A callable that runs the executable on arguments that look like ``in_spec``.

    It returns a tree like ``out_spec``, or what ``slow`` returns for the same arguments if these do
    not match. Returns ``slow`` itself where native calls are not possible: in an interpreter whose
    objects look different, or for leaves whose element type has no native form.
    """
    return fast_call(executable, in_spec, out_spec, slow)


def overlapping(ranges: Iterable[tuple[int, int]]) -> set[int]:
    """The numbers of the ranges (start, stop) that share an address with another one."""
    taken = sorted((start, stop, i) for i, (start, stop) in enumerate(ranges))
    end, last = 0, -1
    shared: set[int] = set()
    for start, stop, i in taken:
        if start < end:
            shared |= {i, last}
        if stop > end:
            end, last = stop, i
    return shared


def prepare(value: Any, type: TensorType, index: int) -> np.ndarray:
    """An array of this type, C-contiguous, aligned, in native byte order; a copy where necessary.

    Raises ``DTypeError`` or ``ShapeError`` if it is of another type.
    """
    array = np.asarray(value)
    expected = type.dtype.numpy
    if array.dtype != expected and array.dtype.newbyteorder("=") != expected:
        raise DTypeError(f"input {index} has the wrong dtype", expected=expected, got=array.dtype)
    if array.shape != concrete(type.shape):
        raise ShapeError(f"input {index} has the wrong shape", expected=type.shape, got=array.shape)
    flags = array.flags
    if array.dtype.isnative and flags.c_contiguous and flags.aligned:
        return array
    return np.array(array, dtype=expected, order="C", copy=True, subok=False)


def _aligned(constant: np.ndarray) -> np.ndarray:
    """A copy of a constant in aligned memory of its own."""
    room = words(-(-constant.nbytes // 8))
    array = room.view(np.uint8)[:constant.nbytes].view(constant.dtype).reshape(constant.shape)
    array[...] = constant
    return array
