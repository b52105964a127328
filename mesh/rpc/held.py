"""What was sent of a call's requests, held for as long as the call may have to be made again."""

from __future__ import annotations

from typing import Final

from mesh.rpc.attempt import Streams

#: How much of a request stream is held for sending it again, in bytes.
MAX_HELD: Final = 256 * 1024


class Held:
    """The requests of one call. ``only``: the request of a call that has one only."""

    def __init__(self, only: bytes | None) -> None:
        """Hold nothing yet."""
        self.whole = len(only or b"") <= MAX_HELD
        """Whether all that was sent is still held."""
        self._sent: list[tuple[bytes, bool]] = []
        self._bytes = 0

    def add(self, payload: bytes, *, last: bool) -> None:
        """Hold one more, unless that makes too much."""
        if not self.whole:
            return
        self._bytes += len(payload)
        if self._bytes > MAX_HELD:
            self.drop()
        else:
            self._sent.append((payload, last))

    def drop(self) -> None:
        """Hold nothing any more: the call is not made again."""
        self.whole = False
        self._sent.clear()

    async def send(self, attempt: Streams) -> None:
        """Send it with another attempt, sealed anew; raise ``CallFailedError``."""
        for payload, last in list(self._sent):
            if not await attempt.send(payload, last=last):
                return
