"""NumPy's functions that put arrays together and cut them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.errors import ShapeError
from tilewright.frontend import build
from tilewright.frontend.build import as_node, axis_of, describe_value, wrap
from tilewright.frontend.elementwise import check_keywords, convert, python_number, regular
from tilewright.frontend.location import here
from tilewright.frontend.shapes import size, sizes, slice_node
from tilewright.frontend.tracer import Tracer, describe, implements, share
from tilewright.ir.graph import Node


def join(name: str, arrays: Sequence[Any], axis: int, dtype: Any = None) -> Node:
    """Operands of any kind one after another, in their common type."""
    values = [regular(a, name) for a in arrays]
    if not values:
        raise ShapeError(f"{name}: no arrays to join", loc=here())
    found = (
        np.dtype(dtype)
        if dtype is not None
        else build.common_dtype(
            name, *(np.asarray(v).dtype if python_number(v) else v.dtype for v in values)
        )
    )
    nodes = [convert(v, found, np.shape(v)) for v in values]
    first = nodes[0]
    along = axis_of(axis, len(first.shape), name)
    for node in nodes:
        same = len(node.shape) == len(first.shape) and all(
            a == b
            for i, (a, b) in enumerate(zip(node.shape, first.shape, strict=True))
            if i != along
        )
        if not same:
            raise ShapeError(
                f"{name}: the shapes do not fit",
                expected=f"the sizes of {describe(first)} off axis {along}",
                got=describe(node),
                loc=here(),
            )
    filled = [n for n in nodes if n.shape[along]] or nodes[:1]
    return build.concat(filled, along)


@implements(np.concatenate, np.concat)
def concatenate(
    arrays: Any, /, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind"
) -> Tracer:
    """``np.concatenate``."""
    check_keywords("np.concatenate", {"out": out}, ())
    listed = list(arrays)
    if axis is None:
        listed, axis = [np.ravel(a) for a in listed], 0
    if any(np.ndim(a) == 0 for a in listed):
        raise ShapeError(
            "np.concatenate: 0-d arrays have no axis",
            loc=here(),
            hint="use np.stack to join numbers",
        )
    return wrap(join("np.concatenate", listed, axis, dtype), *listed)


@implements(np.stack)
def stack(
    arrays: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind"
) -> Tracer:
    """``np.stack``."""
    check_keywords("np.stack", {"out": out}, ())
    listed = list(arrays)
    if len({np.shape(a) for a in listed}) > 1:
        raise ShapeError(
            "np.stack: the shapes differ",
            expected="arrays of one shape",
            loc=here(),
            got=", ".join(describe_value(a) for a in listed),
        )
    along = axis_of(axis, np.ndim(listed[0]) + 1, "np.stack") if listed else 0
    return wrap(join("np.stack", [np.expand_dims(a, along) for a in listed], along, dtype), *listed)


@implements(np.hstack)
def hstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    """``np.hstack``."""
    listed = [np.atleast_1d(a) for a in tup]
    return concatenate(listed, 0 if np.ndim(listed[0]) == 1 else 1, dtype=dtype)


@implements(np.vstack)
def vstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    """``np.vstack``."""
    return concatenate([np.atleast_2d(a) for a in tup], 0, dtype=dtype)


@implements(np.dstack)
def dstack(tup: Any) -> Any:
    """``np.dstack``."""
    return concatenate([np.atleast_3d(a) for a in tup], 2)


@implements(np.column_stack)
def column_stack(tup: Any) -> Any:
    """``np.column_stack``."""
    columns = [a if np.ndim(a) > 1 else np.reshape(a, (-1, 1)) for a in tup]
    return concatenate(columns, 1)


def pieces(name: str, ary: Any, cuts: Sequence[int], axis: int) -> list[Tracer]:
    """The ranges of an axis between the cuts, as views."""
    node = as_node(ary)
    length = node.shape[axis]
    bounds = [
        slice(a, b).indices(length)[:2] for a, b in zip([0, *cuts], [*cuts, length], strict=True)
    ]
    parts = [wrap(slice_node(node, axis, a, max(a, b)), ary) for a, b in bounds]
    share(ary, parts)
    return parts


@implements(np.array_split)
def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Tracer]:
    """``np.array_split``."""
    return cut("np.array_split", ary, indices_or_sections, axis, even=False)


@implements(np.split)
def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Tracer]:
    """``np.split``."""
    return cut("np.split", ary, indices_or_sections, axis, even=True)


def cut(name: str, ary: Any, sections: Any, axis: int, even: bool) -> list[Tracer]:
    """Split at indices, or into a number of sections."""
    along = axis_of(axis, np.ndim(ary), name)
    length = np.shape(ary)[along]
    if isinstance(sections, (tuple, list, np.ndarray)):
        return pieces(name, ary, sizes(sections, name), along)
    number_of = size(sections, name)
    if number_of < 1 or (even and length % number_of):
        raise ShapeError(
            f"{name}: the axis does not divide into equal sections",
            got=f"{length} places into {number_of} sections",
            loc=here(),
            hint="use np.array_split for unequal sections",
        )
    each, more = divmod(length, number_of)
    cuts = [i * each + min(i, more) for i in range(1, number_of)]
    return pieces(name, ary, cuts, along)


def _split_along(axis: int, name: str) -> Callable[..., Any]:
    def run(ary: Any, indices_or_sections: Any) -> Any:
        along = 0 if axis == 1 and np.ndim(ary) == 1 else axis
        return cut(name, ary, indices_or_sections, along, even=True)

    return run


implements(np.vsplit)(_split_along(0, "np.vsplit"))
implements(np.hsplit)(_split_along(1, "np.hsplit"))
implements(np.dsplit)(_split_along(2, "np.dsplit"))
