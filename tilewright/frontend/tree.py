"""Trees: nested dicts, lists, tuples, namedtuples and dataclasses whose leaves are arrays.

``None`` is a tree without leaves. A plain dataclass is a tree of its fields as soon as one is met;
a field declared with ``field(metadata={"static": True})`` belongs to the structure instead and is
compared with ``==``.
"""

from __future__ import annotations

import dataclasses
import functools as _functools
from collections.abc import Callable, Iterable
from typing import Any

import optree

from tilewright.errors import TraceError
from tilewright.frontend.location import here

NAMESPACE = "tilewright"
TreeSpec = optree.PyTreeSpec


def flatten(tree: Any) -> tuple[list[Any], TreeSpec]:
    """The leaves of a tree and its structure."""
    leaves, spec = optree.tree_flatten(tree, namespace=NAMESPACE)
    if _register_met(leaves):
        return flatten(tree)
    return leaves, spec


def unflatten(spec: TreeSpec, leaves: Iterable[Any]) -> Any:
    """The tree of this structure with these leaves. Raises ``ValueError`` for a wrong number."""
    return optree.tree_unflatten(spec, leaves)


def leaves(tree: Any) -> list[Any]:
    """The leaves of a tree, dict entries in the order of their sorted keys."""
    return flatten(tree)[0]


def structure(tree: Any) -> TreeSpec:
    """What is left of a tree without its leaves; structures compare with ``==``."""
    return flatten(tree)[1]


def paths(spec: TreeSpec, root: str = "") -> list[str]:
    """How Python would spell the way to each leaf, such as ``params['w'][0]``."""
    return [accessor.codify(root) if accessor else root for accessor in spec.accessors()]


def map(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """The tree with ``function(leaf, leaves of the rest...)`` in the place of each leaf.

    Raises ``TraceError`` if a tree of ``rest`` has another structure than ``tree``.
    """
    first, spec = flatten(tree)
    columns = [first]
    for number, other in enumerate(rest, 2):
        columns.append(leaves_like(spec, other, f"tree.map: tree {number}"))
    return unflatten(spec, [function(*row) for row in zip(*columns, strict=True)])


def map_with_path(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Like :func:`map`, with the leaf's path (a string such as ``['w'][0]``) as first argument."""
    names = unflatten(structure(tree), paths(structure(tree)))
    return map(function, names, tree, *rest)


def reduce(function: Callable[[Any, Any], Any], tree: Any, *initial: Any) -> Any:
    """``function`` folded over the leaves, from ``initial`` if it is given."""
    return _functools.reduce(function, leaves(tree), *initial)


def leaves_like(spec: TreeSpec, tree: Any, what: str) -> list[Any]:
    """The leaves of ``tree``. Raises ``TraceError`` unless its structure is ``spec``."""
    found, other = flatten(tree)
    if other == spec:
        return found
    expected, got = difference(spec, other)
    raise TraceError(
        f"{what} has another structure",
        expected=expected,
        got=got,
        loc=here(),
        hint="compare tw.tree.structure of both; None is a tree without leaves",
    )


def difference(expected: TreeSpec, got: TreeSpec, path: str = "") -> tuple[str, str]:
    """The first place where two structures differ: what is expected there, and what there is."""
    same_kind = expected.type is got.type and expected.num_children == got.num_children
    if same_kind and expected.entries() == got.entries():
        level = expected.one_level()
        names = [accessor.codify("") for accessor in level.accessors()] if level else []
        for name, a, b in zip(names, expected.children(), got.children(), strict=True):
            if a != b:
                return difference(a, b, path + name)
    where = f" at {path}" if path else ""
    return describe(expected) + where, describe(got) + where


def describe(spec: TreeSpec) -> str:
    """One level of a structure in words."""
    if spec.is_leaf():
        return "an array"
    if spec.type is None or spec.type is type(None):
        return "None"
    if issubclass(spec.type, dict):
        return f"{spec.type.__name__} with the keys {list(spec.entries())}"
    if spec.type in (list, tuple):
        return f"{spec.type.__name__} of {spec.num_children}"
    return f"{spec.type.__name__} with {spec.num_children} entries"


def _register_met(leaves: list[Any]) -> bool:
    """Register the dataclasses among the leaves; true if there were any."""
    classes = {type(leaf) for leaf in leaves}
    new = [cls for cls in classes if dataclasses.is_dataclass(cls)]
    for cls in new:
        _register_dataclass(cls)
    return bool(new)


def _register_dataclass(cls: type) -> None:
    fields = dataclasses.fields(cls)
    dynamic = tuple(f.name for f in fields if not f.metadata.get("static"))
    static = tuple(f.name for f in fields if f.metadata.get("static"))

    def split(value: Any) -> Any:
        rest = tuple(getattr(value, name) for name in static)
        return tuple(getattr(value, name) for name in dynamic), rest, dynamic

    def join(rest: Any, children: Any) -> Any:
        value: Any = object.__new__(cls)
        for name, child in (*zip(dynamic, children, strict=True), *zip(static, rest, strict=True)):
            object.__setattr__(value, name, child)
        return value

    optree.register_pytree_node(
        cls, split, join, path_entry_type=optree.GetAttrEntry, namespace=NAMESPACE
    )
