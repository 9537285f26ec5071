"""Rewrite rules as named data, and the driver that applies them until none fires.

A rule has a name, a left side and a right side::

    x, n, c, d = hole("x"), hole("n", INTS), const("c"), const("d")

    SIMPLIFY = Rules(
        rule("add-zero", x + 0, x),
        rule("mul-zero", n * 0, 0),                            # integers only: NaN * 0 is NaN
        rule("sub-self", n - n, 0),                            # a hole twice: the same node twice
        rule("mul-mul", (x * c) * d, x * (c * d)),             # c * d is folded to one constant
        rule("where-same", op("where", hole("m"), x, x), x),
        rule("same-transpose", op("transpose", x, attrs="p"), x,
             when=lambda m: m.attrs["p"].perm == tuple(range(m["x"].type.rank)),
             examples=lambda: [...nodes that the left side matches...]),
        rule("cast-cast", op("cast", op("cast", x, attrs="a"), attrs="b"),
             op("cast", x, attrs="b"), when=..., examples=...),
        rule("fold", any_op("elementwise"), lambda m: fold(m.root)),
    )
    log = Counter()
    better = rewrite(graph, SIMPLIFY, log)                     # log: rule name -> times fired

Left sides
    hole("x", types)   any node whose element type is one of ``types`` (default: all)
    const("c", types)  a ``full`` node of any shape
    0, 1.0, True       a ``full`` node with this value. An int equals by value (0 matches both
                       zeros), a float equals by bits (0.0 is not -0.0), a bool matches only bools
    op(name, *args)    a node of this op; ``...`` alone for args leaves the inputs open;
                       ``attrs="p"`` binds the attribute record, ``attrs=record`` demands that one;
                       ``bind="n"`` names the node itself
    any_op(kind)       a node of any op of this kind, inputs open; ``reads="where"``: some input is
                       a node of this op, ``only="full"``: all are
    Operators (+ - * / neg < <= > >= & | ~) build ``op`` patterns. Commutative ops match both ways.

Right sides
    The same patterns. ``attrs="p"`` copies the bound record, ``attrs=function`` computes one from
    the match. A number or const next to other operands takes their shape (and a number their
    element type); alone it takes the root's type. Elementwise ops on constants are folded. Or a
    function from the :class:`Match` to a node, or None to decline. The result has the root's type.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tilewright.errors import CompilerBug
from tilewright.ir.decide import Undecided
from tilewright.ir.graph import Graph, Node, rebuild_node
from tilewright.ir.patterns import (
    Hole,
    Match,
    Matcher,
    OpPattern,
    Pattern,
    PatternLike,
    any_op,
    as_pattern,
    build,
    const,
    fold,
    hole,
    matcher,
    op,
    orders,
)

__all__ = [
    "Match", "OpPattern", "Pattern", "Rule", "Rules", "any_op", "const", "fold", "hole", "op",
    "rewrite", "rule",
]

RightSide: TypeAlias = "Pattern | Callable[[Match], Node | None]"


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A named law. Create with :func:`rule`."""

    name: str
    left: OpPattern
    right: RightSide
    when: Callable[[Match], bool] | None
    examples: Callable[[], Sequence[Node]] | None
    variants: tuple[OpPattern, ...]
    matchers: tuple[Matcher, ...]

    def apply(self, node: Node) -> Node | None:
        """The replacement of ``node``, or None where the rule does not apply.

        Raises ``CompilerBug`` if the right side has another type than ``node``.
        """
        for matches in self.matchers:
            match = Match(node)
            try:
                if not matches(node, match) or (self.when and not self.when(match)):
                    continue
                if isinstance(self.right, Pattern):
                    result: Node | None = build(self.right, match, node.type)
                else:
                    result = self.right(match)
            except Undecided:
                continue  # whether the law holds depends on sizes of a run
            if result is None or result is node:
                continue
            if result.type != node.type:
                raise CompilerBug(
                    f"rule {self.name} turned {node!r} into {result!r}: the types differ"
                )
            return result
        return None


