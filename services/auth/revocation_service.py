"""RevocationService: revoking and banning. Sealed, for the operator identity alone (``core.builtin``).

An answer means that auth refuses the revoked from then on, and that gatekeeper is being told.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from mesh.core.receiver import Peer
from mesh.rpc.context import peer
from mesh.v1 import revocation_pb2, revocation_pb2_grpc
from services.auth.authority import Authority
from services.auth.policy_feed import PolicyFeed
from services.auth.revocation_store import Revocation
from services.auth.status import answering
from services.auth.worker import Worker

_A = TypeVar("_A")
_R = TypeVar("_R")


class RevocationServicer(revocation_pb2_grpc.RevocationServiceServicer):
    """Answers operators about revocations."""

    def __init__(self, authority: Authority, worker: Worker, feed: PolicyFeed) -> None:
        """Take what decides, the thread that it decides in, and who is told."""
        self._authority, self._worker, self._feed = authority, worker, feed

    async def Revoke(  # noqa: N802
        self, request: revocation_pb2.RevokeRequest, context: Any
    ) -> revocation_pb2.RevokeResponse:
        """Revoke instances."""
        async with answering(context):
            done = await self._changed(self._authority.revoking.revoke, request, peer(context))
            instances = [instance.raw for instance in done.instances]
            return revocation_pb2.RevokeResponse(instances=instances, tokens=done.tokens, untold=done.untold)

    async def Ban(  # noqa: N802
        self, request: revocation_pb2.BanRequest, context: Any
    ) -> revocation_pb2.BanResponse:
        """Ban a service."""
        async with answering(context):
            done = await self._changed(self._authority.revoking.ban, request, peer(context))
            instances = [instance.raw for instance in done.instances]
            return revocation_pb2.BanResponse(instances=instances, tokens=done.tokens, untold=done.untold)

    async def Unban(  # noqa: N802
        self, request: revocation_pb2.UnbanRequest, context: Any
    ) -> revocation_pb2.UnbanResponse:
        """Lift a ban."""
        async with answering(context):
            await self._changed(self._authority.revoking.unban, request, peer(context))
            return revocation_pb2.UnbanResponse()

    async def ListRevoked(  # noqa: N802
        self, _request: revocation_pb2.ListRevokedRequest, context: Any
    ) -> revocation_pb2.ListRevokedResponse:
        """List what is revoked and banned."""
        async with answering(context):
            found = await self._worker.do(self._list, peer(context))
            return revocation_pb2.ListRevokedResponse(revocations=[_info(one) for one in found])

    def _list(self, by: Peer) -> list[Revocation]:
        self._authority.check_known(by)
        return self._authority.revoking.list()

    async def _changed(self, change: Callable[[_A, Peer], _R], request: _A, by: Peer) -> _R:
        revoking = self._authority.revoking

        def work() -> tuple[_R, revocation_pb2.Revocations, int]:
            self._authority.check_known(by)
            return change(request, by), revoking.told(), revoking.revision

        done, told, revision = await self._worker.do(work)
        self._feed.revoke(told, revision)
        return done


def _info(one: Revocation) -> revocation_pb2.RevocationInfo:
    return revocation_pb2.RevocationInfo(
        service=one.service,
        instance=one.instance.raw if one.instance else b"",
        at_ms=one.at_ms,
        until_ms=one.until_ms,
        by=one.by,
        reason=one.reason,
    )
