"""Every law of ``simplify`` is true on random values, costs no more, and leaves nothing to do."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from tilewright.compiler.cost import node_flops
from tilewright.compiler.passes.simplify import ALONE, SIMPLIFY, simplify, simplify_logged
from tilewright.compiler.rules.arithmetic import ELEMENTWISE, holds
from tilewright.ir.graph import Graph, Node, topological
from tilewright.ir.rewrite import Rule
from tilewright.ir.rewrite_check import check_rule, instances
from tilewright.ir.types import FLOATS, INTS, DType, bf16, f16, f32, f64

RULES = [*SIMPLIFY, *ALONE]

ROOTS = {
    "pow": 20, "div": 6, "floordiv": 20, "mod": 20, "sqrt": 5, "exp": 10,
}
"""What an element of the slower ops costs, in additions."""


def weight(root: Node) -> float:
    """A price: slow ops by the table above, others by their operations, views and casts nothing."""
    total = 0.0
    for node in topological((root,)):
        size = node.type.size
        if node.op.name == "cast":
            continue
        if node.op.kind == "elementwise":
            total += ROOTS.get(node.op.name, 1) * size
        elif node.op.kind not in ("source", "view"):
            total += node_flops(node)
    return total


def graph_of(root: Node) -> Graph:
    inputs = tuple(n for n in topological((root,)) if n.op.name == "input")
    return Graph(inputs, (root,))


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_rule_is_true(rule: Rule) -> None:
    for seed in range(3):
        check_rule(rule, seed)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_rule_costs_no_more(rule: Rule) -> None:
    for root in instances(rule):
        result = rule.apply(root)
        if result is not None:
            assert weight(result) <= weight(root), f"{root} -> {result}"


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_simplify_leaves_nothing_to_do(rule: Rule) -> None:
    for root in instances(rule):
        once = simplify(graph_of(root))
        log: Counter[str] = Counter()
        twice = simplify_logged(once, log)
        assert not log
        assert twice.outputs == once.outputs


@pytest.mark.parametrize("rule", [*ELEMENTWISE], ids=lambda r: r.name)
def test_elementwise_rules_are_found_by_the_pass(rule: Rule) -> None:
    fired = [root for root in instances(rule) if rule.apply(root) is not None]
    assert any(simplify(graph_of(root)).outputs[0] is not root for root in fired)


def exact(value: int, wide: DType) -> bool:
    """Whether this type has exactly this number."""
    if wide.is_float:
        with np.errstate(over="ignore"):
            rounded = float(np.asarray(float(value)).astype(wide.numpy))
        return bool(np.isfinite(rounded)) and int(rounded) == value
    limits = np.iinfo(wide.numpy)
    return bool(limits.min <= value <= limits.max)


def test_holds_is_the_inclusion_of_values() -> None:
    for wide, narrow in itertools.product((*INTS, *FLOATS), INTS):
        info = np.iinfo(narrow.numpy)
        values = [int(info.min), int(info.max), 1, 101]
        assert holds(wide, narrow) == all(exact(v, wide) for v in values), (wide, narrow)


def test_holds_of_floats() -> None:
    chains = {(f16, f16), (f32, f16), (f64, f16), (bf16, bf16), (f32, bf16), (f64, bf16),
              (f32, f32), (f64, f32), (f64, f64)}
    for wide, narrow in itertools.product(FLOATS, FLOATS):
        assert holds(wide, narrow) == ((wide, narrow) in chains)
