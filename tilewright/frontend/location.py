"""Where in the user's program we are: the first frame outside tilewright and NumPy."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
from collections.abc import Iterator
from types import FrameType

import numpy as np
import optree

from tilewright.errors import DeviceError, Location

_OURS = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    os.path.dirname(os.path.abspath(np.__file__)) + os.sep,
    os.path.dirname(os.path.abspath(optree.__file__)) + os.sep,
    os.path.abspath(functools.__file__),
    os.path.abspath(contextlib.__file__),
    "<frozen",
)


@functools.lru_cache(maxsize=4096)
def is_user_file(file: str) -> bool:
    """True for a file that is neither ours, nor NumPy's, nor one of Python's that call us."""
    return not file.startswith(_OURS)


def user_frame() -> FrameType | None:
    """The innermost frame of the user's code on this thread's stack."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_user_file(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


@functools.lru_cache(maxsize=16384)
def _location(file: str, line: int, function: str) -> Location:
    return Location(file, line, function)


def here() -> Location | None:
    """The user's file, line and function; ``None`` where no user code is running."""
    frame = user_frame()
    if frame is None:
        return None
    return _location(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def here_outside(folder: str) -> Location | None:
    """The same, but for files in a folder."""
    frame = user_frame()
    while frame is not None and (
            not is_user_file(frame.f_code.co_filename)
            or frame.f_code.co_filename.startswith(folder + os.sep)):
        frame = frame.f_back
    if frame is None:
        return None
    return _location(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def definition(function: object) -> Location | None:
    """The line where a Python function is defined; ``None`` for builtins and the like."""
    code = getattr(inspect.unwrap(function), "__code__", None)  # type: ignore[arg-type]
    if code is None:
        return None
    return _location(code.co_filename, code.co_firstlineno, code.co_name)


def raised_at(error: BaseException) -> Location | None:
    """The innermost line of the user's that an exception came through."""
    found: Location | None = None
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if is_user_file(code.co_filename):
            found = _location(code.co_filename, step.tb_lineno, code.co_name)
        step = step.tb_next
    return found


@contextlib.contextmanager
def placed() -> Iterator[None]:
    """Errors of devices name the user's line, in a ``with`` block."""
    try:
        yield
    except DeviceError as error:
        if error.loc is not None:
            raise
        raise error.at(here()) from error.__cause__
