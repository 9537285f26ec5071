"""tw.tree on every kind of tree."""

from __future__ import annotations

import dataclasses
from collections import namedtuple

import pytest

import tilewright as tw

Point = namedtuple("Point", "x y")


@dataclasses.dataclass
class Node:
    value: object
    rest: object = None
    kind: str = dataclasses.field(default="plain", metadata={"static": True})


TREE = {"b": [1, (2, None)], "a": Point(3, Node(4, Node(5)))}


def test_leaves_and_structure() -> None:
    leaves, spec = tw.tree.flatten(TREE)
    assert leaves == [3, 4, 5, 1, 2] == tw.tree.leaves(TREE)
    assert tw.tree.unflatten(spec, leaves) == TREE
    assert spec == tw.tree.structure(TREE)
    assert tw.tree.leaves(None) == [] and tw.tree.leaves(7) == [7]


def test_map() -> None:
    doubled = tw.tree.map(lambda a, b: a + b, TREE, TREE)
    assert doubled == {"b": [2, (4, None)], "a": Point(6, Node(8, Node(10)))}


def test_map_with_path() -> None:
    paths = tw.tree.leaves(tw.tree.map_with_path(lambda path, leaf: path, TREE))
    assert paths == ["['a'].x", "['a'].y.value", "['a'].y.rest.value", "['b'][0]", "['b'][1][0]"]


def test_reduce() -> None:
    assert tw.tree.reduce(lambda a, b: a + b, TREE) == 15
    assert tw.tree.reduce(lambda a, b: a * b, TREE, 10) == 1200


def test_static_fields_belong_to_the_structure() -> None:
    assert tw.tree.structure(Node(1, kind="a")) != tw.tree.structure(Node(1, kind="b"))
    assert tw.tree.map(lambda x: -x, Node(1, kind="b")) == Node(-1, kind="b")


@pytest.mark.parametrize(("other", "expected", "got"), [
    ({"b": [1, (2, 3)], "a": TREE["a"]}, "None at ['b'][1][1]", "an array at ['b'][1][1]"),
    ({"b": [1], "a": TREE["a"]}, "list of 2 at ['b']", "list of 1 at ['b']"),
    ([1, 2], "dict with the keys ['a', 'b']", "list of 2"),
    ({**TREE, "a": (3, 4)}, "Point with 2 entries at ['a']", "tuple of 2 at ['a']"),
])
def test_different_structures_are_told_apart(other: object, expected: str, got: str) -> None:
    with pytest.raises(tw.TraceError) as raised:
        tw.tree.map(lambda a, b: a, TREE, other)
    assert (raised.value.expected, raised.value.got) == (expected, got)
