"""The text of the Graph language::

    graph step(%x: f32[64, 10], %w: f32[10, 4]) -> (f32[64, 4]) {
      %0 = contract(%x, %w) [lhs=(0, 1), rhs=(1, 2), out=(0, 2)] : f32[64, 4]  # model.py:12 in step
      %1 = max(%0, 0.0) : f32[64, 4]
      return %1
    }

A number among the operands of an elementwise op is a ``full`` node with the type that the other
operands imply. A name that is no plain word is quoted: ``%"params['w'][0].x"``. ``%x@1`` is an
input of the first trace inside another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from tilewright.errors import Location
from tilewright.ir.graph import (
    CONSTANTS,
    OPS,
    Attrs,
    ConstAttrs,
    FullAttrs,
    Graph,
    InputAttrs,
    Node,
    Op,
    full,
    full_value,
    make,
)
from tilewright.ir.lex import (
    Bits,
    Reader,
    Token,
    annotated,
    location_text,
    name_text,
    number_text,
    unquoted,
)
from tilewright.ir.sizes import Size
from tilewright.ir.types import DTYPES, DType, TensorType, bool_, concrete

SMALL = 256
"""Bytes up to which the data of a captured array stands in the text."""


def show_graph(graph: Graph, notes: Mapping[int, str]) -> str:
    """The text; ``notes`` are put under the n-th of ``graph.nodes()``, 0 being the first line."""
    nodes = graph.nodes()
    noted = {n for i, n in enumerate(nodes, 1) if i in notes}
    own_line = lines_needed(graph, nodes, noted)
    names = {
        n: input_text(n.attrs) if n.op.name == "input" else f"%{n.op.name}" for n in graph.inputs
    }
    params = ", ".join(f"{names[n]}: {type_text(n.type)}" for n in graph.inputs)
    results = ", ".join(type_text(n.type) for n in graph.outputs)
    lines = annotated(f"graph {name_text(graph.name)}({params}) -> ({results}) {{", notes.get(0))
    count, declared = 0, set(graph.inputs)
    for i, node in enumerate(nodes, 1):
        if node in declared:
            lines += annotated("  ", notes.get(i))[1:]
        elif node in own_line:
            names[node] = f"%{count}"
            count += 1
            lines += annotated(f"  {names[node]} = {node_text(node, names)}", notes.get(i))
    returned = ", ".join(names[n] for n in graph.outputs)
    return "\n".join([*lines, f"  return {returned}".rstrip(), "}", ""])


def lines_needed(graph: Graph, nodes: Sequence[Node], noted: set[Node]) -> set[Node]:
    """The nodes that need a line of their own: all but numbers among elementwise operands."""
    result = {n for n in nodes if n.op.name != "full"} | set(graph.outputs) | noted
    for node in nodes:
        result.update(n for n in node.inputs if n not in numbers_of(node))
    return result


def numbers_of(node: Node) -> set[Node]:
    """The operands that may be written as numbers, their types being implied."""
    if node.op.kind != "elementwise":
        return set()
    types = [None if n.op.name == "full" else n.type for n in node.inputs]
    implied = implied_types(node.op, types, node.type)
    pairs = [(n, t) for n, t in zip(node.inputs, implied, strict=True) if n.op.name == "full"]
    return {n for n, _ in pairs} if all(n.type == t for n, t in pairs) else set()


def implied_types(
    op: Op, types: Sequence[TensorType | None], result: TensorType
) -> Sequence[TensorType | None]:
    """The types of the operands that are numbers (None in ``types``), if they are implied."""
    if op.name == "where" and len(types) == 3:
        return [result.with_dtype(bool_), result, result]
    like = next((t for t in types if t is not None), None)
    return [like] * len(types)


def node_text(node: Node, names: Mapping[Node, str]) -> str:
    """An op, its operands, attributes and type."""
    numbers = numbers_of(node)
    operands = ", ".join(
        full_text(n) if n in numbers else names[n] for n in node.inputs
    )
    if isinstance(node.attrs, FullAttrs):
        operands = full_text(node)
    attrs = attrs_text(node.attrs, node.type)
    return (
        f"{node.op.name}({operands}){attrs} : {type_text(node.type)}{location_text(node.loc)}"
    )


def full_text(node: Node) -> str:
    """The number of a ``full`` node; bits that do not fit its type as they are."""
    bits = node.attrs.bits
    if bits >= 1 << 8 * node.dtype.itemsize:
        return f"{bits:#x}"
    return number_text(full_value(node), node.dtype)


def attrs_text(attrs: Attrs, type: TensorType) -> str:
    """The fields of an attribute record; a small captured array brings its data along."""
    if isinstance(attrs, FullAttrs):
        return ""
    pairs = [f"{f.name}={value_text(getattr(attrs, f.name))}" for f in fields(attrs)]
    if isinstance(attrs, ConstAttrs) and attrs.digest in CONSTANTS:
        data = CONSTANTS[attrs.digest]
        if data.nbytes <= SMALL:
            pairs.append(f'data="{data.tobytes().hex()}"')
    return f" [{', '.join(pairs)}]" if pairs else ""


def value_text(value: Any) -> str:
    """A field of an attribute record: a number, size, truth, string, dtype or tuple of these."""
    if isinstance(value, tuple):
        items = ", ".join(value_text(v) for v in value)
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Size):
        return str(value)
    if isinstance(value, float):
        return number_text(value, DTYPES["f64"])
    if isinstance(value, DType):
        return value.name
    if isinstance(value, str):
        return json.dumps(value)
    raise TypeError(f"{value!r} has no text in an attribute record")


def type_text(type: TensorType) -> str:
    """``f32[64, n]``."""
    return f"{type.dtype.name}[{', '.join(map(str, type.shape))}]"


def input_text(attrs: InputAttrs) -> str:
    """``%x``, or ``%x@1`` for an input of an inner trace."""
    return f"%{name_text(attrs.name)}" + (f"@{attrs.level}" if attrs.level else "")


class GraphReader:
    """Reads one graph. What is well-formed but ill-typed is read as it stands, for the verifier."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.values: dict[str, Node] = {}

    def graph(self) -> Graph:
        """The whole text, from ``graph`` to the closing brace."""
        r = self.reader
        r.expect("graph")
        name = r.name()
        r.expect("(")
        inputs = tuple(r.listed(")", self.parameter))
        r.expect("->")
        r.expect("(")
        declared = r.listed(")", self.type)
        r.expect("{")
        while not r.accept("return"):
            self.line()
        token = r.next
        outputs = [] if r.next.text == "}" else [self.reference()]
        while r.accept(","):
            outputs.append(self.reference())
        r.expect("}")
        found = [n.type for n in outputs]
        if found != declared:
            raise r.error(f"the results have the types {found}, declared are {declared}", token)
        return Graph(inputs, tuple(outputs), name)

    def parameter(self) -> Node:
        """``%x: f32[64, 10]``."""
        key, attrs = self.input_name()
        self.reader.expect(":")
        node = make("input", (), attrs, None, self.type())
        self.values[key] = node
        return node

    def input_name(self) -> tuple[str, InputAttrs]:
        """The name of an input and its level."""
        text = self.reader.take("value").text
        level = self.reader.integer() if self.reader.accept("@") else 0
        attrs = InputAttrs(unquoted(text[1:]), level)
        return (text if not level else f"{text}@{level}"), attrs

    def type(self) -> TensorType:
        """``f32[64, n]``."""
        dtype = self.reader.dtype()
        self.reader.expect("[")
        return TensorType(dtype, tuple(self.reader.listed("]", self.reader.dim)))

    def reference(self) -> Node:
        """An input or an earlier value."""
        token = self.reader.next
        key, _ = self.input_name()
        if key not in self.values:
            raise self.reader.error(f"{key} is not defined", token)
        return self.values[key]

    def operand(self) -> Node | int | float | bool | Bits:
        """A value or a number."""
        return self.reader.number() if self.reader.at_number() else self.reference()

    def line(self) -> None:
        """``%3 = add(%1, %2) [attributes] : type  # location``."""
        r = self.reader
        target = r.take("value")
        if target.text in self.values:
            raise r.error(f"{target.text} is defined twice", target)
        r.expect("=")
        token = r.next
        row = OPS[r.one_of("op", OPS)]
        r.expect("(")
        operands = r.listed(")", self.operand)
        pairs = dict(r.listed("]", self.pair)) if r.accept("[") else {}
        r.expect(":")
        type = self.type()
        self.values[target.text] = self.node(row, operands, pairs, type, token)

    def node(
        self, row: Op, operands: Sequence[Any], pairs: dict[str, Any], type: TensorType,
        token: Token,
    ) -> Node:
        """The node of a line: the interned one, or a loose one if it breaks the op's type rule."""
        loc = self.reader.location(token.line)
        if row.name == "full":
            if len(operands) != 1 or isinstance(operands[0], Node):
                raise self.reader.error("full takes one number", token)
            return number_node(operands[0], type, loc)
        given = [n.type if isinstance(n, Node) else None for n in operands]
        implied = implied_types(row, given, type)
        inputs = []
        for operand, t in zip(operands, implied, strict=True):
            if not isinstance(operand, Node) and t is None:
                raise self.reader.error("the type of a number does not follow here", token)
            inputs.append(
                operand if isinstance(operand, Node) or t is None else number_node(operand, t, loc)
            )
        attrs = self.record(row, pairs, type, token)
        try:
            node = make(row, inputs, attrs, loc, type if row.kind == "source" else None)
        except (TypeError, ValueError):
            return Node(row, tuple(inputs), attrs, type, loc)
        return node if node.type == type else Node(row, tuple(inputs), attrs, type, loc)

    def record(self, row: Op, pairs: dict[str, Any], type: TensorType, token: Token) -> Attrs:
        """The attribute record of an op from its fields."""
        data = pairs.pop("data", None) if row.attrs is ConstAttrs else None
        names = {f.name for f in fields(row.attrs)}
        if set(pairs) - names:
            extra = ", ".join(sorted(set(pairs) - names))
            raise self.reader.error(f"{row.name} has no attribute {extra}", token)
        try:
            record = row.attrs(**pairs)
        except TypeError as problem:
            raise self.reader.error(f"{row.name}: {problem}", token) from None
        if isinstance(record, ConstAttrs) and data is not None:
            flat = np.frombuffer(bytes.fromhex(data), type.dtype.numpy)
            array = flat.reshape(concrete(type.shape))
            CONSTANTS.setdefault(record.digest, array)
        return record

    def pair(self) -> tuple[str, Any]:
        """``axes=(0, 1)``."""
        name = self.reader.name()
        self.reader.expect("=")
        return name, self.field()

    def field(self) -> Any:
        """A value that :func:`value_text` wrote."""
        r = self.reader
        if r.accept("("):
            return tuple(r.listed(")", self.field))
        if r.next.kind == "string":
            return r.name()
        if r.next.text in DTYPES:
            return r.dtype()
        if not r.at_number():
            return r.dim()
        start = r.at
        value = r.number()
        if r.next.text in ("+", "-", "*"):
            r.at = start
            return r.dim()
        return value.scalar(DTYPES["f64"]).item() if isinstance(value, Bits) else value


def number_node(value: int | float | bool | Bits, type: TensorType, loc: Location | None) -> Node:
    """The ``full`` node of a number as written."""
    if isinstance(value, Bits):
        return make("full", (), FullAttrs(value.bits), loc, type)
    return full(type, value, loc)
