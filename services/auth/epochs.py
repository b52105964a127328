"""The schedule of epochs: when keys are made, handed out, fetched and forgotten. Pure.

           begins        1/4                                  ends        accepted until
    e      |-------------|------------------------------------|-----------|
    e+1    made, given out                                    begins
    nodes                fetch e+1 (± 10 %)                               e is forgotten

So a node that has come for keys holds those of a whole epoch to come. Auth itself accepts e for longer where
certificates outlive that (``kept_until_ms``): who has no other key left can still ask for new ones.

An operator may have one more begin earlier than that (``forced``), as soon as every node can know of it.

Numbers only go up. After a time in which auth did not run, the next epoch begins when auth does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mesh.core.epochs import Epoch
from mesh.core.names import KeyEpoch


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long new epochs last, and how much longer they are accepted. A change leaves old ones alone."""

    epoch_ms: int
    grace_ms: int

    def __post_init__(self) -> None:
        """Refuse what could never be in force."""
        if self.epoch_ms <= 0 or self.grace_ms < 0:
            raise ValueError("an epoch lasts longer than nothing, and its grace is not negative")

    def due(self, epochs: Iterable[Epoch], now_ms: int) -> list[Epoch]:
        """Give the epochs that have to be made now: the current one, the next, both or none."""
        made: list[Epoch] = []
        newest = max(epochs, default=None)
        if newest is None or newest.ends_ms <= now_ms:
            newest = self._epoch(newest.number.number + 1 if newest else 1, now_ms)
            made.append(newest)
        if now_ms >= newest.begins_ms:
            made.append(self._epoch(newest.number.number + 1, newest.ends_ms))
        return made

    def forced(self, epochs: Sequence[Epoch], begins_ms: int) -> list[Epoch]:
        """Give what the epochs become if another is to begin at a time, or when the newest ends: it is last.

        Those before it end as it begins, and one that would have begun later never does: who holds it knows
        of the forced one by then, which is newer.
        """
        newest = max(epochs)
        begins_ms = min(begins_ms, newest.ends_ms)
        before = [
            replace(
                epoch,
                ends_ms=min(epoch.ends_ms, begins_ms),
                accepted_until_ms=min(epoch.accepted_until_ms, begins_ms + self.grace_ms),
            )
            for epoch in sorted(epochs)
            if epoch.begins_ms < begins_ms
        ]
        return [*before, self._epoch(newest.number.number + 1, begins_ms)]

    def _epoch(self, number: int, begins_ms: int) -> Epoch:
        ends = begins_ms + self.epoch_ms
        return Epoch(KeyEpoch(number), begins_ms, ends, ends + self.grace_ms)


def accepted(epochs: Iterable[Epoch], now_ms: int) -> list[Epoch]:
    """Give the epochs that receivers need keys of: previous, current and next, as they are."""
    return sorted(epoch for epoch in epochs if now_ms < epoch.accepted_until_ms)


def kept_until_ms(epoch: Epoch, longest_ms: int) -> int:
    """Until when auth accepts what is sealed for itself, where certificates live for ``longest_ms`` at most.

    An epoch is the newest that a node is given until it begins. With it comes a certificate; while that lives
    the node is heard, though it may hold no later key.
    """
    return max(epoch.accepted_until_ms, epoch.begins_ms + longest_ms)


def sendable(epochs: Iterable[Epoch], now_ms: int) -> list[Epoch]:
    """Give the epochs that senders need keys of: current and next."""
    return sorted(epoch for epoch in epochs if now_ms < epoch.ends_ms)


def fetch_at_ms(epochs: Sequence[Epoch]) -> int:
    """When a node that holds these should come for newer keys.

    A quarter into the newest: far enough past its beginning, when the next is made, that a node which comes
    10 % early finds it, and early enough to leave half an epoch to one for which auth is not there.
    """
    newest = max(epochs)
    return newest.begins_ms + (newest.ends_ms - newest.begins_ms) // 4


def turn_at_ms(epochs: Sequence[Epoch], longest_ms: int) -> int:
    """When the next epoch has to be made or an old one forgotten, by ``kept_until_ms``."""
    return min(max(epochs).begins_ms, *(kept_until_ms(epoch, longest_ms) for epoch in epochs))
