"""The Graph language: frozen, hash-consed tensor operations on immutable values.

Two nodes with the same op, inputs and attributes are the same object, so ``is`` is structural
equality and every builder eliminates common subexpressions for free.
"""

from __future__ import annotations

import functools
import hashlib
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilewright.errors import Location
from tilewright.ir.sizes import Dim, Size
from tilewright.ir.types import DType, TensorType


@dataclass(frozen=True)
class Attrs:
    """Base of the attribute records: each op with attributes has its own frozen dataclass."""


@dataclass(frozen=True)
class NoAttrs(Attrs):
    """The record of an op without attributes."""


NO_ATTRS = NoAttrs()


@dataclass(frozen=True, eq=False)
class Op:
    """One row of the op table.

    kind        'source' | 'elementwise' | 'reduce' | 'view' | 'contract' | 'grouped' | 'index'
                | 'scan' | 'sort' | 'search' | 'routine'
    arity       number of inputs; None for any number
    infer       (attrs, input types) -> result type; raises ``TypeError``/``ValueError`` on misuse
    numpy       (attrs, result type, *arrays) -> array: the definition of what the op means
    attrs       class of the attribute record
    derivative  elementwise: (out, *inputs) -> one partial derivative Node per input (None: zero)
    transpose   linear ops: (node, cotangent) -> one cotangent Node per input (None: zero)
    expand      composite ops: (node) -> Node built from primitives; None marks a primitive
    ufunc       the NumPy ufunc or function that this op implements, for dispatch and docs
    domain      (low, high) of test inputs for floats
    flops       floating point operations per output element, for the cost model
    doc         one line for the public docs
    """

    name: str
    kind: str
    arity: int | None
    infer: Callable[..., TensorType]
    numpy: Callable[..., np.ndarray]
    attrs: type[Attrs] = NoAttrs
    derivative: Callable[..., tuple[Any, ...]] | None = None
    transpose: Callable[..., tuple[Any, ...]] | None = None
    expand: Callable[[Any], Any] | None = None
    ufunc: Any = None
    types: tuple[DType, ...] = ()
    domain: tuple[float, float] = (-3.0, 3.0)
    flops: int = 1
    doc: str = ""

    def __repr__(self) -> str:
        return self.name


OPS: dict[str, Op] = {}
"""The op table, filled by :mod:`tilewright.ir.ops`."""


class Node:
    """One operation and its result. Create with :func:`make`; compare with ``is``."""

    __slots__ = ("op", "inputs", "attrs", "type", "loc", "__weakref__")
    op: Op
    inputs: tuple[Node, ...]
    attrs: Any
    type: TensorType
    loc: Location | None

    def __init__(
        self, op: Op, inputs: tuple[Node, ...], attrs: Attrs, type: TensorType,
        loc: Location | None,
    ) -> None:
        set_op(self, op)
        set_inputs(self, inputs)
        set_attrs(self, attrs)
        set_type(self, type)
        set_loc(self, loc)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("nodes are frozen")

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    def __repr__(self) -> str:
        return f"<{self.op.name} : {self.type}>"

    # Arithmetic on nodes builds nodes; it serves the derivative and expansion rows of the table.
    # Plain numbers become constants of this node's type. No promotion happens here.
    def __add__(self, other: Operand) -> Node:
        return apply("add", self, other)

    def __radd__(self, other: Operand) -> Node:
        return apply("add", other, self)

    def __sub__(self, other: Operand) -> Node:
        return apply("sub", self, other)

    def __rsub__(self, other: Operand) -> Node:
        return apply("sub", other, self)

    def __mul__(self, other: Operand) -> Node:
        return apply("mul", self, other)

    def __rmul__(self, other: Operand) -> Node:
        return apply("mul", other, self)

    def __truediv__(self, other: Operand) -> Node:
        return apply("div", self, other)

    def __rtruediv__(self, other: Operand) -> Node:
        return apply("div", other, self)

    def __neg__(self) -> Node:
        return apply("neg", self)

    __hash__ = object.__hash__

    def __lt__(self, other: Operand) -> Node:
        return apply("lt", self, other)

    def __le__(self, other: Operand) -> Node:
        return apply("le", self, other)

    def __gt__(self, other: Operand) -> Node:
        return apply("gt", self, other)

    def __ge__(self, other: Operand) -> Node:
        return apply("ge", self, other)

    def __and__(self, other: Operand) -> Node:
        return apply("and", self, other)

    def __or__(self, other: Operand) -> Node:
        return apply("or", self, other)

    def __invert__(self) -> Node:
        return apply("not", self)


