"""What was compiled in this process, for reports."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from tilewright.torch.program import Program


@dataclass
class Record:
    """One traced program and its specialisations. ``kind``: forward, backward or inference."""

    kind: str
    programs: list[Program] = field(default_factory=list)

    def add(self, program: Program) -> None:
        """A specialisation was compiled."""
        self.programs.append(program)


_records: list[Record] = []
_lock = threading.Lock()


def record(kind: str) -> Record:
    """A new record."""
    made = Record(kind)
    with _lock:
        _records.append(made)
    return made


def records() -> list[Record]:
    """All records, in the order in which they were compiled."""
    with _lock:
        return list(_records)
