"""Single calls judged for those that hold no slice, and what was denied or is in audit recorded.

The verdict is the matcher's alone. Who asks has proved its name, and is the destination of the call that it
asks about; whom it names as the caller is its word. A denial is answered once it is in the audit log,
or after ``PATIENCE``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container
from contextlib import suppress
from typing import Final

from mesh.audits import Audits
from mesh.core.errors import REVOKED, Denied
from mesh.core.matcher import Permit
from mesh.core.metadata import Entries
from mesh.core.names import full_method, service_name
from mesh.core.receiver import Peer
from mesh.reports import Denial, Reporter
from mesh.rpc.authorize import DEADLINE
from mesh.rpc.connections import MAX_METADATA
from services.gatekeeper.decisions import Ledger
from services.gatekeeper.slices import Slicer

log = logging.getLogger("mesh.gatekeeper")

#: A call has no more entries than this: HTTP/2 counts 32 bytes for each beside its text (RFC 9113
#: section 6.5.2).
MAX_HEADERS: Final = MAX_METADATA // 32
#: Seconds that an answer waits for the log: half of what the asker waits in all, with a call waiting on it.
PATIENCE: Final = DEADLINE / 2


class Judging:
    """Judges under whatever policy it is given."""

    def __init__(
        self,
        now_ms: Callable[[], int],
        clock_ms: Callable[[], int],
        reporter: Reporter,
        ledger: Ledger,
        banned: Callable[[], Container[str]] = frozenset,
    ) -> None:
        """Take a clock that only goes forward, the mesh's own, and who keeps denials and decisions.

        ``banned`` gives the names of services whose calls are denied whatever policy says.
        """
        self._banned = banned
        self._clock_ms, self._reporter, self._ledger = clock_ms, reporter, ledger
        self._audits = Audits(lambda: now_ms() / 1000)

    async def permit(
        self, slicer: Slicer, asking: Peer, source: str, method: str, entries: Entries, call_id: str = ""
    ) -> Permit:
        """Judge a call of ``source`` to the service that asks; raise ``Denied``, recorded."""
        try:
            if source in self._banned():
                raise Denied(source, method, REVOKED)  # noqa: TRY301  recorded as any other
            permit = slicer.matcher(asking.service).permit(source, method, entries, self._clock_ms())
        except Denied as denied:
            self._ledger.note(asking.service, slicer, denied, entries)
            await self.record(denied, asking, call_id)
            raise
        self._ledger.note(asking.service, slicer, permit, entries)
        self._audits.note(permit, slicer.version, str(asking.service))
        self._reporter.audited(permit, asking)
        return permit

    async def record(self, denied: Denied, asking: Peer, call_id: str = "", why: str = "") -> None:
        """Record a denial; ``why``: what there was about the call that no rule was asked about."""
        log.warning(
            "denied: source=%r method=%r destination=%s rule=%r%s%s",
            denied.source[:200],
            denied.method[:200],
            asking.service,
            denied.rule,
            f" why={why!r}" if why else "",
            f" id={call_id}" if call_id else "",
        )
        self._reporter.note(_denial(denied, asking), call_id)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._reporter.written(), PATIENCE)


def _denial(denied: Denied, asking: Peer) -> Denial:
    # Whom it asks about is the asker's word, so there is no instance; what is no name or method is left out.
    try:
        source, method = service_name(denied.source).text, full_method(denied.method).text
    except ValueError:
        source = method = ""
    return Denial(asking, source, "", method, denied.rule or "", "denied")
