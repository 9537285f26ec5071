"""Every rewrite rule tried out: both sides evaluated by the interpreter on random values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from tilewright.errors import CompilerBug
from tilewright.ir.graph import (
    NO_ATTRS,
    OPS,
    Attrs,
    Graph,
    Node,
    full,
    input_node,
    make,
    topological,
)
from tilewright.ir.interp import run_graph
from tilewright.ir.patterns import ConstHole, Hole, Literal, OpPattern, Pattern
from tilewright.ir.rewrite import Rule
from tilewright.ir.types import DTYPES, DType, TensorType, bf16, concrete, f16, f32, f64

SHAPE = (24,)
NUMBERS = (0, 1, 2, 3, 4, -1, 0.5, 8, -2.5)
"""What constants are tried as."""
TOLERANCE = {f16: 4e-3, bf16: 3e-2, f32: 4e-6, f64: 1e-13}
"""Relative differences allowed between the sides, for rules that round otherwise."""


def check_rule(rule: Rule, seed: int = 0) -> int:
    """How many left sides were tried; each result must be that of the right side.

    NaNs must stand where NaNs stood; a zero keeps its sign unless it is a sum. Raises
    ``CompilerBug`` if the sides differ, or if no left side was found (the rule needs ``examples``).
    """
    random = np.random.default_rng(seed)
    tried = 0
    for root in instances(rule):
        result = rule.apply(root)
        if result is None:
            continue
        tried += 1
        inputs = [n for n in topological((root, result)) if n.op.name == "input"]
        arrays = [random_array(n, root, random) for n in inputs]
        left, right = run_graph(Graph(tuple(inputs), (root, result)), arrays)
        sums = ("reduce", "contract", "grouped")
        exact = all(n.op.kind not in sums for n in topological((root,)))
        if not same(left, right, root.dtype, exact):
            raise CompilerBug(
                f"rule {rule.name} is false on {root.type}: {left.tolist()} became {right.tolist()}"
            )
    if not tried:
        raise CompilerBug(f"rule {rule.name} was never tried: it needs examples")
    return tried


def same(left: np.ndarray, right: np.ndarray, dtype: DType, zero_signs: bool) -> bool:
    """Whether two results agree: ints exactly, floats within the tolerance of their type."""
    if not dtype.is_float:
        return bool(np.array_equal(left, right))
    a, b = left.astype(np.float64), right.astype(np.float64)
    if zero_signs and np.any((a == 0) & (b == 0) & (np.signbit(a) != np.signbit(b))):
        return False
    return bool(np.allclose(a, b, rtol=TOLERANCE[dtype], atol=0, equal_nan=True))


def instances(rule: Rule) -> Iterator[Node]:
    """Nodes that the left side may match: the rule's examples, else made from the pattern."""
    if rule.examples is not None:
        yield from rule.examples()
        return
    constants = sorted({p.name for p in parts(rule.left) if isinstance(p, ConstHole)})
    for dtype in DTYPES.values():
        for numbers in itertools.product(NUMBERS, repeat=len(constants)):
            try:
                yield instance(rule.left, dtype, dict(zip(constants, numbers, strict=True)))
            except (TypeError, ValueError):
                continue


def parts(pattern: Pattern) -> Iterator[Pattern]:
    """A pattern and all patterns in it."""
    yield pattern
    if isinstance(pattern, OpPattern):
        for inner in pattern.args or ():
            yield from parts(inner)


def instance(pattern: Pattern, dtype: DType, constants: dict[str, float]) -> Node:
    """A node that fits a pattern, its holes being inputs of ``dtype`` where they allow it.

    Raises ``TypeError`` or ``ValueError`` where the pattern does not make sense for that type.
    """
    if isinstance(pattern, Literal):
        if isinstance(pattern.value, float) and not dtype.is_float:
            raise TypeError("a float literal among integers")
        return full(TensorType(dtype, SHAPE), pattern.value)
    if isinstance(pattern, OpPattern):
        if pattern.args is None or not isinstance(pattern.attrs, Attrs | None):
            raise TypeError("a pattern that leaves inputs or attributes open")
        inputs = [instance(p, dtype, constants) for p in pattern.args]
        return make(OPS[pattern.op], inputs, pattern.attrs or NO_ATTRS)
    assert isinstance(pattern, Hole | ConstHole)
    own = dtype if dtype in pattern.types else pattern.types[0]
    type = TensorType(own, SHAPE)
    if isinstance(pattern, Hole):
        return input_node(pattern.name, type)
    return full(type, constants[pattern.name])


def random_array(node: Node, root: Node, random: np.random.Generator) -> np.ndarray:
    """Values for an input: ordinary ones mixed with NaN, infinities, zeros, extremes of ints.

    An input that indexes an axis gets indices within it.
    """
    shape, numpy = concrete(node.type.shape), node.dtype.numpy
    for user in topological((root,)):
        if user.op.kind == "index" and user.inputs[1] is node:
            size = concrete(user.inputs[0].type.shape)[user.attrs.axis]
            return random.integers(-size, size, shape).astype(numpy)
    if node.dtype.kind == "b":
        return random.random(shape) < 0.5
    special: list[float] = [0, 1, -1 if node.dtype.kind != "u" else 2]
    if node.dtype.is_float:
        ordinary = random.normal(0, 2, shape).astype(numpy)
        special += [-0.0, np.nan, np.inf, -np.inf]
    else:
        limits = np.iinfo(numpy)
        ordinary = random.integers(max(limits.min, -9), 10, shape).astype(numpy)
        special += [limits.min, limits.max]
    chosen = random.random(shape) < 0.4
    extremes = np.array(special, object)[random.integers(0, len(special), shape)]
    return np.where(chosen, np.asarray(extremes).astype(numpy), ordinary)
