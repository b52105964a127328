"""AuthService: what nodes ask. Sealed; the caller is whom the seal proved, never whom a message names.

Which caller may use which method is ``core.builtin``'s.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

from mesh.rpc.context import peer
from mesh.v1 import auth_pb2, auth_pb2_grpc
from services.auth.authority import Authority
from services.auth.policy_feed import PolicyFeed
from services.auth.status import answering
from services.auth.worker import Worker


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    """Answers nodes."""

    def __init__(
        self, authority: Authority, worker: Worker, feed: PolicyFeed, now_ms: Callable[[], int]
    ) -> None:
        """Take what decides, the thread that it decides in, the policies to come, and auth's clock."""
        self._authority, self._worker, self._feed, self._now_ms = authority, worker, feed, now_ms

    async def Renew(self, request: auth_pb2.RenewRequest, context: Any) -> auth_pb2.RenewResponse:  # noqa: N802
        """Give the caller new credentials."""
        async with answering(context):
            credentials = await self._worker.do(self._authority.renew, peer(context), request.csr)
            return auth_pb2.RenewResponse(credentials=credentials)

    async def GetPairKeys(  # noqa: N802
        self, request: auth_pb2.GetPairKeysRequest, context: Any
    ) -> auth_pb2.GetPairKeysResponse:
        """Give the caller its keys to those that it may call."""
        async with answering(context):
            return await self._worker.do(self._authority.pair_keys, peer(context), request.destinations)

    async def WatchPolicy(  # noqa: N802
        self, _request: auth_pb2.WatchPolicyRequest, context: Any
    ) -> AsyncIterator[auth_pb2.WatchPolicyResponse]:
        """Send the policy of record and who is revoked, what takes their place, and that nothing has."""
        async with answering(context):
            await self._worker.do(self._authority.check_known, peer(context))
        async for word in self._feed.words():
            word.now_ms = self._now_ms()
            yield word
