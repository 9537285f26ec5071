"""Products that sum over shared axes: matmul, dot, tensordot, einsum, all as ``contract`` nodes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.errors import ShapeError
from tilewright.frontend import build
from tilewright.frontend.build import as_node, axis_of, cast, emit, reduce, wrap
from tilewright.frontend.elementwise import check_keywords
from tilewright.frontend.location import here
from tilewright.frontend.moves import diagonal_node
from tilewright.frontend.shapes import permute, sizes
from tilewright.frontend.tracer import Tracer, describe, implements
from tilewright.ir.attrs import ContractAttrs
from tilewright.ir.graph import Node
from tilewright.ir.types import bool_, size_of

Labels = tuple[int, ...]

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def operands(name: str, *values: Any, dtype: Any = None) -> list[Node]:
    """Operands as nodes of their common type; Python numbers count as arrays, as in NumPy.

    bf16 with bf16 gives bf16, where NumPy falls back to f32 for want of a loop.
    """
    nodes = [as_node(v, f"an operand of {name}") for v in values]
    kinds = (n.dtype.numpy for n in nodes)
    kind = np.dtype(dtype) if dtype is not None else build.common_dtype(name, *kinds)
    target = build.checked_dtype(kind, f"{name}: the result")
    return [cast(node, target) for node in nodes]


def multiply(a: Any, b: Any) -> Any:
    """The product with a number, which counts as an array here."""
    left, right = (v if isinstance(v, Tracer) else np.asarray(v) for v in (a, b))
    return np.multiply(left, right)  # type: ignore[arg-type]


def contract(x: Node, y: Node, lhs: Labels, rhs: Labels, out: Labels) -> Node:
    """Einsum of two operands; labels that only one operand has, and not ``out``, are summed."""
    x, lhs = sum_alone(x, lhs, {*rhs, *out})
    y, rhs = sum_alone(y, rhs, {*lhs, *out})
    return emit("contract", (x, y), ContractAttrs(lhs, rhs, out))


def sum_alone(node: Node, labels: Labels, kept: set[int]) -> tuple[Node, Labels]:
    """The node with the axes that nothing else names summed."""
    axes = [i for i, label in enumerate(labels) if label not in kept]
    op = "reduce_max" if node.dtype is bool_ else "sum"
    return reduce(op, node, axes), tuple(label for label in labels if label in kept)


def mismatch(name: str, x: Node, y: Node, why: str, hint: str | None = None) -> ShapeError:
    """The error of two operands that do not fit."""
    return ShapeError(
        f"{name}: the shapes do not fit",
        expected=why,
        got=f"{describe(x)} and {describe(y)}",
        loc=here(),
        hint=hint,
    )


def product(name: str, x: Node, y: Node, left: str, right: str, result: str) -> Node:
    """A product of the last axes (one letter each), over broadcast leading axes.

    ``left``, ``right`` and ``result`` name the last axes: "mk", "kn", "mn" for a matrix product.
    """
    batch_x, batch_y = x.shape[: len(x.shape) - len(left)], y.shape[: len(y.shape) - len(right)]
    try:
        batch = build.broadcast(batch_x, batch_y)
    except ValueError:
        raise mismatch(name, x, y, "leading axes that broadcast") from None
    numbers = {letter: len(batch) + i for i, letter in enumerate(sorted(set(left + right)))}
    last_x, last_y = tuple(numbers[c] for c in left), tuple(numbers[c] for c in right)
    x, lhs = drop_ones(x, batch_x, batch)
    y, rhs = drop_ones(y, batch_y, batch)
    missing = [i for i in range(len(batch)) if i not in lhs and i not in rhs]
    out = tuple(i for i in range(len(batch)) if i not in missing) + tuple(
        numbers[c] for c in result
    )
    made = contract(x, y, lhs + last_x, rhs + last_y, out)
    return build.reshape(made, (*batch, *made.shape[len(batch) - len(missing) :]))


def drop_ones(node: Node, own: Sequence[int], batch: Sequence[int]) -> tuple[Node, Labels]:
    """The node without leading axes of size 1, and the labels of the other axes."""
    first = len(batch) - len(own)
    labels = tuple(first + i for i, d in enumerate(own) if d != 1)
    shape = tuple(d for d in own if d != 1) + tuple(node.shape[len(own) :])
    return build.reshape(node, shape), labels


def _product(name: str, left: str, right: str, result: str) -> Any:
    def run(x1: Any, x2: Any, /) -> Tracer:
        x, y = operands(name, x1, x2)
        if len(x.shape) < len(left) or len(y.shape) < len(right):
            raise mismatch(name, x, y, f"at least {len(left)} and {len(right)} axes")
        shared = [
            (x.shape[-len(left) + left.index(c)], y.shape[-len(right) + right.index(c)])
            for c in left
            if c in right
        ]
        if any(a != b for a, b in shared):
            raise mismatch(name, x, y, "equal sizes on the axes that are summed")
        return wrap(product(name, x, y, left, right, result), x1, x2)

    return run


for _name, _parts in {
    "vecdot": ("k", "k", ""),
    "matvec": ("mk", "k", "m"),
    "vecmat": ("k", "kn", "n"),
}.items():
    if hasattr(np, _name):
        implements(getattr(np, _name))(_product(f"np.{_name}", *_parts))


@implements(np.matmul, np.linalg.matmul)
def matmul(x1: Any, x2: Any, /) -> Tracer:
    """``np.matmul``."""
    x, y = operands("np.matmul", x1, x2)
    if not x.shape or not y.shape:
        raise mismatch(
            "np.matmul", x, y, "at least one axis each", "use * to multiply with a number"
        )
    left = "mk" if len(x.shape) > 1 else "k"
    right = "kn" if len(y.shape) > 1 else "k"
    if x.shape[-1] != y.shape[-len(right)]:
        raise mismatch(
            "np.matmul",
            x,
            y,
            f"equal sizes on the axes that are summed, not {x.shape[-1]} and "
            f"{y.shape[-len(right)]}",
            "transpose an operand, or check the order of the operands",
        )
    result = left.replace("k", "") + right.replace("k", "")
    return wrap(product("np.matmul", x, y, left, right, result), x1, x2)


@implements(np.dot)
def dot(a: Any, b: Any, out: Any = None) -> Any:
    """``np.dot``: the last axis of a with the last but one of b."""
    check_keywords("np.dot", {"out": out}, ())
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return multiply(a, b)
    return tensordot(a, b, ((np.ndim(a) - 1,), (max(0, np.ndim(b) - 2),)), name="np.dot")


@implements(np.vdot)
def vdot(a: Any, b: Any, /) -> Any:
    """``np.vdot``: the dot product of the flattened operands."""
    return dot(np.ravel(a), np.ravel(b))


@implements(np.inner)
def inner(a: Any, b: Any, /) -> Any:
    """``np.inner``: over the last axes."""
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return multiply(a, b)
    return tensordot(a, b, ((-1,), (-1,)), name="np.inner")


@implements(np.outer)
def outer(a: Any, b: Any, out: Any = None) -> Any:
    """``np.outer``."""
    check_keywords("np.outer", {"out": out}, ())
    return np.multiply(np.reshape(a, (-1, 1)), np.reshape(b, (1, -1)))


@implements(np.linalg.outer)
def linalg_outer(x1: Any, x2: Any, /) -> Any:
    """``np.linalg.outer``."""
    return outer(x1, x2)


@implements(np.kron)
def kron(a: Any, b: Any) -> Any:
    """``np.kron``."""
    rank = max(np.ndim(a), np.ndim(b))
    shapes = [(1,) * (rank - np.ndim(v)) + np.shape(v) for v in (a, b)]
    wide = [
        np.reshape(v, [d for n in shape for d in ((n, 1) if first else (1, n))])
        for v, shape, first in ((a, shapes[0], True), (b, shapes[1], False))
    ]
    return np.reshape(np.multiply(*wide), [m * n for m, n in zip(*shapes, strict=True)])


@implements(np.tensordot, np.linalg.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2, *, name: str = "np.tensordot") -> Tracer:
    """``np.tensordot``."""
    x, y = operands(name, a, b)
    if isinstance(axes, (int, np.integer)):
        pairs = (tuple(range(len(x.shape) - int(axes), len(x.shape))), tuple(range(int(axes))))
    else:
        first, second = axes
        pairs = (sizes(first, name), sizes(second, name))
    left = [axis_of(i, len(x.shape), name) for i in pairs[0]]
    right = [axis_of(i, len(y.shape), name) for i in pairs[1]]
    if len(left) != len(right) or any(
        x.shape[i] != y.shape[j] for i, j in zip(left, right, strict=True)
    ):
        raise mismatch(
            name,
            x,
            y,
            "equal sizes on the axes that are summed",
            f"the axes are {tuple(left)} of the first and {tuple(right)} of the second",
        )
    lhs = list(range(len(x.shape)))
    rhs = [len(lhs) + i for i in range(len(y.shape))]
    for i, j in zip(left, right, strict=True):
        rhs[j] = lhs[i]
    out = [n for n in lhs if n not in rhs] + [n for n in rhs if n not in lhs]
    return wrap(contract(x, y, tuple(lhs), tuple(rhs), tuple(out)), a, b)


# --- einsum -----------------------------------------------------------------------------------
@implements(np.einsum)
def einsum(
    *args: Any,
    out: Any = None,
    optimize: Any = False,
    dtype: Any = None,
    order: str = "K",
    casting: str = "safe",
) -> Tracer:
    """``np.einsum`` with any number of operands, repeated labels and ellipses."""
    check_keywords("np.einsum", {"out": out}, ())
    subscripts, values = interleaved(args) if not isinstance(args[0], str) else (args[0], args[1:])
    nodes = operands("np.einsum", *values, dtype=dtype)
    labels, result = parse(subscripts, nodes)
    numbers = {
        letter: i for i, letter in enumerate(dict.fromkeys(itertools.chain(*labels, result)))
    }
    coded = [tuple(numbers[c] for c in word) for word in labels]
    terms = [without_repeats(node, word) for node, word in zip(nodes, coded, strict=True)]
    terms = squeeze_broadcast(terms)
    return wrap(finish(terms, tuple(numbers[c] for c in result)), *values)


def interleaved(args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """The form einsum(x, [0, 1], y, [1, 2], [0, 2]) as a string and its operands."""
    def word(labels: Any) -> str:
        return "".join("..." if label is Ellipsis else LETTERS[label] for label in labels)

    values, words = args[0 : len(args) - len(args) % 2 : 2], args[1::2]
    text = ",".join(map(word, words))
    return (f"{text}->{word(args[-1])}" if len(args) % 2 else text), values


def parse(subscripts: str, nodes: Sequence[Node]) -> tuple[list[list[str]], list[str]]:
    """The labels of operands and result; those of an ellipsis are '0', '1' ... from the end."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    words = left.split(",")
    if len(words) != len(nodes):
        raise ShapeError(
            "np.einsum: the subscripts name another number of operands",
            expected=len(words),
            got=len(nodes),
            loc=here(),
        )
    check_letters(subscripts, [*words, right])
    labels = [spell(word, node) for word, node in zip(words, nodes, strict=True)]
    dots = max((sum(c.isdigit() for c in word) for word in labels), default=0)
    ellipsis = [str(i) for i in reversed(range(dots))]
    if arrow:
        before, found, after = right.partition("...")
        result = [*before, *(ellipsis if found else []), *after]
    else:
        flat = [c for word in labels for c in word if not c.isdigit()]
        result = ellipsis + sorted(c for c in set(flat) if flat.count(c) == 1)
    unknown = set(result) - set(itertools.chain(*labels))
    if unknown or len(set(result)) != len(result):
        raise ShapeError(
            "np.einsum: the result's labels are repeated or in no operand",
            got=subscripts,
            loc=here(),
        )
    return labels, result


