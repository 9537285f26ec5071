"""cvt: between integers and floats of all sizes, with the rounding that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from tilewright.ptxsim.faults import UnknownInstruction
from tilewright.ptxsim.formats import FORMATS, TF32_MASK
from tilewright.ptxsim.ops.arithmetic import flushed
from tilewright.ptxsim.scalars import KINDS
from tilewright.ptxsim.step import Step
from tilewright.ptxsim.table import op

TO_INTEGER: dict[str, Callable[[Any], Any]] = {
    "rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil,
}
PACKED = {"f16x2": "f16", "bf16x2": "bf16", "e4m3x2": "e4m3", "e5m2x2": "e5m2"}


@op("cvt")
def cvt(step: Step) -> None:
    """Convert a number."""
    to, source = (p for p in step.parts if p in KINDS or p in PACKED)
    if to in PACKED:
        _into_pair(step, to, source)
    elif source in PACKED:
        raise UnknownInstruction(f"{step.instruction.name} is not simulated")
    elif to == "tf32":
        step.write(step.operands[0], _tf32(step.read(step.operands[1], "b32")), "b32")
    else:
        value = step.read(step.operands[1], source)
        step.write(step.operands[0], _converted(step, value, source, to), to)


def _converted(step: Step, value: Any, source: str, to: str) -> Any:
    target = KINDS[to]
    from_float, to_float = KINDS[source].kind not in "ui", target.kind not in "ui"
    if "ftz" in step.parts and source == "f32":
        value = flushed(value)
    rounding = next((p for p in step.parts if p in TO_INTEGER), None)
    if from_float and not to_float:
        return _float_to_integer(TO_INTEGER[rounding or "rzi"], value, target)
    if from_float and rounding:
        value = TO_INTEGER[rounding](value)
    if not from_float and not to_float:
        if "sat" in step.parts:
            low, high = np.iinfo(target).min, np.iinfo(target).max
            exact = np.clip(np.asarray(value).astype(object), low, high)
            return np.asarray(exact).astype(target)
        return np.asarray(value).astype(target)
    if "sat" in step.parts:
        value = np.where(np.isnan(value), 0, np.clip(value, 0, 1))
    if {"rz", "rm", "rp"} & set(step.parts):
        return _directed(step, np.asarray(value), target)
    result = np.asarray(value).astype(target)
    return np.maximum(result, 0) if "relu" in step.parts else result


def _float_to_integer(round_: Callable[[Any], Any], value: Any, target: np.dtype[Any]) -> Any:
    """Rounded, clamped to the range of the integer type; NaN becomes 0."""
    wide = round_(np.asarray(value).astype(np.float64))
    limits = np.iinfo(target)
    inside = (wide > float(limits.min)) & (wide < float(limits.max))
    result = np.where(inside, wide, 0).astype(target)
    result = np.where(wide >= float(limits.max), target.type(limits.max), result)
    return np.where(wide <= float(limits.min), target.type(limits.min), result)


def _directed(step: Step, value: Any, target: np.dtype[Any]) -> Any:
    """Rounded toward zero, down or up."""
    nearest = value.astype(target)
    back, exact = nearest.astype(np.float64), value.astype(np.float64)
    if "rz" in step.parts:
        wrong = np.abs(back) > np.abs(exact)
        toward: Any = np.zeros_like(nearest)
    else:
        up = "rp" in step.parts
        wrong = back < exact if up else back > exact
        toward = np.full_like(nearest, np.inf if up else -np.inf)
    return np.where(wrong, np.nextafter(nearest, toward), nearest)


def _tf32(code: Any) -> Any:
    """f32 to tf32, nearest, ties away from zero: the low 13 bits become zero."""
    magnitude, sign = code & np.uint32(0x7FFFFFFF), code & np.uint32(0x80000000)
    special = magnitude >= np.uint32(0x7F800000)
    rounded = (magnitude + np.uint32(0x1000)) & TF32_MASK
    return np.where(special, code, sign | rounded)


def _into_pair(step: Step, to: str, source: str) -> None:
    """Two f32 into a pair; the first source is the upper half."""
    element = FORMATS[PACKED[to]]
    if source != "f32":
        raise UnknownInstruction(f"{step.instruction.name} is not simulated")
    halves = []
    for operand in (step.operands[2], step.operands[1]):
        value = np.array(step.values(operand, "f32"))
        if "relu" in step.parts:
            value = np.where(value < 0, np.float32(0), value)
        if "satfinite" in step.parts:
            largest = float(ml_dtypes.finfo(element.numpy).max)
            value = np.clip(value, -largest, largest)
        halves.append(value.astype(np.float32).astype(element.numpy))
    pair = np.ascontiguousarray(np.stack(halves, 1))
    bits = 2 * element.bits
    step.write(step.operands[0], pair.view(f"u{bits // 8}")[:, 0], f"b{bits}")


