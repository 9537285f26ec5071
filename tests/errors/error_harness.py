"""Exact error messages, with the path and number of the line replaced by ``HERE``."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import Any

import pytest


def message(kind: type[Exception], function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The text of the error that a call raises; the user's own line is quoted in it."""
    with pytest.raises(kind) as raised:
        function(*args, **kwargs)
    return re.sub(r"at:( +)\S*/tests/errors/\S+\.py:\d+", r"at:\1HERE", str(raised.value))


def text(expected: str) -> str:
    """A message as it is written in a test: without the indentation and the outer newlines."""
    return textwrap.dedent(expected).strip("\n")
