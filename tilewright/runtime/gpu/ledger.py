"""Which calls of a device's programs failed a check, found out when somebody wants to know.

A call with checks has a slot: the words of the team, where a failed check leaves its code. Nobody
waits for a call. When a result is used, or all slots are taken, the slots of all calls so far are
read at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tilewright.errors import TilewrightError
from tilewright.runtime.gpu.memory import Block, DeviceMemory

STATUS_WORD = 16
"""The word of the team that takes the code of a failed check."""

TEAM_WORDS = STATUS_WORD + 1
SLOTS = 64


class Ticket:
    """A call that may fail a check.

    failure  makes the error of a code
    settled  whether it is known that the call is over; ``code`` is then what it left, or 0
    """

    __slots__ = ("ledger", "address", "failure", "settled", "code")

    def __init__(
        self, ledger: Ledger, address: int, failure: Callable[[int], TilewrightError]
    ) -> None:
        self.ledger, self.address, self.failure = ledger, address, failure
        self.settled, self.code = False, 0

    def check(self) -> None:
        """Wait for the call, and raise the error of its failed check if there is one."""
        if not self.settled:
            self.ledger.settle()
        if self.code:
            raise self.failure(self.code)


class Ledger:
    """The slots of a device; its lock must be held."""

    def __init__(self, memory: DeviceMemory) -> None:
        self.memory = memory
        self.open_tickets: list[Ticket] = []
        self._block: Block | None = None

    @property
    def block(self) -> Block:
        """The words of all slots, all zero where no check failed."""
        if self._block is None:
            self._block = self.memory.take(8 * SLOTS * TEAM_WORDS)
            self._clear(self._block)
        return self._block

    def open(self, failure: Callable[[int], TilewrightError]) -> Ticket:
        """The ticket of a call that is about to begin."""
        if len(self.open_tickets) == SLOTS:
            self.settle()
        address = self.block.address + 8 * TEAM_WORDS * len(self.open_tickets)
        ticket = Ticket(self, address, failure)
        self.open_tickets.append(ticket)
        return ticket

    def settle(self) -> None:
        """Wait for all calls so far. Each one's ticket then knows how it ended."""
        words = np.empty((SLOTS, TEAM_WORDS), np.int64)
        self.memory.driver.read(self.block.address, words)
        codes = words[:, STATUS_WORD]
        for ticket, code in zip(self.open_tickets, codes, strict=False):
            ticket.settled, ticket.code = True, int(code)
        self.open_tickets = []
        if codes.any():
            self._clear(self.block)

    def _clear(self, block: Block) -> None:
        self.memory.driver.fill(block.address, 0, 8 * SLOTS * TEAM_WORDS)
