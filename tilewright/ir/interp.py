"""The NumPy interpreter of both languages: the definition of what a graph and a kernel mean.

Slow and plain. A ``vector`` loop runs all its iterations at once, as arrays with one element per
iteration ("lane"), which the language allows; every other loop runs in Python.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.errors import CompilerBug, Unsupported
from tilewright.ir.graph import OPS, Graph, Node
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
    Kernel,
    Let,
    Load,
    Stmt,
    Store,
    Var,
)
from tilewright.ir.sizes import evaluate
from tilewright.ir.types import DType, TensorType, accumulator, as_number, bool_, concrete, i64


def run_graph(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The results of ``graph`` on arrays of its inputs' shapes and dtypes, as fresh arrays.

    Raises ``ValueError`` if the arrays do not fit the inputs, ``IndexError`` for an index outside
    its axis and ``CompilerBug`` if an op gives something else than its type rule says.
    """
    if len(arrays) != len(graph.inputs):
        raise ValueError(f"{len(arrays)} arrays for {len(graph.inputs)} inputs")
    values: dict[Node, np.ndarray] = {}
    for node, array in zip(graph.inputs, arrays, strict=True):
        if TensorType(node.dtype, array.shape) != node.type or array.dtype != node.dtype.numpy:
            raise ValueError(
                f"input {node.attrs.name} is {node.type}, got {array.dtype}{list(array.shape)}"
            )
        values[node] = array
    for node in graph.nodes():
        if node not in values:
            values[node] = run_node(node, [values[n] for n in node.inputs])
    return [np.array(values[n], order="C", copy=True) for n in graph.outputs]


def run_node(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """The value of one node. Raises ``CompilerBug`` if it does not have the node's type."""
    if node.op.name == "input":
        raise CompilerBug(f"the graph uses {node.attrs.name}, which is not one of its inputs")
    with np.errstate(all="ignore"):
        result = np.asarray(node.op.numpy(node.attrs, node.type, *inputs))
    if result.shape != concrete(node.type.shape) or result.dtype != node.dtype.numpy:
        raise CompilerBug(
            f"{node.op.name} gave {result.dtype}{list(result.shape)}, its type is {node.type}"
        )
    return result


def run_kernel(
    kernel: Kernel, arrays: Sequence[np.ndarray], threads: int = 1,
    sizes: Mapping[str, int] | None = None,
) -> int:
    """Run ``kernel`` on one C-contiguous array per parameter, in place, with these ``sizes``.

    Returns the code of the first ``Check`` that failed, 0 if none did. Undefined contents
    (workspaces, fresh buffers) are NaN or 0xAB bytes. Between two barriers the threads of the
    team run one after another, so that a missing barrier shows.
    Raises ``CompilerBug`` for an access outside a buffer and for what the language forbids.
    """
    memory: dict[str, np.ndarray] = {}
    sizes = sizes or {}
    if len(arrays) != len(kernel.params):
        raise ValueError(f"{kernel.name}: {len(arrays)} arrays for {len(kernel.params)} parameters")
    for buffer, array in zip(kernel.params, arrays, strict=True):
        if array.dtype != buffer.dtype.numpy or array.size != evaluate(buffer.size, sizes):
            raise ValueError(
                f"{kernel.name}: {buffer.name} is {buffer.dtype}[{buffer.size}], "
                f"got {array.dtype}[{array.size}]"
            )
        if not array.flags.c_contiguous:
            raise ValueError(f"{kernel.name}: the array for {buffer.name} is not contiguous")
        memory[buffer.name] = array.reshape(-1)
        if buffer.access == "workspace":
            memory[buffer.name][:] = poison(buffer.dtype)
    team = [Thread(kernel.name, dict(memory), tid, threads, sizes) for tid in range(threads)]
    with np.errstate(all="ignore"):
        for section in sections(kernel.body):
            for thread in team:
                thread.run(section)
    return next((t.failed for t in team if t.failed), 0)


def sections(body: Sequence[Stmt]) -> list[list[Stmt]]:
    """The top level of a kernel, cut at its barriers."""
    result: list[list[Stmt]] = [[]]
    for statement in body:
        if isinstance(statement, Barrier):
            result.append([])
        else:
            result[-1].append(statement)
    return result


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

    def run(self, body: Sequence[Stmt]) -> None:
        """Run statements in order."""
        for statement in body:
            RUN[type(statement)](self, statement)

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

    def run_if(self, s: If) -> None:
        """Take the branch that the condition, the same in all lanes, selects."""
        self.run(s.body if self.uniform(s.condition, "a condition") else s.orelse)

    def run_barrier(self, s: Barrier) -> None:
        """Barriers of the top level end a section; there are no others."""
        raise self.bug("a barrier below the top level")

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
            raise Unsupported(f"the interpreter does not run {s.kind} loops")
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
        mask = None if condition is None else self.value(condition)
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


def rising(index: np.ndarray) -> bool:
    """Whether every index is larger than the one before, so that none repeats."""
    return bool(np.all(index[1:] > index[:-1]))


def constant(e: Const) -> Any:
    """A number as a value: a Python int or bool for indices and truths, else a NumPy scalar."""
    if e.dtype is i64 or e.dtype is bool_:
        return int(e.value) if e.dtype is i64 else bool(e.value)
    return np.asarray(e.value).astype(e.dtype.numpy)[()]


RUN: dict[type, Callable[[Thread, Any], None]] = {
    Let: Thread.run_let, Store: Thread.run_store, Accumulate: Thread.run_accumulate,
    Check: Thread.run_check, Alloc: Thread.run_alloc, Barrier: Thread.run_barrier,
    If: Thread.run_if, For: Thread.run_for,
}
