"""What auth does about its audit logs: notes what it refuses and what nodes denied, recovers, hands out.

What operators do and what joins is not noted here: that is written in the transaction that does it, or not
done (``log_store``). That an operator's command begins is: it does nothing by itself. It belongs to
``authority``'s one thread.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from mesh.core.audit import Entry, Kind, Verdict
from mesh.core.chain import Head
from mesh.core.names import AUTH
from mesh.core.receiver import Peer
from mesh.v1 import audit_pb2
from services.auth import reports
from services.auth.audit import report, unlogged
from services.auth.audit_log import ACTIONS, DENIALS
from services.auth.deferred import AUDITS, COUNTS, OWN, SESSIONS, UNHEARD, Deferred, about, source
from services.auth.errors import MissingError
from services.auth.store import Store

_AUDITS_COUNTED: Final = replace(COUNTS, kind=Kind.AUDIT, event="audits counted", verdict=Verdict.DONE)
_SESSIONS_COUNTED: Final = replace(COUNTS, kind=Kind.SESSION, event="sessions counted", verdict=Verdict.DONE)


class Auditor:
    """Keeps the audit logs supplied."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        """Take the store, and auth's clock."""
        self._logs, self._now = store.logs, now_ms
        self.denials, self._late = Deferred(store, DENIALS), Deferred(store, ACTIONS, OWN)
        self._audits = Deferred(store, DENIALS, AUDITS, _AUDITS_COUNTED)
        self._sessions = Deferred(store, ACTIONS, SESSIONS, _SESSIONS_COUNTED)

    def happened(self, entry: Entry) -> None:
        """Note what happened by itself, and does not wait for the log."""
        self._late.note(entry, AUTH.text, self._now())

    def refused(self, join: Entry, source: str) -> None:
        """Note a join that is refused in any case, and write it if that is possible now."""
        report(join)
        self.denials.note(join, source, join.at_ms)
        self.denials.try_to_flush(join.at_ms)

    def not_heard(self, count: int) -> None:
        """Note joins that were refused unheard, because too many from there had been refused before."""
        now_ms = self._now()
        until_ms = now_ms if count > 1 else 0
        why = "too many from there were refused before"
        unheard = Entry(now_ms, Kind.JOIN, "joins not heard", Verdict.DENIED, detail=why)
        self.denials.note(replace(unheard, count=count, until_ms=until_ms), UNHEARD, now_ms)
        self.denials.try_to_flush(now_ms)

    def began(self, session: Entry) -> None:
        """Note that an operator joined, and write it if that is possible now."""
        now_ms = self._now()
        self._sessions.note(session, about(session.service), now_ms)
        self._sessions.try_to_flush(now_ms)

    def denied(self, entries: Iterable[Entry]) -> None:
        """Note what was denied, and write it if that is possible now."""
        now_ms = self._now()
        for entry in entries:
            self.denials.note(entry, about(entry.service), now_ms)
        self.denials.try_to_flush(now_ms)

    def names_refused(
        self, peer: Peer, count: int, now_ms: int, method: str = "/mesh.v1.AuthService/GetPairKeys"
    ) -> None:
        """Note that a node asked for keys to names that it may not know of, or that are none; not which.

        Or that it asked for a call to one to be sealed, by ``method``.
        """
        who = peer.service.text, str(peer.instance)
        refused = Entry(now_ms, Kind.DENIAL, "names refused", Verdict.DENIED, False, *who, method=method)
        self.denied([replace(refused, count=count, until_ms=now_ms if count > 1 else 0)])

    def record(self, told: Iterable[audit_pb2.NodeDenials]) -> None:
        """Write what nodes denied, or auth itself; raise ``AuditError`` while the log cannot be written.

        What audit let pass is kept until it can be: no call waits for it.
        """
        now_ms = self._now()
        entries = list(reports.entries(told, now_ms))
        self.denials.record((one for one in entries if one.kind is not Kind.AUDIT), now_ms)
        for audited in (one for one in entries if one.kind is Kind.AUDIT):
            self._audits.note(audited, source(audited), now_ms)
        self._audits.try_to_flush(now_ms)

    def tapped(self, request: audit_pb2.RecordTapRequest, operator: Peer) -> None:
        """Write that an operator looks at calls to a service; raise ``AuditError`` if that cannot be."""
        self._logs.log(ACTIONS, [reports.tap(request, operator, self._now())])

    def log(self, name: str) -> tuple[Head, dict[int, int]]:
        """Give the end of a log, and its segments with how much there is of each; raise ``MissingError``."""
        audit = self._logs.open
        if name not in audit.files:
            raise MissingError(f"no such log: there are {' and '.join(audit.files)}")
        return audit.heads()[name], audit.segments(name)

    def whose(self) -> tuple[str, list[str]]:
        """Give the name of this auth, and those of all that have logs; empty for the one of a file."""
        return self._logs.replica, self._logs.replicas()

    def piece(self, name: str, segment: int, offset: int, most: int) -> bytes:
        """Give bytes of a log; fewer, or none, where there are no more."""
        return self._logs.open.files[name].read(segment, offset, most)

    def recover(self) -> None:
        """See that the logs can be written, as a crash or somebody else has left them."""
        with unlogged():
            for entry in self._logs.recover(self._now()):
                report(entry)
            self._logs.move_old_entries()

    def turn(self, now_ms: int, *, everything: bool = False) -> None:
        """Write what is due, and have the keys forgotten that were left behind."""
        for deferred in (self._late, self._sessions, self.denials, self._audits):
            deferred.try_to_flush(now_ms, everything=everything)
        self._logs.forget_old_keys()

    def close(self) -> None:
        """Write all that is left to be told."""
        self.turn(self._now(), everything=True)
