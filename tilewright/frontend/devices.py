"""Jitted functions on arrays that live on a device: for which device, and the call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tilewright import config
from tilewright.compiler.target import device_of
from tilewright.errors import UserError
from tilewright.frontend.array import Array
from tilewright.frontend.compiled import AtSizes, Compiled
from tilewright.frontend.location import here


def target_for(
    asked: str | None, leaves: Sequence[Any], paths: Sequence[str], function: str
) -> str | None:
    """The target for these arguments: that of their device, else ``asked``.

    Raises ``UserError`` for arrays of several devices, and for another device than was asked for.
    """
    first: tuple[str, str] | None = None
    for leaf, path in zip(leaves, paths, strict=True):
        if not isinstance(leaf, Array):
            continue
        if first is None:
            first = (path, leaf.device)
        elif leaf.device != first[1]:
            raise UserError(
                f"the arguments of {function} are on several devices",
                expected=f"all on {first[1]}, where {first[0]} is",
                got=f"{path} on {leaf.device}", loc=here(),
                hint=f"move it: {path}.to({first[1]!r})")
    if first is None:
        return asked
    path, device = first
    if asked is not None and device_of(asked) != device:
        raise UserError(
            f"{function} is compiled for {asked}, and its argument {path} is on {device}",
            expected=f"arrays of {device_of(asked) or 'NumPy'}", got=f"an array on {device}",
            loc=here(),
            hint="leave target out: the function is then compiled for the device of its arguments")
    switch: str = config.get("target")
    return asked or (switch if device_of(switch) == device else device)


def call(
    compiled: Compiled | AtSizes, arrays: Sequence[Any], paths: Callable[[], Sequence[str]],
    function: str,
) -> list[Any]:
    """The results, on the device, of a call with arrays that live there.

    Those that were donated are gone afterwards. Raises ``UserError`` for one that was so before.
    """
    given = [
        (a.resident() if a.alive else a.resident(paths()[i])) if isinstance(a, Array) else a
        for i, a in enumerate(arrays)]
    results = [Array(result) for result in compiled(given)]
    for i in compiled.donated:
        if isinstance(arrays[i], Array):
            arrays[i].take("donated", f"to {function} at {here()}")
    return results
