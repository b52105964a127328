"""The epochs in force and the keys that come from them.

A root is made, sealed and committed before any key of it is handed out, so a crash forgets none that is in
use. ``turn`` is cheap when nothing is due, and is called before every answer: keys do not depend on a timer.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from mesh.core.audit import Entry, Kind
from mesh.core.epochs import Epoch
from mesh.core.keys import KEY_BYTES, Key, destination_key, pair_key
from mesh.core.names import AUTH, KeyEpoch, ServiceName, TrustDomain
from services.auth.epochs import Schedule, accepted, kept_until_ms, sendable, turn_at_ms
from services.auth.errors import ConflictError
from services.auth.records import RootRow, root_place
from services.auth.store import Store
from services.auth.vault import Vault

#: Previous, current and next, and two that an operator had made.
MOST_EPOCHS: Final = 5


class Roots:
    """Roots of one trust domain, opened."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        domain: TrustDomain,
        schedule: Schedule,
        longest_ms: int,
        told: Callable[[Entry], None],
    ) -> None:
        """Open every root that is kept; raise ``TamperedError`` if one does not open.

        ``longest_ms`` is how long a certificate lives at most. ``told`` is called with what goes to the audit
        log: keys turn whether that can be written or not.
        """
        self._told = told
        self._store, self._vault, self._domain, self._schedule = store, vault, domain, schedule
        self._longest_ms = longest_ms
        self.take_up()

    def take_up(self) -> None:
        """Take what is in the database; raise ``TamperedError`` if a root does not open."""
        self._held = {
            row.epoch: Key(self._vault.open(row.sealed, root_place(row.epoch)))
            for row in self._store.keys.roots()
        }
        self._turn_at_ms = 0

    def turn(self, now_ms: int) -> None:
        """Make the epochs that are due, and forget those that are over; raise ``OvertakenError``."""
        if now_ms < self._turn_at_ms:
            return
        made = {epoch: Key(os.urandom(KEY_BYTES)) for epoch in self._schedule.due(self._held, now_ms)}
        gone = [epoch for epoch in self._held if kept_until_ms(epoch, self._longest_ms) <= now_ms]
        self._store.keys.turn_epochs([self._row(*one) for one in made.items()], gone)
        for epoch in made:
            self._told(Entry(now_ms, Kind.KEY, "epoch made", detail=str(epoch.number.number)))
        self._held = {epoch: root for epoch, root in (self._held | made).items() if epoch not in gone}
        self._turn_at_ms = turn_at_ms(self.epochs(), self._longest_ms)

    def force(self, begins_ms: int, by: str, now_ms: int) -> Epoch:
        """Have another epoch begin at a time, or as the newest ends, and end those in force with that.

        Raises ``ConflictError`` while others wait to begin, ``AuditError`` where it cannot be logged.
        """
        if len(accepted(self._held, now_ms)) >= MOST_EPOCHS:
            raise ConflictError("epochs are being turned already: see mesh keys list, and wait for the next")
        epochs = self._schedule.forced(self.epochs(), begins_ms)
        by_number = {epoch.number: root for epoch, root in self._held.items()}
        held = {epoch: by_number.get(epoch.number) or Key(os.urandom(KEY_BYTES)) for epoch in epochs}
        made = epochs[-1]
        detail = f"{made.number.number}, begins at {made.begins_ms}"
        entry = Entry(now_ms, Kind.KEY, "epoch made", by=by, detail=detail)
        self._store.keys.replace_epochs([self._row(*one) for one in held.items()], entry)
        self._held = held
        self._turn_at_ms = turn_at_ms(self.epochs(), self._longest_ms)
        return made

    def epochs(self) -> list[Epoch]:
        """Give the epochs that are kept, oldest first."""
        return sorted(self._held)

    @property
    def begun_ms(self) -> int:
        """A time that has been: when the oldest epoch began; 0 before there is any."""
        return min((epoch.begins_ms for epoch in self._held), default=0)

    def current(self, now_ms: int) -> Epoch:
        """Give the epoch that senders use."""
        return max(epoch for epoch in self._held if epoch.begins_ms <= now_ms)

    def destination_keys(self, service: ServiceName, now_ms: int) -> list[tuple[Epoch, Key]]:
        """Give D(service, e) for every epoch that is accepted, the next one included."""
        told = [(self._of(service, epoch), epoch) for epoch in self.epochs()]
        return [
            (of, self._destination(service, epoch)) for of, epoch in told if now_ms < of.accepted_until_ms
        ]

    def destination_key(self, service: ServiceName, number: KeyEpoch, now_ms: int) -> Key | None:
        """Give D(service, e) of an epoch that is accepted, else ``None``."""
        found = (epoch for epoch in self._held if epoch.number == number and now_ms < epoch.accepted_until_ms)
        return next((self._destination(service, epoch) for epoch in found), None)

    def pair_keys(
        self, source: ServiceName, destination: ServiceName, now_ms: int
    ) -> list[tuple[Epoch, Key]]:
        """Give P(source, destination, e) for the current epoch and the next; who may was asked before."""
        return [
            (self._of(destination, epoch), pair_key(self._destination(destination, epoch), source))
            for epoch in sendable(self._held, now_ms)
        ]

    def _of(self, service: ServiceName, epoch: Epoch) -> Epoch:
        # As it is for calls to a service: auth hears whoever has a certificate and no later key.
        if service != AUTH:
            return epoch
        return replace(epoch, accepted_until_ms=kept_until_ms(epoch, self._longest_ms))

    def _row(self, epoch: Epoch, root: Key) -> RootRow:
        return RootRow(epoch, self._vault.seal(root.reveal(), root_place(epoch)))

    def _destination(self, service: ServiceName, epoch: Epoch) -> Key:
        return destination_key(self._held[epoch], self._domain, service)
