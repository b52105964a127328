"""Generations of keys: when each is used to send, and how long it is accepted.

All times are milliseconds by auth's clock, which every node follows (``Clock`` in ``mesh.node``), so nodes
whose own clocks are wrong still agree on the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mesh.core.keys import Key
from mesh.core.names import KeyEpoch

#: How far two nodes' estimates of auth's clock may lie apart: an answer that tells it takes no longer.
SKEW_MS: Final = 5_000


@dataclass(frozen=True, slots=True, order=True)
class Epoch:
    """One generation of keys. Senders use the newest that has begun; receivers accept it a while longer."""

    number: KeyEpoch
    begins_ms: int
    ends_ms: int
    accepted_until_ms: int


class KeyRing:
    """The keys of one destination, by epoch: previous, current and next, as they are handed out."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        """Start with no key."""
        self._keys: dict[int, tuple[Epoch, Key]] = {}

    def learn(self, epoch: Epoch, key: Key) -> None:
        """Add a key, or replace what is known of its epoch."""
        self._keys[epoch.number.number] = (epoch, key)

    def sending(self, now_ms: int) -> tuple[Epoch, Key] | None:
        """Give the newest key that has begun and has not ended, or ``None``."""
        begun = [held for held in self._keys.values() if held[0].begins_ms <= now_ms < held[0].ends_ms]
        return max(begun, key=lambda held: held[0].number, default=None)

    def lasting(self, now_ms: int) -> tuple[Epoch, Key] | None:
        """Give the newest key that has begun and is still accepted, whether or not it has ended."""
        begun = [
            held for held in self._keys.values() if held[0].begins_ms <= now_ms < held[0].accepted_until_ms
        ]
        return max(begun, key=lambda held: held[0].number, default=None)

    def accepting(self, number: KeyEpoch, now_ms: int) -> Key | None:
        """Give the key of an epoch that may still be used towards its holder, or ``None``.

        An epoch is accepted ``SKEW_MS`` before it begins: the sender's estimate of the time may be ahead.
        """
        held = self._keys.get(number.number)
        if held is None or not held[0].begins_ms - SKEW_MS <= now_ms < held[0].accepted_until_ms:
            return None
        return held[1]

    def expire(self, now_ms: int) -> list[KeyEpoch]:
        """Forget every key that is accepted no more, and say which epochs those were."""
        gone = [epoch for epoch, _ in self._keys.values() if epoch.accepted_until_ms <= now_ms]
        for epoch in gone:
            del self._keys[epoch.number.number]
        return [epoch.number for epoch in gone]
