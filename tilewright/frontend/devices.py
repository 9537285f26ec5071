"""Jitted functions on arrays that live on a device: for which device, and the call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tilewright import config
from tilewright.compiler.target import device_of
from tilewright.errors import Location, UserError
from tilewright.frontend.array import Array
from tilewright.frontend.location import here, placed


def target_for(
    asked: str | None, leaves: Sequence[Any], paths: Sequence[str], function: str
) -> str | None:
    """The target for these arguments: that of their device, else ``asked``.

    Raises ``UserError`` for arrays of several devices, and for another device than was asked for.
    """
    placed = [
        (path, leaf.device) for leaf, path in zip(leaves, paths, strict=True)
        if isinstance(leaf, Array)]
    return target_on(asked, placed, function, here()) if placed else asked


def target_on(
    asked: str | None, placed: Sequence[tuple[str, str]], function: str, loc: Location | None
) -> str:
    """The target for arrays of these paths on these devices, of which there is one at least.

    Raises as :func:`target_for`.
    """
    path, device = placed[0]
    for other, elsewhere in placed[1:]:
        if elsewhere != device:
            raise UserError(
                f"the arguments of {function} are on several devices",
                expected=f"all on {device}, where {path} is", got=f"{other} on {elsewhere}",
                loc=loc, hint=f"move it: {other}.to({device!r})")
    if asked is not None and device_of(asked) != device:
        raise UserError(
            f"{function} is compiled for {asked}, and its argument {path} is on {device}",
            expected=f"an array on {device_of(asked) or 'the CPU'}", got=f"an array on {device}",
            loc=loc,
            hint="leave target out: the function is then compiled for the device of its arguments")
    switch: str = config.get("target")
    return asked or (switch if device_of(switch) == device else device)


def call(
    executable: Callable[[Sequence[Any]], Sequence[Any]], arrays: Sequence[Any],
    paths: Sequence[str], donated: Sequence[int], function: str,
) -> list[Any]:
    """The results, on the device, of a program with arrays that live there among its inputs.

    Those that were donated are gone afterwards. Raises ``UserError`` for one that was so before.
    """
    given = [
        a.resident(path) if isinstance(a, Array) else a
        for a, path in zip(arrays, paths, strict=True)]
    with placed():
        results = [Array(result) for result in executable(given)]
    for i in donated:
        if isinstance(arrays[i], Array):
            arrays[i].take("donated", f"to {function} at {here()}")
    return results
