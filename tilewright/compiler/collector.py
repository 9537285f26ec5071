"""Python's cyclic garbage collector rests while the compiler makes many small things."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_resting = 0
"""How many compilations, of any thread, keep the collector from running."""


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Within it, nothing looks for cycles among all objects of the process again and again.

    The number of its runs grows with what is compiled, and so does the time of each. A collector
    that the user has switched off stays off.
    """
    global _resting
    with _lock:
        if _resting or gc.isenabled():
            _resting += 1
            gc.disable()
            own = True
        else:
            own = False
    try:
        yield
    finally:
        if own:
            with _lock:
                _resting -= 1
                if not _resting:
                    gc.enable()
