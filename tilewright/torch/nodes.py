"""Graph nodes by PyTorch's rules: promotion, broadcasting, axes that count from the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tilewright.ir import build
from tilewright.ir.attrs import IotaAttrs
from tilewright.ir.autodiff import pullback, zero_of
from tilewright.ir.graph import Node, full, input_node, make, substitute
from tilewright.ir.sizes import Dim, product
from tilewright.ir.types import (
    DType,
    Shape,
    TensorType,
    bf16,
    bool_,
    f16,
    f32,
    f64,
    i64,
    u64,
)
from tilewright.torch.dtypes import OURS
from tilewright.torch.table import NotCompiled


def cast(x: Node, dtype: DType) -> Node:
    """``x`` in this element type."""
    if dtype is bool_ and x.dtype is not bool_:
        return make("ne", (x, full(x.type, 0)))
    return build.cast(x, dtype)


def from_start(index: Node) -> Node:
    """Indices of an operator for which -1 is none: unsigned, it is outside of every axis."""
    return index if index.dtype.kind == "u" else build.cast(index, u64)


def number(value: Any, dtype: DType, shape: Shape = ()) -> Node:
    """One number everywhere."""
    return full(TensorType(dtype, tuple(shape)), value)


def expand(x: Node, shape: Shape) -> Node:
    """``x`` broadcast to a shape, its last axes being the shape's last."""
    lead = len(shape) - x.type.rank
    return build.broadcast(x, tuple(shape), range(lead, len(shape)))


def operand(x: Any, dtype: DType, shape: Shape) -> Node:
    """A tensor or number as an operand of an elementwise op."""
    if isinstance(x, Node):
        return expand(cast(x, dtype), shape)
    if isinstance(x, complex):
        raise NotCompiled("a complex number")
    return number(x, dtype, shape)


def operands(dtype: DType, shape: Shape, *xs: Any) -> list[Node]:
    """Tensors or numbers as operands of an elementwise op."""
    return [operand(x, dtype, shape) for x in xs]


def common(*metas: Any) -> DType:
    """PyTorch's common type of tensors and numbers.

    Raises ``NotCompiled`` for one that we do not have.
    """
    given = [m for m in metas if m is not None]
    found: torch.dtype
    if len(given) == 1:
        found = given[0].dtype if isinstance(given[0], torch.Tensor) else torch.result_type(
            torch.empty(0, dtype=torch.bool, device="meta"), given[0])
    else:
        found = torch.empty(0, dtype=torch.bool, device="meta").dtype
        dims, zero, numbers = _categories(given)
        for part in (dims, zero, numbers):
            found = _wider(found, part)
    if found not in OURS:
        raise NotCompiled(f"the element type {found}")
    return OURS[found]


def _categories(given: Sequence[Any]) -> tuple[list[torch.dtype], ...]:
    dims = [m.dtype for m in given if isinstance(m, torch.Tensor) and m.ndim]
    zero = [m.dtype for m in given if isinstance(m, torch.Tensor) and not m.ndim]
    numbers = [
        {bool: torch.bool, int: torch.int64, float: torch.get_default_dtype()}.get(
            _kind_of_number(m), torch.complex64)
        for m in given if not isinstance(m, torch.Tensor)
    ]
    return dims, zero, numbers


def _kind_of_number(value: Any) -> type:
    for symbolic, kind in ((torch.SymBool, bool), (torch.SymInt, int), (torch.SymFloat, float)):
        if isinstance(value, symbolic):
            return kind
    return type(value)


def _category(dtype: torch.dtype) -> int:
    if dtype is torch.bool:
        return 0
    return 3 if dtype.is_complex else 2 if dtype.is_floating_point else 1


def _wider(found: torch.dtype, more: Sequence[torch.dtype]) -> torch.dtype:
    """A lower priority group changes the type only if its category is higher."""
    if not more:
        return found
    own = more[0]
    for other in more[1:]:
        own = torch.promote_types(own, other)
    return own if _category(own) > _category(found) else found


def wide(dtype: DType) -> DType:
    """The type in which PyTorch computes on a type: f32 for the 16-bit floats."""
    return f32 if dtype in (f16, bf16) else dtype


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the start; a scalar has one axis in PyTorch."""
    return axis % max(1, rank)


def axes_of(axes: Any, rank: int) -> tuple[int, ...]:
    """The axes of a reduction in order; None or none means all."""
    if axes is None or (isinstance(axes, list | tuple) and not axes):
        return tuple(range(rank))
    listed = [axes] if isinstance(axes, int) else axes
    return tuple(sorted({axis_of(a, rank) for a in listed})) if rank else ()


def reduce(op: str, x: Node, axes: tuple[int, ...], keepdim: bool = False) -> Node:
    """A reduction, with axes of size 1 in the place of the reduced ones if asked."""
    result = build.reduce(op, x, axes)
    if not keepdim:
        return result
    return build.reshape(result, tuple(1 if i in axes else d for i, d in enumerate(x.shape)))


def gradients(
    function: Callable[..., Node], inputs: Sequence[Node], cotangent: Node
) -> list[Node]:
    """The cotangents of the inputs of a function of nodes, from that of its result."""
    # On places of its own: two inputs may be the same node, or one be made of another.
    fresh = [input_node(f"gradients {i}", n.type) for i, n in enumerate(inputs)]
    found = pullback([function(*fresh)], [cotangent], fresh)
    whole = [zero_of(n, ct) for n, ct in zip(fresh, found, strict=True)]
    return list(substitute(whole, dict(zip(fresh, inputs, strict=True))))


def count(shape: Shape, axes: Sequence[int]) -> Dim:
    """How many elements a reduction over these axes puts together."""
    return product(shape[a] for a in axes)


def iota(shape: Shape, axis: int, dtype: DType = i64) -> Node:
    """0, 1, 2 ... along an axis."""
    return make("iota", (), IotaAttrs(axis), type=TensorType(dtype, tuple(shape)))


def default_float(dtype: DType) -> DType:
    """The float type of a mathematical function's result."""
    return dtype if dtype.is_float else (f32 if torch.get_default_dtype() != torch.float64 else f64)
