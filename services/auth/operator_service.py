"""OperatorService: what an operator may do. Sealed, for the operator identity alone (``core.builtin``)."""

import asyncio
from typing import Any

from mesh.rpc.context import peer
from mesh.v1 import auth_pb2, auth_pb2_grpc
from services.auth.authority import Authority
from services.auth.policies import parse
from services.auth.policy_feed import PolicyFeed
from services.auth.status import answering
from services.auth.worker import Worker


class OperatorServicer(auth_pb2_grpc.OperatorServiceServicer):
    """Answers operators."""

    def __init__(self, authority: Authority, worker: Worker, feed: PolicyFeed) -> None:
        """Take what decides, the thread that it decides in, and who is told of a new policy."""
        self._authority, self._worker, self._feed = authority, worker, feed

    async def CreateToken(  # noqa: N802
        self, request: auth_pb2.CreateTokenRequest, context: Any
    ) -> auth_pb2.CreateTokenResponse:
        """Make a join token."""
        async with answering(context):
            owned, kept = await self._worker.do(
                self._authority.create_token,
                request.service,
                request.ttl_seconds,
                peer(context),
                remote_keys=request.remote_keys,
            )
            return auth_pb2.CreateTokenResponse(token=owned.text, expires_ms=kept.expires_ms)

    async def ListTokens(  # noqa: N802
        self, _request: auth_pb2.ListTokensRequest, context: Any
    ) -> auth_pb2.ListTokensResponse:
        """List tokens without their secrets."""
        async with answering(context):
            tokens = await self._worker.do(self._authority.list_tokens, peer(context))
            return auth_pb2.ListTokensResponse(tokens=tokens)

    async def RevokeToken(  # noqa: N802
        self, request: auth_pb2.RevokeTokenRequest, context: Any
    ) -> auth_pb2.RevokeTokenResponse:
        """Make an unused token useless."""
        async with answering(context):
            await self._worker.do(self._authority.revoke_token, request.id, peer(context))
            return auth_pb2.RevokeTokenResponse()

    async def ApplyPolicy(  # noqa: N802
        self, request: auth_pb2.ApplyPolicyRequest, context: Any
    ) -> auth_pb2.ApplyPolicyResponse:
        """Make a document the policy of record, and tell who watches."""
        async with answering(context):
            # In a thread of its own: reading a large policy takes long, and joins are not to wait for it.
            policy = await asyncio.to_thread(parse, request.document)
            replaces = request.replaces if request.HasField("replaces") else None
            restores = request.restores if request.HasField("restores") else None
            signed = await self._worker.do(
                self._authority.apply_policy, policy, peer(context), replaces, restores
            )
            self._feed.publish(signed)
            return auth_pb2.ApplyPolicyResponse(version=signed.version)

    async def GetPolicy(  # noqa: N802
        self, request: auth_pb2.GetPolicyRequest, context: Any
    ) -> auth_pb2.GetPolicyResponse:
        """Give the policy of record, or an earlier one."""
        async with answering(context):
            version = request.version if request.HasField("version") else None
            policy = await self._worker.do(self._authority.policy, peer(context), version)
            return auth_pb2.GetPolicyResponse(policy=policy)

    async def ListPolicies(  # noqa: N802
        self, _request: auth_pb2.ListPoliciesRequest, context: Any
    ) -> auth_pb2.ListPoliciesResponse:
        """List the policies that are kept."""
        async with answering(context):
            policies = await self._worker.do(self._authority.list_policies, peer(context))
            return auth_pb2.ListPoliciesResponse(policies=policies)

    async def GetAuthStatus(  # noqa: N802
        self, _request: auth_pb2.GetAuthStatusRequest, context: Any
    ) -> auth_pb2.GetAuthStatusResponse:
        """Say what is in force."""
        async with answering(context):
            return await self._worker.do(self._authority.status, peer(context))
