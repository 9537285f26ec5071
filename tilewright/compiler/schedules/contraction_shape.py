"""How a contraction is seen as a batched matrix product."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tilewright.compiler.schedules.access import Index, unflatten
from tilewright.compiler.schedules.domain import fixed_boundaries
from tilewright.ir import loops as k
from tilewright.ir.graph import Node
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, product

Spot: TypeAlias = "dict[int, k.Expr]"
"""Label -> index."""


@dataclass(frozen=True)
class Roles:
    """``result[batch, m, n] = sum over k of lhs[batch, m, k] * rhs[batch, k, n]``.

    A class of labels is a list of runs; the axes of a run are walked as one, because they stand
    next to each other wherever they occur.
    """

    lhs: Node
    rhs: Node
    lhs_labels: tuple[int, ...]
    rhs_labels: tuple[int, ...]
    runs: Mapping[str, tuple[tuple[int, ...], ...]]
    sizes: Mapping[int, Dim]
    lhs_unit: str
    """The class, 'm' or 'k', of the axis along which lhs is contiguous."""
    rhs_unit: str
    """Likewise 'n' or 'k' for rhs."""
    rhs_unit_label: int | None
    """The label of that axis of rhs."""
    joined: Mapping[str, _Pairs]
    """For 'lhs', 'rhs' and 'out', the pairs of labels that this one lets us walk as one."""

    def extents(self, which: str) -> list[Dim]:
        """The sizes of a class's runs."""
        return [self.size_of(run) for run in self.runs[which]]

    def size_of(self, labels: Sequence[int]) -> Dim:
        """The number of elements along these labels."""
        return product(self.sizes[label] for label in labels)

    def size(self, which: str) -> Dim:
        return product(self.extents(which))

    @property
    def m(self) -> Dim:
        return self.size("m")

    @property
    def n(self) -> Dim:
        return self.size("n")

    @property
    def depth(self) -> Dim:
        return self.size("k")

    @property
    def batch_extents(self) -> list[Dim]:
        return self.extents("batch")

    @property
    def batch_size(self) -> Dim:
        return self.size("batch")

    def place(self, which: str, positions: Index) -> Spot:
        """Label -> index for positions on a class's runs."""
        return {label: e for run, i in zip(self.runs[which], positions, strict=True)
                for label, e in self.along(run, i).items()}

    def chains(self, which: str, side: str) -> list[tuple[int, ...]]:
        """The runs of a class, those joined that ``side`` lets us walk as one."""
        result: list[tuple[int, ...]] = []
        for run in self.runs[which]:
            wide = result and self.size_of(result[-1]) != 1 and self.size_of(run) != 1
            if wide and (result[-1][-1], run[0]) in self.joined[side]:
                result[-1] += run
            else:
                result.append(run)
        return result

    def spread(self, which: str, position: k.Expr, side: str) -> Spot:
        """Label -> index on ``side`` for one position on a class as a whole."""
        chains = self.chains(which, side)
        at = unflatten(position, [self.size_of(chain) for chain in chains])
        return {label: e for chain, i in zip(chains, at, strict=True)
                for label, e in self.along(chain, i).items()}

    def along(self, run: tuple[int, ...], position: k.Expr) -> Spot:
        """Label -> index for a position on a run: the innermost axis takes all of it."""
        return {**{label: k.Const(0) for label in run[:-1]}, run[-1]: position}


def unit_axis(node: Node, is_leaf: Callable[[Node], bool]) -> int | None:
    """The axis along which neighbours in ``node`` are neighbours in memory, if views tell."""
    shape = node.shape
    last = next((i for i in reversed(range(len(shape))) if shape[i] != 1), None)
    op = node.op.name
    if is_leaf(node) or not node.inputs:
        return last
    source = node.inputs[0]
    if op == "reshape":
        return last
    inner = unit_axis(source, is_leaf)
    if inner is None:
        return None
    if op == "transpose":
        return tuple(node.attrs.perm).index(inner)
    if op == "broadcast":
        return int(node.attrs.axes[inner])
    if op in ("take", "take_along") and inner == node.attrs.axis:
        return None
    if op == "take" and inner > node.attrs.axis:
        return inner + node.inputs[1].type.rank - 1
    return inner


LANES = 16
"""Columns of a vector, about: what is compared does not depend on the target."""


