"""What a compiled function depends on: tree structure, shapes, dtypes and static values.

Arrays and NumPy scalars are typed by their dtype. A Python number is an input too: it is passed as
f64, i64 or bool, its value is not compiled in, and its type follows its partner's (an f32 array
times a Python float stays f32), as it does in NumPy 2.
"""

from __future__ import annotations

import difflib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree

from tilewright.errors import DTypeError, TraceError
from tilewright.frontend import tree
from tilewright.frontend.array import Array
from tilewright.frontend.build import SUPPORTED
from tilewright.frontend.location import here
from tilewright.frontend.trace import InputSpec
from tilewright.frontend.tracer import Tracer
from tilewright.ir.types import TensorType, dtype_of

ARRAYS = frozenset({np.ndarray, np.memmap})
NUMBERS = {bool: np.dtype(np.bool_), int: np.dtype(np.int64), float: np.dtype(np.float64)}


class Parameters:
    """The parameters of a function: which are static, which are donated, and how to name the rest.

    Raises ``TraceError`` for a static or donated name that is no parameter.
    """

    def __init__(
        self, function: Callable[..., Any], static: Sequence[str], donated: Sequence[str]
    ) -> None:
        self.static, self.donated = frozenset(static), frozenset(donated)
        try:
            found = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            found = []
        by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self.positional = tuple(p.name for p in found if p.kind in by_place)
        self.named = tuple(
            p.name for p in found if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        )
        rest = [p.name for p in found if p.kind is inspect.Parameter.VAR_POSITIONAL]
        self.rest = rest[0] if rest else "args"
        self.open_ended = not found or any(
            p.kind is inspect.Parameter.VAR_KEYWORD for p in found)
        self.names = [p.name for p in found]
        self.check_names("static_argnames", self.static)
        self.check_names("donate_argnames", self.donated)
        both = sorted(self.static & self.donated)
        if both:
            raise TraceError(
                f"the parameter {both[0]!r} is both static and donated",
                loc=here(),
                hint="only arrays can be donated",
            )

    def check_names(self, option: str, given: Iterable[str]) -> None:
        """Raise ``TraceError`` for a name that is no parameter."""
        unknown = sorted(set(given) - set(self.names))
        if unknown and not self.open_ended:
            raise TraceError(
                f"{option} names {unknown[0]!r}, which is no parameter",
                expected=f"names among {', '.join(self.names)}",
                got=unknown[0],
                loc=here(),
                hint=did_you_mean(unknown[0], self.names),
            )

    def name(self, place: int) -> str:
        """The name of the positional argument at this place."""
        if place < len(self.positional):
            return self.positional[place]
        return f"{self.rest}[{place - len(self.positional)}]"

    def by_position(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call with as many arguments by position as can be: f(x, y=1) is f(x, 1)."""
        if not kwargs:
            return args, kwargs
        named = dict(kwargs)
        for name in self.positional[len(args) :]:
            if name not in named or name not in self.named:
                break
            args = (*args, named.pop(name))
        return args, named

    def split(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[OrderedDict[str, Any], tuple[tuple[str, Any], ...]]:
        """The dynamic arguments by name, in the order of the call, and the static ones.

        Raises ``TraceError`` for a static argument that has no hash.
        """
        named = [(self.name(place), value) for place, value in enumerate(args)]
        named += [(name, kwargs[name]) for name in sorted(kwargs)]
        if not self.static:
            return OrderedDict(named), ()
        static = tuple(pair for pair in named if pair[0] in self.static)
        for name, value in static:
            check_hashable(name, value)
        return OrderedDict(pair for pair in named if pair[0] not in self.static), static

    def join(
        self, places: int, dynamic: Mapping[str, Any], static: Sequence[tuple[str, Any]]
    ) -> tuple[list[Any], dict[str, Any]]:
        """The call that was split: the first ``places`` arguments by position, the rest by name."""
        named = {**dynamic, **dict(static)}
        return [named.pop(self.name(i)) for i in range(places)], named

    def donated_leaves(self, dynamic: Mapping[str, Any]) -> tuple[int, ...]:
        """The numbers of the leaves that belong to donated parameters."""
        if not self.donated:
            return ()
        owners = [name for name, value in dynamic.items() for _ in tree.leaves(value)]
        return tuple(i for i, name in enumerate(owners) if name in self.donated)


def did_you_mean(name: str, names: Iterable[str]) -> str | None:
    """The hint of a name that does not exist, if one that does is like it."""
    near = difflib.get_close_matches(name, sorted(names), 1)
    return f"did you mean {near[0]!r}?" if near else None


def paths_of(dynamic: Mapping[str, Any]) -> list[str]:
    """How Python would spell each leaf of the arguments: ``params['w'][0]``."""
    return [
        path for name, value in dynamic.items() for path in tree.paths(tree.structure(value), name)
    ]


def check_hashable(name: str, value: Any) -> None:
    """Raise ``TraceError`` for a static argument that cannot be looked up."""
    if isinstance(value, Tracer):
        raise TraceError(
            f"the static argument {name!r} is a traced value",
            got=repr(value),
            loc=here(),
            hint="static arguments must be known while tracing",
        )
    try:
        hash(value)
    except TypeError:
        raise TraceError(
            f"the static argument {name!r} is not hashable",
            expected="a value with __hash__ and "
            "__eq__, such as a number, a string, a tuple or a frozen dataclass",
            got=f"{type(value).__name__} {value!r}",
            loc=here(),
            hint="make it a tuple, or leave it out of static_argnames if it holds arrays",
        ) from None


@dataclass(frozen=True)
class Signature:
    """What one compilation is for.

    structures  of the dynamic arguments, by name
    leaves      the type of each leaf, by its path, such as ``params['w'][0]``
    static      names and values
    target      to compile for; None: the host
    """

    structures: dict[str, tree.TreeSpec]
    leaves: dict[str, InputSpec]
    static: dict[str, Any]
    target: str | None = None


def distinct(value: Any) -> Hashable:
    """A key that keeps apart what ``==`` confuses: 1, True, 1.0; 0.0, -0.0; tuples of them."""
    if isinstance(value, tuple):
        return (type(value), *map(distinct, value))
    if isinstance(value, float):
        return (type(value), value.hex())
    return (type(value), value)


def key_of(leaf: Any) -> Hashable:
    """What the compiled function depends on in a leaf; ``None`` if it is no array or number."""
    kind: Any = type(leaf)
    if kind is np.ndarray:
        return (leaf.dtype, leaf.shape)
    if kind in NUMBERS:
        return kind
    if isinstance(leaf, np.generic) or kind in ARRAYS:
        return (leaf.dtype, leaf.shape)
    if kind is Array:
        return (leaf.dtype, leaf.shape, leaf.device)
    return None


def flatten(tree_value: Any) -> tuple[list[Any], tree.TreeSpec, tuple[Hashable, ...]]:
    """The leaves, the structure and the key of each leaf; quick for trees that were met before."""
    leaves, spec = optree.tree_flatten(tree_value, namespace=tree.NAMESPACE)
    keys = tuple(map(key_of, leaves))
    if None in keys:
        leaves, spec = tree.flatten(tree_value)
        keys = tuple(map(key_of, leaves))
    return leaves, spec, keys


def leaf_spec(leaf: Any, path: str) -> InputSpec:
    """The type of an argument leaf. Raises ``DTypeError`` that names its path if there is none."""
    kind = type(leaf)
    if kind in NUMBERS:
        to_array(leaf, path)
        return InputSpec(TensorType(dtype_of(NUMBERS[kind]), ()), weak=True)
    if key_of(leaf) is None:
        shares = hasattr(leaf, "__dlpack__") or hasattr(leaf, "__cuda_array_interface__")
        raise unsupported(path, f"{kind.__module__}.{kind.__qualname__}", shares)
    try:
        return InputSpec(TensorType(dtype_of(leaf.dtype), leaf.shape))
    except TypeError:
        raise unsupported(path, f"an array of dtype {leaf.dtype}") from None


def unsupported(path: str, got: str, shares: bool = False) -> DTypeError:
    """The error of an argument that is neither a supported array nor a number; ``shares``: it has a
    protocol by which it can become one.
    """
    hint = "pass it as a static argument with static_argnames, or leave it out"
    if "object" in got:
        hint = "object arrays hold Python objects: convert to a numeric dtype with .astype"
    elif shares:
        hint = f"make it one without a copy: tw.from_dlpack({path})"
    elif "array of dtype" in got:
        hint = "convert it with .astype before the call"
    return DTypeError(
        f"the argument {path} has a type that is not supported",
        expected=f"a NumPy array or number of one of {SUPPORTED}",
        got=got,
        loc=here(),
        hint=hint,
    )


def to_array(leaf: Any, path: str = "a number") -> Any:
    """A leaf as the array that the compiled function reads: NumPy's, or one on a device."""
    if type(leaf) is Array or (type(leaf) is np.ndarray and leaf.dtype.isnative):
        return leaf
    dtype = NUMBERS.get(type(leaf))
    if dtype is None:
        array = np.asarray(leaf)
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    try:
        return np.asarray(leaf, dtype)
    except OverflowError:
        raise DTypeError(
            f"the argument {path} is a Python integer that does not fit",
            expected="-2**63 to 2**63 - 1 (i64)",
            got=leaf,
            loc=here(),
            hint="pass np.uint64(value) or a float",
        ) from None


# --- what changed ---------------------------------------------------------------------------
def differences(old: Signature, new: Signature) -> list[str]:
    """One line per difference: which argument, what it was, what it is."""
    lines = []
    for name in dict.fromkeys((*old.structures, *new.structures)):
        before, after = old.structures.get(name), new.structures.get(name)
        if before is None or after is None:
            lines.append(f"{name}: {_given(before)} -> {_given(after)}")
        elif before != after:
            expected, got = tree.difference(before, after, name)
            lines.append(f"tree structure: {expected} -> {got}")
    for path, leaf in new.leaves.items():
        if path in old.leaves and old.leaves[path] != leaf:
            lines.extend(f"{path}: {line}" for line in changes(old.leaves[path], leaf))
    for name in dict.fromkeys((*old.static, *new.static)):
        values = [distinct(s.static[name]) if name in s.static else None for s in (old, new)]
        if values[0] != values[1]:
            shown = [repr(s.static[name]) if name in s.static else "not given" for s in (old, new)]
            lines.append(f"static {name}: {shown[0]} -> {shown[1]}")
    if old.target != new.target:
        lines.append(f"target: {old.target or 'the host'} -> {new.target or 'the host'}")
    return lines


def _given(spec: tree.TreeSpec | None) -> str:
    return "not given" if spec is None else "given"


def changes(old: InputSpec, new: InputSpec) -> list[str]:
    """What is different about a leaf."""
    lines = []
    if old.type.shape != new.type.shape:
        lines.append(f"shape {old.type.shape} -> {new.type.shape}")
    kinds = [
        f"Python {s.type.dtype.numpy.name.rstrip('0123456789')}" if s.weak else str(s.type.dtype)
        for s in (old, new)
    ]
    if kinds[0] != kinds[1]:
        lines.append(f"dtype {kinds[0]} -> {kinds[1]}")
    return lines
