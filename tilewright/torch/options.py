"""What ``torch.compile(..., backend="tilewright", options={...})`` takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from tilewright import config
from tilewright.codegen.cpu.tiers import TIERS
from tilewright.errors import Unsupported, UserError
from tilewright.frontend.signature import did_you_mean
from tilewright.torch.lines import user_line
from tilewright.torch.recipe import Recipe

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
"""PyTorch's modes. They choose nothing here: a program is one native call, and is not searched."""

NUMERICS = ("default", "strict", "fast")


@dataclass(frozen=True)
class Options:
    """The options of a compile.

    threads    number of threads of the compiled programs; what ``tw.threads`` says if left out
    target     CPU tier (``sse2``, ``avx2``, ``avx512``); the host's best if left out
    fallback   False: an operator that is not compiled is an error, not a call of PyTorch, and so is
               a failure of the compiler
    numerics   ``default``: a product and a sum may be one fused multiply-add; values of 16-bit
               element types are rounded after every operator, as in eager PyTorch.
               ``strict``: every elementwise product is rounded before it is added, so chains of
               ``+ - * /`` have eager's bits.
               ``fast``: 16-bit values that do not leave a kernel stay in float32
    cache      whether compiled programs are kept on disk for other processes, or the folder for
               their machine code
    """

    threads: int | None = None
    target: str | None = None
    fallback: bool = True
    numerics: str = "default"
    cache: bool | str = True

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """The disk caches in force while a program is compiled: ours and PyTorch's."""
        with contextlib.ExitStack() as stack:
            if self.cache is not True:
                folder = "off" if self.cache is False else self.cache
                stack.enter_context(config.override(cache=folder))
            if self.cache is False:
                stack.enter_context(torch._functorch.config.patch(enable_autograd_cache=False))
            yield

    def check(self, recipe: Recipe) -> None:
        """Raise ``Unsupported`` if operators run in PyTorch though that is not wanted."""
        if self.fallback or not recipe.fallbacks:
            return
        first = recipe.fallbacks[0]
        raise Unsupported(
            f"{first.target} is not compiled: {first.reason}", loc=first.loc,
            hint="without the option fallback=False it runs in PyTorch",
        )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "threads": (lambda v: v is None or _whole(v), "a whole number from 1 on, or None"),
    "target": (lambda v: v is None or v in TIERS, f"one of {', '.join(TIERS)}, or None"),
    "fallback": (lambda v: isinstance(v, bool), "True or False"),
    "cache": (lambda v: isinstance(v, bool) or (isinstance(v, str) and v != ""),
              "True, False or the path of a folder"),
    "numerics": (lambda v: v in NUMERICS, f"one of {', '.join(NUMERICS)}"),
}
"""Per option: which values it may have, and that in words."""


def read_options(options: Any, rest: dict[str, Any]) -> Options:
    """The options of a call of the backend, and its ``mode``.

    Raises ``UserError`` for a name or value that does not exist.
    """
    names = [f.name for f in fields(Options)]
    if not isinstance(options or {}, Mapping):
        raise UserError(
            "the options of the backend tilewright are not a dictionary",
            expected="a dict of options: " + ", ".join(names), got=repr(options), loc=user_line(),
            hint="options={\"threads\": 2}")
    given = dict(options or {})
    mode = rest.pop("mode", "default")
    if mode not in MODES:
        raise UserError(
            f"the backend tilewright has no mode {mode!r}", expected=", ".join(MODES),
            got=repr(mode), loc=user_line(), hint=did_you_mean(str(mode), MODES))
    for name, value in {**given, **rest}.items():
        if name not in names:
            raise UserError(
                f"the backend tilewright has no option {name!r}", expected=", ".join(names),
                got=repr(name), loc=user_line(), hint=did_you_mean(str(name), names))
        right, words = VALUES[name]
        if not right(value):
            raise UserError(
                f"the option {name!r} of the backend tilewright cannot be {value!r}",
                expected=words, got=repr(value), loc=user_line())
    return Options(**given, **rest)
