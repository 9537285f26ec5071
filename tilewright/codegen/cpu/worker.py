"""A thread that does jobs in order while its owner makes up the next ones."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Worker(Generic[Result]):
    """Use it in a ``with`` statement, at whose end the thread is gone.

    Where no thread starts any more, because the interpreter is about to end, jobs are done at once.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], Result] | None] = SimpleQueue()
        self._done: list[Result] = []
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._run)

    def __enter__(self) -> Worker[Result]:
        if self._thread is not None:
            try:
                self._thread.start()
            except RuntimeError:
                self._thread = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()

    def submit(self, job: Callable[[], Result]) -> None:
        """Do a job after those before it."""
        if self._thread is None:
            self._done.append(job())
        else:
            self._jobs.put(job)

    def results(self) -> list[Result]:
        """What the jobs returned, after the ``with`` statement. Raises what one of them raised."""
        if self._error is not None:
            raise self._error
        return self._done

    def _run(self) -> None:
        for job in iter(self._jobs.get, None):
            if self._error is None:
                try:
                    self._done.append(job())
                except BaseException as error:  # noqa: BLE001 - raised again by results
                    self._error = error
