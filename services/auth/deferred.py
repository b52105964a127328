"""Entries that have to be bounded, or that may come later than what they tell of.

Refused calls and joins are brought about by others, as many as they like: a ``tally`` bounds what is written
of each source and counts the rest. And what must not wait for a log that cannot be written (the turn of an
epoch: keys have to go on) is kept here until it can. Nothing here is lost but with the process.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from mesh.core.audit import Entry, Kind, Verdict
from mesh.core.chain import line_bytes
from mesh.core.tally import Limits, Tally, Told
from services.auth.errors import AuthError
from services.auth.store import Store

log = logging.getLogger("mesh.auth")

#: Of one source, in bytes: about 180 different refusals at once, then one in a few seconds, so that one alone
#: takes days to push the others out of a log of the size that it has by default. Of all, 1024 that wait, and
#: 256 that are counted.
LIMITS: Final = Limits(burst=65_536, per_second=100, capacity=1024, sources=256)
#: What audit lets pass. All services together write no more than one that floods with denials: it stands in
#: the same log. The first of each is told at once, alike ones once an hour.
AUDITS: Final = Limits(
    burst=65_536,
    per_second=1,
    capacity=4096,
    sources=128,
    counts_every_ms=3_600_000,
    again_every_ms=3_600_000,
)
#: Operators' sessions: some 60 at once, then one in a few minutes, so that what operators do stays for years.
SESSIONS: Final = Limits(burst=16_384, per_second=1, capacity=64, sources=1, counts_every_ms=3_600_000)
#: What auth itself does is never so much that it has to be counted.
OWN: Final = Limits(burst=1_048_576, per_second=65_536, capacity=1024, sources=256)
#: Entries in one transaction: all that may wait, so that they are written together or not at all.
BATCH: Final = AUDITS.capacity + AUDITS.sources + 1
#: What counts of denials say beside whose they are.
COUNTS: Final = Entry(0, Kind.DENIAL, "denials counted", Verdict.DENIED, detail="too many to be told singly")
#: The source of what comes from those who have not proved who they are.
STRANGERS: Final = "strangers at the join port"
#: And of those who are not heard: they take nothing from strangers who are.
UNHEARD: Final = "those not heard at the join port"
#: What stands before the name in the source of entries that are about a service and nobody's word. It has a
#: blank, so no service is called so.
_ABOUT: Final = "about "


def about(service: str) -> str:
    """Give the source of what is told about a service, not by it: it costs nothing of that one's own."""
    return _ABOUT + service


class Deferred:
    """Entries on their way to one log."""

    def __init__(self, store: Store, log: str, limits: Limits = LIMITS, counts: Entry = COUNTS) -> None:
        """Take the store, which of its logs, and what is said of those that are only counted."""
        self._store, self._log, self._counts = store, log, counts
        self._tally = Tally[Entry](limits)
        self.failing = False

    def note(self, entry: Entry, source: str, now_ms: int) -> bool:
        """Take an entry of a source; whether it will be written by itself.

        ``now_ms`` is auth's time: the times in an entry may be the word of a node that lies.
        """
        what = replace(entry, at_ms=0, call_id="", count=1, until_ms=0)
        last_ms = max(entry.at_ms, entry.until_ms)
        told = Told(what, source, entry.call_id, entry.count, entry.at_ms, last_ms)
        return self._tally.note(told, now_ms, line_bytes(entry.encode(0)))

    def record(self, entries: Iterable[Entry], now_ms: int) -> None:
        """Take entries, each of the source whose word it is, and write what is due.

        Raises ``AuditError`` or ``StoreError`` where that fails, and has taken none of them.
        """
        before = self._tally.copy()
        for entry in entries:
            self.note(entry, source(entry), now_ms)
        try:
            self.flush(now_ms)
        except BaseException:
            self._tally = before
            raise

    def flush(self, now_ms: int, *, everything: bool = False) -> None:
        """Write what is due; raise ``AuditError`` or ``StoreError``, and keep it, where that fails."""
        while told := self._tally.take(BATCH, now_ms, everything=everything):
            try:
                self._store.logs.log(self._log, [self._entry(one) for one in told])
            except BaseException:
                self._tally.give_back(told)
                raise

    def try_to_flush(self, now_ms: int, *, everything: bool = False) -> None:
        """Write what is due if that is possible; if not, say so once, and keep it."""
        try:
            self.flush(now_ms, everything=everything)
        except AuthError as error:
            if not self.failing:
                log.error("kept for the audit log until it can be written: %s", error)  # noqa: TRY400
            self.failing = True
        else:
            if self.failing:
                log.info("the audit log of %s is written again", self._log)
            self.failing = False

    def _entry(self, told: Told[Entry]) -> Entry:
        what = told.what
        if what is None:
            is_about = told.source.startswith(_ABOUT)
            service = told.source.removeprefix(_ABOUT) if is_about else ""
            what = replace(self._counts, service=service, by="" if is_about else told.source)
        until_ms = told.last_ms if told.count > 1 else 0
        return replace(what, at_ms=told.first_ms, call_id=told.id, count=told.count, until_ms=until_ms)


def source(entry: Entry) -> str:
    """Give the source of an entry: whose word it is, or whom it is about."""
    return entry.by.partition("/")[0] or about(entry.service)
