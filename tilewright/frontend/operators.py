"""The operators and methods of traced values, each by the NumPy function that it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.frontend.tracer import HOOKS, Function, Tracer, call, refuse_pytorch
from tilewright.ir.sizes import Size

_NUMBERS = (bool, int, float)


def _is_weak(value: Any) -> bool:
    if isinstance(value, Tracer):
        return value.weak
    return isinstance(value, _NUMBERS) and not isinstance(value, np.generic)


def _binary(ufunc: np.ufunc, left: Any, right: Any) -> Any:
    result = call(ufunc, left, right)
    if _is_weak(left) and _is_weak(right):
        result.weak = True
    return result


def _operand(value: Any) -> bool:
    kinds = (Tracer, np.ndarray, np.generic, complex, list, tuple, Size, *_NUMBERS)
    if isinstance(value, kinds):
        return True
    if hasattr(type(value), "__torch_function__"):
        refuse_pytorch("a tensor beside a traced value")
    return False


def _operator(ufunc: np.ufunc) -> tuple[Function, Function, Function]:
    """The three methods of a binary operator: left, right and in place."""

    def left(self: Tracer, other: Any) -> Any:
        return _binary(ufunc, self, other) if _operand(other) else NotImplemented

    def right(self: Tracer, other: Any) -> Any:
        return _binary(ufunc, other, self) if _operand(other) else NotImplemented

    def in_place(self: Tracer, other: Any) -> Any:
        if not self.shape or not _operand(other):
            return NotImplemented
        return HOOKS["assign"](self, call(ufunc, self, other))

    return left, right, in_place


def _unary(ufunc: np.ufunc) -> Function:
    def run(self: Tracer) -> Any:
        result = call(ufunc, self)
        result.weak = self.weak
        return result

    return run


def _method(function: Any) -> Function:
    def run(self: Tracer, *args: Any, **kwargs: Any) -> Any:
        return call(function, self, *args, **kwargs)

    run.__doc__ = f"``np.{function.__name__}`` of this array."
    return run


for _name, _ufunc in {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": np.power,
    "matmul": np.matmul,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
    "divmod": np.divmod,
}.items():
    for _prefix, _function in zip(("__", "__r", "__i"), _operator(_ufunc), strict=True):
        if (_prefix, _name) != ("__i", "divmod"):
            setattr(Tracer, f"{_prefix}{_name}__", _function)
for _name, _ufunc in {
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}.items():
    setattr(Tracer, f"__{_name}__", _operator(_ufunc)[0])
for _name, _ufunc in {
    "neg": np.negative,
    "pos": np.positive,
    "abs": np.absolute,
    "invert": np.invert,
}.items():
    setattr(Tracer, f"__{_name}__", _unary(_ufunc))
for _function in (
    np.sum,
    np.prod,
    np.max,
    np.min,
    np.mean,
    np.var,
    np.std,
    np.any,
    np.all,
    np.argmax,
    np.argmin,
    np.ravel,
    np.squeeze,
    np.swapaxes,
    np.dot,
    np.clip,
    np.round,
    np.copy,
    np.take,
    np.repeat,
    np.diagonal,
    np.trace,
    np.cumsum,
    np.cumprod,
    np.argsort,
    np.argpartition,
    np.searchsorted,
):
    setattr(Tracer, _function.__name__, _method(_function))
Tracer.conj = Tracer.conjugate = _method(np.copy)  # type: ignore[attr-defined]
