"""When auth last confirmed the policy in force, and whether that can be told at all.

    following   auth's word is fresh
    in doubt    the stream is there and its last word is old: what auth has said since may only not have been
                read yet, as after this process was stopped and went on
    away        auth did not answer when it was asked anew: its last word stands until it is stale

A word is as old as auth made it, not as it is read. The two clocks may differ; what counts is how far behind
the quickest word of the same stream another one comes. After a silence only a word that was made since
confirms anything: of those that lay waiting meanwhile each may be followed by a newer policy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Milliseconds for which a word of auth leaves no doubt. It gives one every half second.
DOUBT_MS: Final = 2_000


class Confirmed:
    """What is known of auth's word on the policy in force."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        """Take the mesh's clock, in Unix milliseconds. There is no word yet."""
        self._now_ms = now_ms
        self._asked_ms = self._heard_ms = self._since_ms = 0
        self._lag: int | None = None
        self._away = False
        self.at_ms = 0
        """When auth last confirmed it, by this clock; 0 for never."""

    def asked(self) -> None:
        """Begin to listen to a new stream, now."""
        self._lag, self._asked_ms = None, self._now_ms()

    def heard(self, said_ms: int) -> bool:
        """Take auth's word that the policy in force is the one of record, at ``said_ms`` by auth's clock.

        False if the stream cannot be believed, for its first word may have lain waiting as well.
        """
        now_ms = self._now_ms()
        if self._lag is None and now_ms - self._asked_ms > DOUBT_MS:
            return False
        if now_ms - self._heard_ms > DOUBT_MS:
            self._since_ms = now_ms
        self._heard_ms, self._away = now_ms, False
        lag = now_ms - said_ms
        self._lag = lag if self._lag is None else min(lag, self._lag)
        if said_ms + self._lag >= self._since_ms:
            self.at_ms = said_ms + self._lag
        return True

    def lost(self) -> None:
        """Note that auth, asked anew, did not answer."""
        self._away = True

    def holds(self, max_stale_ms: int) -> bool:
        """Whether questions may be answered: no newer word can be waiting, and the last is not stale."""
        age = self._now_ms() - self.at_ms
        return age <= (max_stale_ms if self._away else min(DOUBT_MS, max_stale_ms))
