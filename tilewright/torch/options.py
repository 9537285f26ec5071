"""What ``torch.compile(..., backend="tilewright", options={...})`` takes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from tilewright.errors import Unsupported, UserError
from tilewright.frontend.signature import did_you_mean
from tilewright.torch.recipe import Recipe


@dataclass(frozen=True)
class Options:
    """The options of a compile.

    threads    number of threads of the compiled programs; what ``tw.threads`` says if left out
    target     CPU tier; the host's best if left out
    fallback   False: an operator that is not compiled is an error, not a call of PyTorch
    """

    threads: int | None = None
    target: str | None = None
    fallback: bool = True

    def check(self, recipe: Recipe) -> None:
        """Raise ``Unsupported`` if operators run in PyTorch though that is not wanted."""
        if self.fallback or not recipe.fallbacks:
            return
        first = recipe.fallbacks[0]
        raise Unsupported(
            f"{first.target} is not compiled: {first.reason}", loc=first.loc,
            hint="without the option fallback=False it runs in PyTorch",
        )


def read_options(options: Any, rest: dict[str, Any]) -> Options:
    """The options of a call of the backend. Raises ``UserError`` for one that does not exist."""
    names = [f.name for f in fields(Options)]
    given = dict(options or {})
    for name in given:
        if name not in names:
            raise UserError(
                f"the backend tilewright has no option {name!r}",
                expected=", ".join(names), got=repr(name), hint=did_you_mean(name, names),
            )
    return Options(**given)