# A node is frozen, and there are many: their fields are set past ``__setattr__``, and quickly.
set_op, set_inputs, set_attrs, set_type, set_loc = (
    getattr(Node, name).__set__ for name in ("op", "inputs", "attrs", "type", "loc")
)

Operand = Node | int | float | bool | Size

_interned: weakref.WeakValueDictionary[tuple[Any, ...], Node] = weakref.WeakValueDictionary()


def make(
    op: Op | str, inputs: Sequence[Node] = (), attrs: Attrs = NO_ATTRS,
    loc: Location | None = None, type: TensorType | None = None,
) -> Node:
    """The node for this op, inputs and attributes: an existing one, or a new one with its type.

    ``type`` is given only for sources, whose type does not follow from inputs.
    Raises ``TypeError`` or ``ValueError`` from the op's type rule.
    """
    row = OPS[op] if isinstance(op, str) else op
    key = (row.name, tuple(map(id, inputs)), attrs, type)
    found = _interned.get(key)
    if found is not None:
        return found
    if row.arity is not None and len(inputs) != row.arity:
        raise TypeError(f"{row.name} takes {row.arity} inputs, got {len(inputs)}")
    if not isinstance(attrs, row.attrs):
        raise TypeError(f"{row.name} takes {row.attrs.__name__}, got {attrs!r}")
    result = type if type is not None else row.infer(attrs, *(n.type for n in inputs))
    return _interned.setdefault(key, Node(row, tuple(inputs), attrs, result, loc))


def apply(op: str, *operands: Operand) -> Node:
    """An elementwise op on nodes; plain numbers become constants of a sibling node's type."""
    like = next(x for x in operands if isinstance(x, Node))
    if op == "where":
        like = next((x for x in operands[1:] if isinstance(x, Node)), like)
    return make(op, [x if isinstance(x, Node) else full(like.type, x) for x in operands])


@dataclass(frozen=True)
class InputAttrs(Attrs):
    """A parameter: its name, unique in its graph, and how many traces enclose its own."""

    name: str
    level: int = 0


@dataclass(frozen=True)
class FullAttrs(Attrs):
    """One value at every place. NaNs and signed zeros are told apart by the stored bits."""

    bits: int
    """The value's bit pattern in its dtype, as an unsigned number."""


@dataclass(frozen=True)
class SizeAttrs(Attrs):
    """size: the number, converted to the element type, that this size has in a run, everywhere."""

    size: Dim


@dataclass(frozen=True)
class ConstAttrs(Attrs):
    """A captured array, known by a digest of its bytes; the data is in :data:`CONSTANTS`."""

    digest: str


CONSTANTS: dict[str, np.ndarray] = {}
"""Read-only, C-contiguous data of captured arrays by digest."""


def input_node(name: str, type: TensorType, level: int = 0, loc: Location | None = None) -> Node:
    """A graph parameter."""
    return make("input", (), InputAttrs(name, level), loc, type)


def captured(array: np.ndarray, type: TensorType, loc: Location | None = None) -> Node:
    """A constant of a snapshot of this array; one value everywhere becomes a ``full`` node."""
    plain = np.ascontiguousarray(array, type.dtype.numpy).reshape(array.shape)
    if plain.size == 0:
        return full(type, 0, loc)
    raw = plain.reshape(-1).view(np.uint8).reshape(plain.size, -1)
    if (raw[-1] == raw[0]).all() and (raw == raw[0]).all():
        return full(type, plain.reshape(-1)[0], loc)
    # The type belongs to the digest: arrays of several types may have the same bytes.
    digest = hashlib.blake2b(repr(type).encode() + raw.tobytes(), digest_size=16).hexdigest()
    if digest not in CONSTANTS:
        kept = plain.copy()
        kept.setflags(write=False)
        CONSTANTS[digest] = kept
    return make("const", (), ConstAttrs(digest), loc, type)