def check_letters(subscripts: str, words: Sequence[str]) -> None:
    """Raise ``ShapeError`` for a label that is no letter."""
    wrong = [c for word in words for c in word.replace("...", "", 1) if c not in LETTERS]
    if wrong:
        raise ShapeError(
            f"np.einsum: {wrong[0]!r} is no label",
            expected="letters, with one ... per operand, commas and one ->",
            got=subscripts,
            loc=here(),
        )


def spell(word: str, node: Node) -> list[str]:
    """The label of each axis of an operand."""
    before, found, after = word.partition("...")
    more = len(node.shape) - len(before) - len(after)
    if more < 0 or (more and not found):
        raise ShapeError(
            "np.einsum: the subscripts do not name the axes of an operand",
            expected=f"{len(before) + len(after)} axes ({word})",
            got=describe(node),
            loc=here(),
        )
    return [*before, *(str(i) for i in reversed(range(more))), *after]


def without_repeats(node: Node, labels: Labels) -> tuple[Node, Labels]:
    """The operand with each label once: repeated ones take the diagonal."""
    for label in set(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            if node.shape[first] != node.shape[second]:
                raise ShapeError(
                    "np.einsum: a repeated label has two sizes", got=describe(node), loc=here()
                )
            node = diagonal_node(node, 0, first, second)
            rest = [x for i, x in enumerate(labels) if i not in (first, second)]
            labels = (*rest, label)
    return node, labels


def squeeze_broadcast(terms: list[tuple[Node, Labels]]) -> list[tuple[Node, Labels]]:
    """Axes of size 1 whose label is larger elsewhere are dropped; other differences raise."""
    full: dict[int, int] = {}
    for node, labels in terms:
        for label, d in zip(labels, node.shape, strict=True):
            if d != 1 and full.setdefault(label, d) != d:
                raise ShapeError(
                    "np.einsum: a label has two sizes",
                    expected=f"{full[label]}",
                    got=f"{d} in {describe(node)}",
                    loc=here(),
                )
    result = []
    for node, labels in terms:
        keep = [
            i
            for i, label in enumerate(labels)
            if not (node.shape[i] == 1 and full.get(label, 1) != 1)
        ]
        shape = tuple(node.shape[i] for i in keep)
        result.append((build.reshape(node, shape), tuple(labels[i] for i in keep)))
    return result


def finish(terms: list[tuple[Node, Labels]], out: Labels) -> Node:
    """Contract pairs, the cheapest first, until one operand is left; then sum and permute it."""
    while len(terms) > 1:
        i, j = min(
            itertools.combinations(range(len(terms)), 2),
            key=lambda pair: cost(terms[pair[0]], terms[pair[1]], terms, pair, out),
        )
        (x, lhs), (y, rhs) = terms[i], terms[j]
        rest = [t for n, t in enumerate(terms) if n not in (i, j)]
        needed = set(out).union(*(labels for _, labels in rest))
        result = tuple(dict.fromkeys(label for label in lhs + rhs if label in needed))
        if not rest:
            result = out
        terms = [*rest, (contract(x, y, lhs, rhs, result), result)]
    node, labels = sum_alone(*terms[0], set(out))
    return permute(node, tuple(labels.index(label) for label in out))


def cost(x: tuple[Node, Labels], y: tuple[Node, Labels], terms: Any, pair: Any, out: Labels) -> Any:
    """Multiplications of a pair, then the size of its result less that of its operands."""
    sizes_of = dict(zip(x[1] + y[1], x[0].shape + y[0].shape, strict=True))
    rest = [labels for n, (_, labels) in enumerate(terms) if n not in pair]
    needed = set(out).union(*rest)
    result = size_of(tuple(d for label, d in sizes_of.items() if label in needed))
    return size_of(tuple(sizes_of.values())), result - x[0].type.size - y[0].type.size
