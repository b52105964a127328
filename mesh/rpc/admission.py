"""A call at the door: from what the transport shows to one that may be dispatched, or to a refusal.

The core decides (``Receiver.admit``); this maps the transport to it. What it refuses is not sealed, for there
is nobody yet whom it could be sealed for. Where auth keeps the keys, auth is asked before the core is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from mesh.core.errors import Cause, PeerError
from mesh.core.metadata import REFUSAL, Entries
from mesh.core.receiver import Admitted, Answer, Incoming, StalePeerError
from mesh.rpc.asking import OWN_KEYS
from mesh.rpc.membership import Membership
from mesh.rpc.status import CallFailedError, mesh_outcome
from mesh.rpc.svid import tls_peer
from mesh.rpc.warden import Warden

if TYPE_CHECKING:
    from mesh.rpc.asking import Asking

#: Seconds that the message of a call of one request has to come with it, so that auth is asked about both at
#: once, where it keeps the keys.
TOGETHER: Final = 0.01


@dataclass(frozen=True, slots=True)
class Admission:
    """Where calls to one method come in. ``alone``: its requests are one message."""

    membership: Membership
    method: str
    warden: Warden
    alone: bool

    async def admit(self, raw: Any) -> tuple[Admitted, Asking]:
        """Admit a call of the transport, or abort it."""
        if self.warden.gone(raw.peer()):
            raise asyncio.CancelledError  # not even refused: they wait here by the thousand
        now_ms = self.membership.clock.now_ms()
        peer = "unknown"
        try:
            tls = tls_peer(raw.auth_context(), self.membership.identity, now_ms)
            peer = f"{tls.service}/{tls.instance}"
            remaining = raw.time_remaining()
            deadline_ms = None if remaining is None else now_ms + int(remaining * 1000)
            incoming = Incoming(self.method, raw.invocation_metadata(), tls, deadline_ms)
            answer, asking = await self._ask(incoming, raw, now_ms)
            admitted = self.membership.receiver.admit(incoming, self.membership.authorize, now_ms, answer)
        except PeerError as error:
            await self._refuse(raw, error, peer)
        except CallFailedError as failed:
            await raw.abort(failed.outcome.code, failed.outcome.details, failed.outcome.trailing)
            raise  # abort has raised already
        self.membership.decided(admitted, now_ms)
        return admitted, asking

    async def _ask(self, incoming: Incoming, raw: Any, now_ms: int) -> tuple[Answer | None, Asking]:
        signer = self.membership.signer
        if signer is None:
            return None, OWN_KEYS
        reading = await self._first(raw) if self.alone else None
        return await signer.received(self.membership.receiver, incoming, reading, now_ms)

    async def _first(self, raw: Any) -> asyncio.Future[Any]:
        # What reads the first message, which may have come with the call.
        reading: asyncio.Future[Any] = asyncio.ensure_future(raw.read())
        raw.add_done_callback(lambda _: reading.cancel())
        await asyncio.wait((reading,), timeout=TOGETHER)
        return reading

    async def _refuse(self, raw: Any, error: PeerError, peer: str) -> NoReturn:
        membership = self.membership
        call_id = membership.rejected(error.cause, str(error), self.method, peer)
        membership.observer.rejected(error, self.method, raw.peer, call_id)
        if membership.tap is not None:
            membership.tap.rejected(error, self.method, call_id)
        # Proven to be of a caller of ours: come too late, or for an instance that is gone.
        honest = isinstance(error, StalePeerError) or error.cause is Cause.BAD_DEADLINE
        if not honest:
            self.warden.refused(raw.peer())
        if not isinstance(error, StalePeerError):
            await membership.written()
        outcome = mesh_outcome(error.reason, call_id=call_id)
        refusal = error.refusal if isinstance(error, StalePeerError) else None
        proof: Entries = ((REFUSAL, refusal.encode()),) if refusal else ()
        await raw.abort(outcome.code, outcome.details, (*outcome.trailing, *proof))
        raise error  # abort has raised already
