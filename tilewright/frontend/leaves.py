"""A function jitted by those of its leaves that are arrays, with the others compiled in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

from tilewright.frontend import tree
from tilewright.frontend.jit import jit
from tilewright.frontend.signature import distinct

Function = Callable[..., Any]
MOST = 256
"""Values of what is compiled in, per function, after which the oldest is forgotten."""


class ByArrays:
    """Calls ``function``, which messages call by the name and lines of ``named``.

    Leaves of the arguments of which ``is_array`` holds are inputs; the others need a hash.
    """

    def __init__(
        self, function: Function, is_array: Callable[[Any], bool], named: Function | None = None
    ) -> None:
        self.function, self.is_array, self.named = function, is_array, named or function
        self.jitted: dict[Any, Function] = {}

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of the call."""
        leaves, spec = tree.flatten((args, kwargs))
        fixed = {i: x for i, x in enumerate(leaves) if not self.is_array(x)}
        key = (spec, tuple((i, hashable(x)) for i, x in fixed.items()))
        found = self.jitted.get(key)
        if found is None:
            found = self.jitted[key] = jit(self._with(fixed, spec))
            if len(self.jitted) > MOST:
                self.jitted.pop(next(iter(self.jitted)), None)
        return found(*(x for i, x in enumerate(leaves) if i not in fixed))

    def _with(self, fixed: dict[int, Any], spec: tree.TreeSpec) -> Function:
        """The function of the leaves that are arrays."""
        function = self.function

        @functools.wraps(self.named)
        def run(*arrays: Any) -> Any:
            rest = iter(arrays)
            leaves = [fixed[i] if i in fixed else next(rest) for i in range(spec.num_leaves)]
            args, kwargs = tree.unflatten(spec, leaves)
            return function(*args, **kwargs)

        del run.__wrapped__  # jit reads the parameters' names from this function
        return run


def hashable(value: Any) -> Hashable:
    """A key that keeps apart what is compiled in; slices too, which have no hash of their own."""
    if isinstance(value, slice):
        return (slice, *map(hashable, (value.start, value.stop, value.step)))
    return distinct(value)
