"""What a native call knows of a call's arguments and result: trees as plain data.

In arguments ``Leaf(i)`` stands for input ``i`` of the executable, in a result for its result ``i``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Form: TypeAlias = Literal["array", "float", "int", "bool", "number"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value. ``form``: a NumPy array, a Python number, or (number) a NumPy scalar."""

    index: int
    form: Form = "array"


@dataclass(frozen=True, slots=True)
class Tuple:
    """A tuple, or exactly ``type``, a named tuple; results use :class:`Build` for those."""

    children: tuple[Tree, ...]
    type: type = tuple


@dataclass(frozen=True, slots=True)
class List:
    """A list."""

    children: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Dict:
    """A dict, or exactly ``type``, with exactly these keys, in any order; results: in this one."""

    keys: tuple[Any, ...]
    children: tuple[Tree, ...]
    type: type = dict


@dataclass(frozen=True, slots=True)
class Attributes:
    """An object of exactly this type, with its attributes of these names. Arguments only."""

    type: type
    names: tuple[str, ...]
    children: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Build:
    """``function(tuple of the children)``. Results only."""

    function: Callable[[tuple[Any, ...]], Any]
    children: tuple[Tree, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Static:
    """A Python object: in a result itself, in arguments one that cannot be told from it.

    Strings and numbers are compared by type and value, all other objects by identity.
    """

    value: Any


Tree: TypeAlias = "Leaf | Tuple | List | Dict | Attributes | Build | Static"


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a call as they are written: by position, and by name in this order."""

    positional: tuple[Tree, ...]
    named: tuple[tuple[str, Tree], ...] = ()


def leaves(tree: Tree) -> list[Leaf]:
    """The leaves of a tree, from left to right."""
    if isinstance(tree, Leaf):
        return [tree]
    if isinstance(tree, Static):
        return []
    return [leaf for child in tree.children for leaf in leaves(child)]
