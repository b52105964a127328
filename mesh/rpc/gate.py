"""Places for calls, and the wait for one: ``mesh.core.breaker`` with futures and time."""

from __future__ import annotations

import asyncio

from mesh.core.breaker import Turnstile
from mesh.core.traffic import Breaker


class Gate:
    """Whoever has come in has to leave, once."""

    def __init__(self) -> None:
        """Start empty, without limits."""
        self._turnstile = Turnstile[asyncio.Future[None]]()
        self.enter = self._turnstile.enter
        """Take a place; False if there is none."""

    @property
    def open(self) -> int:
        """How many are in."""
        return self._turnstile.open

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._turnstile.waiting

    async def turn(self, seconds: float) -> bool:
        """Wait for a place. False if there is no room to wait; raises ``TimeoutError`` after ``seconds``."""
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._turnstile.wait(ticket):
            return False
        try:
            async with asyncio.timeout(seconds):
                await ticket
        except BaseException:
            if ticket.done() and not ticket.cancelled():
                self.leave()  # its turn had come, and nobody is there to take it
            self._turnstile.give_up(ticket)
            raise
        return True

    def leave(self) -> None:
        """Give a place back."""
        if admitted := self._turnstile.leave():
            self._let_in(admitted)

    def limit(self, limits: Breaker | None) -> None:
        """Change the limits; ``None`` is none."""
        self._let_in(self._turnstile.limit(limits))

    def _let_in(self, tickets: list[asyncio.Future[None]]) -> None:
        for ticket in tickets:
            if ticket.cancelled():
                tickets.extend(self._turnstile.leave())
            else:
                ticket.set_result(None)
