"""A thread of a team that runs a kernel, in NumPy.

Slow and plain. A ``vector`` loop runs all its iterations at once, as arrays with one element per
iteration ("lane"), which the language allows; every other loop runs in Python.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.errors import CompilerBug
from tilewright.ir.graph import OPS
from tilewright.ir.loops import (
    Accumulate,
    Alloc,
    Barrier,
    Buffer,
    Call,
    Check,
    Const,
    Expr,
    For,
    If,
    Instruction,
    Let,
    Load,
    Prefetch,
    Shuffle,
    Stmt,
    Store,
    Var,
)
from tilewright.ir.types import DType, TensorType, accumulator, as_number, bool_, i64


@functools.lru_cache(maxsize=None)
def poison(dtype: DType) -> Any:
    """What undefined memory holds: NaN, bytes 0xAB, True."""
    if dtype is bool_:
        return True
    if dtype.is_float:
        return np.asarray(np.nan).astype(dtype.numpy)
    return np.frombuffer(b"\xab" * dtype.itemsize, dtype.numpy)[0]


ACCUMULATE: dict[str, np.ufunc] = {
    "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum,
    "and": np.bitwise_and, "or": np.bitwise_or,
}
"""The ops that an ``Accumulate`` may have."""

_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "and": operator.and_,
    "or": operator.or_, "eq": operator.eq, "ne": operator.ne, "lt": operator.lt,
    "le": operator.le, "gt": operator.gt, "ge": operator.ge,
}
"""Ops that Python's operators do as the op table means them, on its numbers and on NumPy's."""

_CHOICES: dict[str, Callable[..., Any]] = {"max": max, "min": min}
"""Ops that Python does on its own numbers."""


def lanewise(value: Any) -> bool:
    """Whether a value differs from lane to lane."""
    return isinstance(value, np.ndarray) and value.ndim > 0


def wrapped(number: int) -> int:
    """A Python int as i64 arithmetic leaves it."""
    return (number + 2**63) % 2**64 - 2**63


class Thread:
    """One thread of the team: its variables, its private buffers and what it runs.

    A value is a Python int or bool, a NumPy scalar or, under a vector loop, an array of one value
    per lane. A buffer allocated under a vector loop has a second axis, one column per lane.
    """

    def __init__(
        self, kernel: str, memory: dict[str, np.ndarray], tid: int, threads: int,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.kernel, self.memory, self.tid, self.threads = kernel, memory, tid, threads
        self.variables: dict[str, Any] = dict(sizes or {})
        self.constants: dict[int, Any] = {}
        self.lanes: int | None = None
        self.failed = 0

    def run_section(self, section: Sequence[Stmt]) -> None:
        """Run a stretch of the top level between two barriers."""
        self.run(section)

    def run(self, body: Sequence[Stmt]) -> None:
        """Run statements in order."""
        for statement in body:
            getattr(self, RUN[type(statement)])(statement)

    def bug(self, what: str) -> CompilerBug:
        """An error that names the kernel."""
        return CompilerBug(f"kernel {self.kernel}: {what}")

    # --- statements ---------------------------------------------------------------------
    def run_let(self, s: Let) -> None:
        """Name a value."""
        self.variables[s.var.name] = self.value(s.value)

    def run_alloc(self, s: Alloc) -> None:
        """A fresh, undefined buffer, with a column per lane under a vector loop."""
        size = as_number(s.buffer.size)
        shape = size if self.lanes is None else (size, self.lanes)
        self.memory[s.buffer.name] = np.full(shape, poison(s.buffer.dtype), s.buffer.dtype.numpy)

    def run_check(self, s: Check) -> None:
        """Note the first code whose condition fails in any lane."""
        if not self.failed and not np.all(self.value(s.condition)):
            self.failed = s.code

    def run_prefetch(self, s: Prefetch) -> None:
        """Nothing changes; the index can be computed."""
        self.value(s.index)

    def run_if(self, s: If) -> None:
        """Take the branch that the condition, the same in all lanes, selects."""
        self.run(s.body if self.uniform(s.condition, "a condition") else s.orelse)

    def run_barrier(self, s: Barrier) -> None:
        """Barriers of the top level end a section; there are no others."""
        raise self.bug("a barrier below the top level")

    def run_shuffle(self, s: Shuffle) -> None:
        """The threads of a thread loop have neighbours; there are no others."""
        raise self.bug("a shuffle outside of a thread loop")

    def run_instruction(self, s: Instruction) -> None:
        """As for a shuffle."""
        raise self.bug(f"the instruction {s.name} outside of a thread loop")

    def run_for(self, s: For) -> None:
        """All iterations, or this thread's share of a parallel loop's."""
        start, stop = self.uniform(s.start, "a bound"), self.uniform(s.stop, "a bound")
        steps = range(int(start), int(stop), s.step)
        if s.kind == "vector":
            self.run_vector(s, steps)
            return
        if s.kind == "parallel":
            n = len(steps)
            steps = steps[n * self.tid // self.threads:n * (self.tid + 1) // self.threads]
        elif s.kind not in ("serial", "unroll"):
            raise self.bug(f"a {s.kind} loop where none may be")
        for i in steps:
            self.variables[s.var.name] = i
            self.run(s.body)

    def run_vector(self, s: For, steps: range) -> None:
        """All iterations at once, one per lane."""
        if self.lanes is not None:
            raise self.bug(f"the vector loop over {s.var.name} is inside a vector loop")
        if not len(steps):
            return
        self.lanes = len(steps)
        self.variables[s.var.name] = np.array(steps, np.int64)
        self.run(s.body)
        self.lanes = None

    def run_store(self, s: Store) -> None:
        """Write where the mask holds; two lanes may not write to one place."""
        target = self.memory[s.buffer.name]
        index, mask = self.place(s.buffer, s.index, s.mask)
        value = self.array(s.value)
        if self.lanes is None:
            if mask is None or mask:
                target[index] = value
            return
        if target.ndim == 1 and value.ndim == 0 and not lanewise(index):
            if mask is None or np.any(mask):
                target[index] = value
            return
        columns, index, value = self.active(index, value, mask)
        if target.ndim == 2:
            target[index, columns] = value
            return
        if not rising(index) and len(np.unique(index)) < len(index):
            raise self.bug(f"lanes of a vector loop store to the same place of {s.buffer.name}")
        target[index] = value

    def run_accumulate(self, s: Accumulate) -> None:
        """Combine with what is there, over the lanes where they share a place."""
        target = self.memory[s.buffer.name]
        index, mask = self.place(s.buffer, s.index, s.mask)
        value = self.array(s.value)
        wide, narrow = accumulator(s.buffer.dtype).numpy, s.buffer.dtype.numpy
        combine = ACCUMULATE[s.op]
        if self.lanes is None:
            if mask is None or mask:
                both = combine(target[index].astype(wide), value.astype(wide))
                target[index] = both.astype(narrow)
            return
        one_place = not lanewise(index)
        columns, index, value = self.active(index, value, mask)
        if not len(index):
            return
        value = value.astype(wide)
        if target.ndim == 2:
            both = combine(target[index, columns].astype(wide), value)
            target[index, columns] = both.astype(narrow)
        elif one_place:
            both = combine(target[index[0]].astype(wide), combine.reduce(value, dtype=wide))
            target[index[0]] = both.astype(narrow)
        elif rising(index):
            target[index] = combine(target[index].astype(wide), value).astype(narrow)
        else:
            places, inverse = np.unique(index, return_inverse=True)
            sums = target[places].astype(wide)
            combine.at(sums, inverse, value)
            target[places] = sums.astype(narrow)

    def active(
        self, index: Any, value: np.ndarray, mask: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lane numbers, indices and values of the lanes in which ``mask`` holds."""
        columns = self.columns()
        index, value = self.spread(index), self.spread(value)
        if mask is None:
            return columns, index, value
        chosen = self.spread(mask)
        return columns[chosen], index[chosen], value[chosen]

    def spread(self, value: Any) -> np.ndarray:
        """A value for each lane."""
        return value if lanewise(value) else np.full(self.lanes or 0, value)

    def columns(self) -> np.ndarray:
        """The lanes' columns in a buffer that was allocated under the vector loop."""
        return np.arange(self.lanes or 0)

    # --- expressions --------------------------------------------------------------------
    def value(self, e: Expr) -> Any:
        """A Python int or bool, a NumPy scalar or an array with a value per lane."""
        if isinstance(e, Const):
            # By identity: 0.0 equals -0.0.
            if id(e) not in self.constants:
                self.constants[id(e)] = constant(e)
            return self.constants[id(e)]
        if isinstance(e, Var):
            try:
                return self.variables[e.name]
            except KeyError:
                raise self.bug(f"the variable {e.name} has no value") from None
        return self.load(e) if isinstance(e, Load) else self.call(e)

    def array(self, e: Expr) -> np.ndarray:
        """The value of an expression as an array of its element type, with zero or one axis."""
        return np.asarray(self.value(e), e.dtype.numpy)

    def uniform(self, e: Expr, role: str) -> Any:
        """The value of an expression that must be the same in all lanes."""
        value = self.value(e)
        if lanewise(value):
            if np.any(value != value[0]):
                raise self.bug(f"{role} differs between the lanes of a vector loop")
            return value[0]
        return value

    def call(self, e: Call) -> Any:
        """The op table's meaning, or Python's for single indices and truths."""
        values = [self.value(a) for a in e.args]
        single = all(isinstance(v, int) for v in values)
        fast = _OPERATORS.get(e.op)
        if fast is None and single:
            fast = _CHOICES.get(e.op)
        # 16-bit floats are computed in f32, which the op table does.
        if fast is not None and e.args[0].dtype.name not in ("f16", "bf16"):
            result = fast(*values)
            if not single:
                return result
            return bool(result) if e.dtype is bool_ else wrapped(result)
        arrays = [np.asarray(v, a.dtype.numpy) for v, a in zip(values, e.args, strict=True)]
        return OPS[e.op].numpy(None, TensorType(e.dtype, ()), *arrays)[()]

    def load(self, e: Load) -> Any:
        """Read where the mask holds; ``other`` or zero elsewhere."""
        source = self.memory[e.buffer.name]
        index, mask = self.place(e.buffer, e.index, e.mask)
        if mask is None:
            if source.ndim == 1:
                return source[index]
            return source[index, self.columns()]
        other = np.zeros((), source.dtype) if e.other is None else self.array(e.other)
        if not np.any(mask):
            return np.where(mask, other, other)[()]
        safe = np.where(mask, index, 0)
        if source.ndim == 2:
            found = source[safe, self.columns()]
        else:
            found = source[safe]
        return np.where(mask, found, other)[()]

    def place(self, buffer: Buffer, e: Expr, condition: Expr | None) -> tuple[Any, Any]:
        """An access' index and mask. Raises ``CompilerBug`` if it is outside the buffer."""
        if buffer.name not in self.memory:
            raise self.bug(f"the buffer {buffer.name} does not exist")
        index = self.value(e)
        mask = self.masked(None if condition is None else self.value(condition))
        if mask is None:
            used = index
        else:
            used = np.broadcast_arrays(index, mask)[0][np.broadcast_arrays(mask, index)[0]]
        low, high = (used, used)
        if isinstance(used, np.ndarray):
            low, high = (used.min(), used.max()) if used.size else (0, -1)
        size = self.memory[buffer.name].shape[0]
        if low < 0 or high >= size:
            worst = low if low < 0 else high
            raise self.bug(f"{buffer.name}[{worst}] is outside its {size} elements")
        return index, mask

    def masked(self, mask: Any) -> Any:
        """The mask of an access, which other reasons can narrow."""
        return mask


def rising(index: np.ndarray) -> bool:
    """Whether every index is larger than the one before, so that none repeats."""
    return bool(np.all(index[1:] > index[:-1]))


def constant(e: Const) -> Any:
    """A number as a value: a Python int or bool for indices and truths, else a NumPy scalar."""
    if e.dtype is i64 or e.dtype is bool_:
        return int(e.value) if e.dtype is i64 else bool(e.value)
    return np.asarray(e.value).astype(e.dtype.numpy)[()]


RUN: dict[type, str] = {
    kind: f"run_{name}" for kind, name in (
        (Let, "let"), (Store, "store"), (Accumulate, "accumulate"), (Check, "check"),
        (Prefetch, "prefetch"), (Alloc, "alloc"), (Barrier, "barrier"), (If, "if"), (For, "for"),
        (Shuffle, "shuffle"), (Instruction, "instruction"))
}