def full(type: TensorType, value: Any, loc: Location | None = None) -> Node:
    """A tensor with one value (a Python or NumPy scalar, converted to the dtype) everywhere.

    The value may be a size that is known when the program runs: that is an op of its own.
    """
    if isinstance(value, Size):
        return make("size", (), SizeAttrs(value), loc, type)
    with np.errstate(all="ignore"):
        scalar = np.asarray(value).astype(type.dtype.numpy)
    bits = int.from_bytes(scalar.tobytes(), "little")
    return make("full", (), FullAttrs(bits), loc, type)


def full_value(node: Node) -> Any:
    """The NumPy scalar of a ``full`` node."""
    return _scalar(node.dtype, node.attrs.bits)


@functools.lru_cache(maxsize=4096)
def _scalar(dtype: DType, bits: int) -> Any:
    return np.frombuffer(bits.to_bytes(dtype.itemsize, "little"), dtype.numpy)[0]


@dataclass(frozen=True)
class Graph:
    """A function on tensors: parameters and results. The rest is reachable from ``outputs``."""

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    name: str = field(default="graph", compare=False)

    def nodes(self) -> list[Node]:
        """All nodes, every one after its inputs; parameters first."""
        return topological(self.outputs, self.inputs)

    def rebuild(self, outputs: Iterable[Node]) -> Graph:
        """The same function with other results."""
        return Graph(self.inputs, tuple(outputs), self.name)


def topological(
    outputs: Iterable[Node], first: Iterable[Node] = (),
    leaf: Callable[[Node], bool] | None = None,
) -> list[Node]:
    """The nodes that ``outputs`` depend on, every one after its inputs, in a stable order.

    Nothing below a ``leaf`` is looked at, and it is left out itself.
    """
    order: dict[Node, None] = dict.fromkeys(first)
    left_out: set[Node] = set()
    for root in outputs:
        stack = [root]
        while stack:
            node = stack[-1]
            if node in order or node in left_out:
                stack.pop()
            elif leaf is not None and leaf(node):
                left_out.add(stack.pop())
            elif waiting := [n for n in node.inputs if n not in order and n not in left_out]:
                stack += reversed(waiting)
            else:
                order[stack.pop()] = None
    return list(order)


def substitute(outputs: Sequence[Node], mapping: Mapping[Node, Node]) -> tuple[Node, ...]:
    """``outputs`` with the nodes of ``mapping`` replaced, all at once."""
    return transform(outputs, lambda node, inputs: rebuild_node(node, inputs), mapping)


def rebuild_node(node: Node, inputs: Sequence[Node]) -> Node:
    """``node`` on other inputs; itself if they are the same."""
    if all(a is b for a, b in zip(node.inputs, inputs, strict=True)):
        return node
    return make(node.op, inputs, node.attrs, node.loc)


def transform(
    outputs: Sequence[Node], rule: Callable[[Node, tuple[Node, ...]], Node],
    mapping: Mapping[Node, Node] | None = None,
) -> tuple[Node, ...]:
    """Rebuild bottom-up: ``rule(node, new inputs)`` gives each node's replacement."""
    done: dict[Node, Node] = dict(mapping or {})
    for node in topological(outputs):
        if node not in done:
            done[node] = rule(node, tuple([done[n] for n in node.inputs]))
    return tuple([done[n] for n in outputs])


def users(graph: Graph) -> dict[Node, list[Node]]:
    """The nodes that read each node, each user once per use."""
    result: dict[Node, list[Node]] = {n: [] for n in graph.nodes()}
    for node in result:
        for source in node.inputs:
            result[source].append(node)
    return result
