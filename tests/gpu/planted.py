"""Mistakes planted in the PTX of contractions, and whether a run of the simulator shows them."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from contractions import Compiled, arrays_of

from tilewright.errors import CompilerBug


def loop(c: Compiled) -> str:
    """The body of the loop with most to do, from its label to the last jump back there."""
    text, found = c.program.text, [""]
    for m in re.finditer(r"^(\$L\w+):", text, re.MULTILINE):
        back = list(re.finditer(rf"bra(\.uni)? \t{re.escape(m[1])};", text[m.end():]))
        if back:
            found.append(text[m.end():m.end() + back[-1].end()])
    return max(found, key=lambda body: len(re.findall(r"mma|fma\.rn", body)))


def changed(
    text: str, pattern: str, to: str | Callable[[re.Match[str]], str], which: slice
) -> str:
    """The text with some of the places of a pattern replaced."""
    places = list(re.finditer(pattern, text))[which]
    assert places
    for m in reversed(places):
        text = text[:m.start()] + (m.expand(to) if isinstance(to, str) else to(m)) + text[m.end():]
    return text


def caught(c: Compiled, text: str, modes: tuple[str, ...]) -> bool:
    """Whether some order of warps and copies shows that a text is not what it should be."""
    arrays = arrays_of(c.graph)
    want = c.on_device(arrays)[0]

    def wrong(schedule: int, copies: str) -> bool:
        try:
            return not np.array_equal(c.on_device(arrays, schedule, copies, text)[0], want)
        except CompilerBug:
            return True
    return any(wrong(schedule, copies) for schedule in range(4) for copies in modes)