def roles_of(node: Node, values: Sequence[Node], is_leaf: Callable[[Node], bool]) -> Roles:
    """Which operand is broadcast and which is read as vectors, whichever needs less rearranging."""
    a = node.attrs
    options = []
    for flipped in (False, True):
        roles = oriented(node, values, is_leaf, flipped)
        # Cycles per element: vectors copied, squares transposed, elements scattered.
        m, n, depth = estimate(roles.m), estimate(roles.n), estimate(roles.depth)
        cost = depth * n * (0.2 if roles.rhs_unit == "n" else 0.4)
        if roles.lhs_unit == "m" and len(roles.chains("m", "lhs")) > 1:
            cost += 3.0 * depth * m
        # Lanes beyond the last column multiply as well.
        cost += depth * m * (-n % LANES) / (2 * LANES)
        last = next((x for x in reversed(a.out) if roles.sizes[x] != 1), None)
        if last is not None and not any(last in run for run in roles.runs["n"]):
            cost += 3.0 * m * n
        options.append((cost * estimate(roles.batch_size), roles))
    return min(options, key=lambda option: option[0])[1]


def oriented(
    node: Node, values: Sequence[Node], is_leaf: Callable[[Node], bool], flipped: bool
) -> Roles:
    """The contraction with its first operand as ``lhs``, or its second if ``flipped``."""
    pair = [(node.inputs[0], node.attrs.lhs), (node.inputs[1], node.attrs.rhs)]
    (lhs, lhs_labels), (rhs, rhs_labels) = reversed(pair) if flipped else pair
    return _roles(node, lhs, lhs_labels, rhs, rhs_labels, values, is_leaf)


def _roles(
    node: Node, lhs: Node, lhs_labels: tuple[int, ...], rhs: Node, rhs_labels: tuple[int, ...],
    values: Sequence[Node], is_leaf: Callable[[Node], bool],
) -> Roles:
    out = node.attrs.out
    sizes = dict(zip(lhs_labels, lhs.shape, strict=True))
    sizes |= dict(zip(rhs_labels, rhs.shape, strict=True))
    sizes |= dict(zip(out, node.shape, strict=True))
    both = set(lhs_labels) & set(rhs_labels)
    classes = {
        "batch": [x for x in out if x in both],
        "m": [x for x in out if x in lhs_labels and x not in both],
        "n": [x for x in out if x in rhs_labels and x not in both],
        "k": [x for x in rhs_labels if x in both and x not in out],
    }
    sides = {
        "lhs": _joinable(lhs, lhs_labels, is_leaf), "rhs": _joinable(rhs, rhs_labels, is_leaf),
        "out": _joinable_out(out, values, node, is_leaf),
    }
    joined = sides["lhs"] & sides["rhs"] & sides["out"]
    runs = {}
    for name, labels in classes.items():
        chains: list[list[int]] = []
        for label in labels:
            if sizes[label] == 1:
                continue
            if chains and (chains[-1][-1], label) in joined:
                chains[-1].append(label)
            else:
                chains.append([label])
        ones = [label for label in labels if sizes[label] == 1]
        runs[name] = tuple(tuple(c) for c in chains) + tuple((x,) for x in ones)
    left, right = unit_axis(lhs, is_leaf), unit_axis(rhs, is_leaf)
    lhs_unit = "m" if left is not None and lhs_labels[left] in classes["m"] else "k"
    rhs_unit = "n" if right is not None and rhs_labels[right] in classes["n"] else "k"
    unit = None if right is None else rhs_labels[right]
    return Roles(
        lhs, rhs, lhs_labels, rhs_labels, runs, sizes, lhs_unit, rhs_unit, unit, sides)


class _Pairs:
    """Pairs of labels that a tensor lets us walk as one; a tensor without them has no objection."""

    def __init__(self, pairs: set[tuple[int, int]], present: set[int]) -> None:
        self.pairs, self.present = pairs, present

    def __and__(self, other: _Pairs) -> _Pairs:
        def allowed(tensor: _Pairs, pair: tuple[int, int]) -> bool:
            return pair in tensor.pairs or not set(pair) & tensor.present
        every = self.pairs | other.pairs
        kept = {p for p in every if allowed(self, p) and allowed(other, p)}
        return _Pairs(kept, self.present | other.present)

    def __contains__(self, pair: tuple[int, int]) -> bool:
        return pair in self.pairs


def _joinable(node: Node, labels: Sequence[int], is_leaf: Callable[[Node], bool]) -> _Pairs:
    fixed = fixed_boundaries([node], is_leaf, lambda n: False)
    pairs = {(labels[i], labels[i + 1]) for i in range(len(labels) - 1) if i not in fixed}
    return _Pairs(pairs, set(labels))


def _joinable_out(
    out: Sequence[int], values: Sequence[Node], node: Node, is_leaf: Callable[[Node], bool]
) -> _Pairs:
    fixed = fixed_boundaries(values, lambda n: n is node or is_leaf(n), lambda n: False)
    pairs = {(out[i], out[i + 1]) for i in range(len(out) - 1) if i not in fixed}
    return _Pairs(pairs, set(out))