def rule(
    name: str, left: OpPattern, right: PatternLike | RightSide, *,
    when: Callable[[Match], bool] | None = None,
    examples: Callable[[], Sequence[Node]] | None = None,
) -> Rule:
    """A law: what ``left`` matches becomes ``right``, if ``when`` holds.

    examples  nodes that the rule applies to, for its automatic check; needed where holes filled
              with tensors of one shape do not give a valid left side (views, casts, attributes)
    """
    other = right if callable(right) else as_pattern(right)
    variants = tuple(dict.fromkeys(orders(left)))
    return Rule(name, left, other, when, examples, variants, tuple(map(matcher, variants)))


class Rules:
    """A table of rules, tried in order, found by the ops of a node and its inputs."""

    def __init__(self, *rules: Rule) -> None:
        names = Counter(r.name for r in rules)
        if repeated := [name for name, n in names.items() if n > 1]:
            raise ValueError(f"two rules have the same name: {repeated}")
        self.rules = rules
        self._by_op: dict[tuple[str, ...], tuple[Rule, ...]] = {}
        # Nodes never change, so one to which no rule applies is in normal form for good.
        self.normal: weakref.WeakSet[Node] = weakref.WeakSet()

    def __add__(self, other: Rules) -> Rules:
        return Rules(*self.rules, *other.rules)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def of(self, node: Node) -> tuple[Rule, ...]:
        """The rules that may match ``node``, as far as its op and its inputs' ops tell."""
        key = (node.op.name, *(n.op.name for n in node.inputs))
        if key not in self._by_op:
            self._by_op[key] = tuple(
                r for r in self.rules if any(may_match(v, node) for v in r.variants)
            )
        return self._by_op[key]


def may_match(pattern: OpPattern, node: Node) -> bool:
    """Whether the ops of ``node`` and its inputs fit; the rest is for its matcher."""
    if not is_op(pattern, node):
        return False
    if pattern.args is None:
        return pattern.may_read([n.op.name for n in node.inputs])
    return len(pattern.args) == len(node.inputs) and all(
        isinstance(p, Hole) or (is_op(p, n) if isinstance(p, OpPattern) else n.op.name == "full")
        for p, n in zip(pattern.args, node.inputs, strict=True)
    )


def is_op(pattern: OpPattern, node: Node) -> bool:
    """Whether the node's op is the pattern's, or of its kind."""
    return node.op.name == pattern.op or node.op.kind == pattern.kind


def rewrite(graph: Graph, rules: Rules, log: Counter[str] | None = None) -> Graph:
    """``graph`` with the rules applied bottom-up until none fires; ``log`` counts the firings.

    Raises ``CompilerBug`` if the rules do not come to an end.
    """
    fired: Counter[str] = Counter()
    done: dict[Node, Node] = {}
    fuel = 10_000 + 50 * len(graph.nodes())
    for output in graph.outputs:
        normalize(output, rules, done, fired, fuel)
    if log is not None:
        log.update(fired)
    return graph.rebuild(done[n] for n in graph.outputs)


def normalize(
    root: Node, rules: Rules, done: dict[Node, Node], fired: Counter[str], fuel: int
) -> None:
    """Find the normal form ``done[root]``, and that of all it depends on.

    A stack instead of recursion: graphs are deeper than Python's call stack. ``next_form`` holds
    the node that an entry of the stack turned into and whose normal form it shares.
    """
    stack = [root]
    next_form: dict[Node, Node] = {}
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
            continue
        if node in rules.normal:
            done[node] = node
            continue
        if node in next_form:
            if next_form[node] not in done:
                raise CompilerBug(f"rewriting goes in circles; fired most: {fired.most_common(4)}")
            done[node] = done[next_form[node]]
            stack.pop()
            continue
        if waiting := [n for n in node.inputs if n not in done]:
            stack.extend(waiting)
            continue
        result = rebuild_node(node, [done[n] for n in node.inputs])
        if result is node:
            result = fire(node, rules, fired)
        if result is node:
            done[node] = node
            rules.normal.add(node)
            continue
        if fired.total() > fuel:
            raise CompilerBug(f"rewriting does not end; fired most: {fired.most_common(4)}")
        next_form[node] = result
        stack.append(result)


def fire(node: Node, rules: Rules, fired: Counter[str]) -> Node:
    """The result of the first rule that applies to ``node``, or ``node``."""
    for candidate in rules.of(node):
        result = candidate.apply(node)
        if result is not None:
            fired[candidate.name] += 1
            return result
    return node
