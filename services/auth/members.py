"""Who is a member now, by auth's record. Who asks was proved before; this says whether auth knows it."""

from collections.abc import Callable
from typing import Final

from mesh.core.audit import Entry, Kind, Verdict
from mesh.core.receiver import Peer
from services.auth.audit import report
from services.auth.auditor import Auditor
from services.auth.errors import RefusedError
from services.auth.records import Instance
from services.auth.revoking import Revoking
from services.auth.store import Store

UNKNOWN: Final = "this instance is not known here, or no longer: join again with a new token"


class Members:
    """Tells members from others."""

    def __init__(self, store: Store, revoking: Revoking, auditor: Auditor, now_ms: Callable[[], int]) -> None:
        """Take rows, who is banned, where refusals are noted, and the clock."""
        self._store, self._revoking, self._auditor, self._now_ms = store, revoking, auditor, now_ms

    def check(self, peer: Peer) -> Instance:
        """Give the record of an instance; raise ``RefusedError`` unless it is one of its service now."""
        known, now_ms = self._store.instance(peer.instance), self._now_ms()
        if (
            known is None
            or not known.is_member(peer.service, now_ms)
            or self._revoking.is_banned(peer.service)
        ):
            service, instance = peer.service.text, str(peer.instance)
            entry = Entry(now_ms, Kind.DENIAL, "unknown instance", Verdict.DENIED, True, service, instance)
            report(entry)
            self._auditor.denied([entry])
            raise RefusedError(UNKNOWN)
        return known

    def has(self, peer: Peer, now_ms: int) -> bool:
        """Whether an instance is one of a service now."""
        known = self._store.instance(peer.instance)
        return known is not None and known.is_member(peer.service, now_ms)
