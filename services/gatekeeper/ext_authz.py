"""Envoy's ``envoy.service.auth.v3.Authorization/Check``: verdicts for proxies that enforce them.

An Envoy is no node and seals nothing. It connects with mTLS, to a port of its own, which serves this one
method. Its certificate is the whole of its identity: a call that it asks about is one to the service that
the certificate names, so nobody asks about calls to another. What it says of the call it could as well have
let pass unasked; it is trusted with the calls to its own service, and with nothing else.

Whatever goes wrong refuses: as a verdict, where the call's client is to know; as a failed call, which Envoy
takes for an error and refuses under ``failure_mode_allow: false``, where the question itself is not to be
believed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.message import DecodeError

from mesh.core.errors import Cause, Denied, PeerError, Reason
from mesh.core.names import Identity
from mesh.core.receiver import Peer
from mesh.extauthz.v1 import check_pb2
from mesh.rpc.connections import MAX_METADATA
from mesh.rpc.listener import Listener
from mesh.rpc.membership import Membership
from mesh.rpc.status import mesh_outcome
from mesh.rpc.svid import tls_peer
from mesh.rpc.warden import Warden
from services.gatekeeper.checks import UnfitError, permitted, read, refused, told
from services.gatekeeper.judging import Judging
from services.gatekeeper.slices import Slicer

CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"
#: The headers of a call, which Envoy itself bounds at 60 KiB, and what a question adds to them.
MAX_CHECK: Final = 128 * 1024
#: Questions in progress; more are turned away, and their calls refused.
MOST_CHECKS: Final = 1000
#: Seconds after which a connection is made anew, so that none outlives its certificate by much.
CONNECTION_SECONDS: Final = 300
_OPTIONS: Final = (
    ("grpc.max_connection_age_ms", CONNECTION_SECONDS * 1000),
    ("grpc.max_connection_age_grace_ms", 10_000),
    ("grpc.max_concurrent_streams", MOST_CHECKS),
    ("grpc.max_metadata_size", MAX_METADATA),
    ("grpc.max_receive_message_length", MAX_CHECK),
)


class ExtAuthz(grpc.GenericRpcHandler):
    """Answers proxies."""

    def __init__(self, membership: Membership, policy: Callable[[], Slicer | None], judging: Judging) -> None:
        """Take who we are, the policy in force (``None``: none that can be relied on), and the judge."""
        self._membership, self._policy, self._judging = membership, policy, judging
        self._open = 0
        self.warden = Warden()
        self._check: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(self.check)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Find the one method."""
        return self._check if handler_call_details.method == CHECK else None

    async def check(self, request: bytes, context: Any) -> bytes:
        """Judge a call to the service whose certificate the proxy shows."""
        # gRPC's own bound (maximum_concurrent_rpcs) holds no longer once it was met (grpc/grpc#41531).
        if self._open >= MOST_CHECKS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many questions at once: ask again")
        self._open += 1
        try:
            return await self._answer(request, context)
        finally:
            self._open -= 1

    async def _answer(self, request: bytes, context: Any) -> bytes:
        asking = await self._asking(context)
        self.warden.took(context.peer())
        try:
            question = check_pb2.CheckRequest.FromString(request)
        except DecodeError:
            await self._reject(context, Cause.MALFORMED, "not a CheckRequest", asking)
        return (await self._verdict(question, asking)).SerializeToString()

    async def _verdict(self, request: check_pb2.CheckRequest, asking: Peer) -> check_pb2.CheckResponse:
        slicer = self._policy()
        if slicer is None:
            return refused(mesh_outcome(Reason.NOT_READY, "gatekeeper has no policy to rely on"))
        call_id = secrets.token_hex(8)
        own = Identity(self._membership.identity.domain, asking.service)
        try:
            question = read(request, own)
            source, method, entries = question.caller.service.text, question.method, question.entries
            await self._judging.permit(slicer, asking, source, method, entries, call_id)
        except UnfitError as unfit:
            denied = Denied(told(request, own), request.attributes.request.http.path, None)
            await self._judging.record(denied, asking, call_id, str(unfit))
        except Denied:
            pass  # recorded
        else:
            return permitted(question)
        return refused(mesh_outcome(Reason.POLICY_DENIED, call_id=call_id))

    async def _asking(self, context: Any) -> Peer:
        try:
            now_ms = self._membership.clock.now_ms()
            asking = tls_peer(context.auth_context(), self._membership.identity, now_ms)
        except PeerError as error:
            await self._reject(context, error.cause, str(error))
        if asking.service.reserved:
            await self._reject(context, Cause.WRONG_PEER, "the mesh's own services are no proxies", asking)
        if asking.instance in self._membership.receiver.revoked:
            await self._reject(context, Cause.WRONG_PEER, "the proxy's instance was revoked", asking)
        return asking

    async def _reject(self, context: Any, cause: Cause, detail: str, asking: Peer | None = None) -> NoReturn:
        self.warden.refused(context.peer())
        peer = f"{asking.service}/{asking.instance}" if asking else "unknown"
        call_id = self._membership.rejected(cause, detail, CHECK, peer)
        await self._membership.written()
        code = (
            grpc.StatusCode.INVALID_ARGUMENT
            if cause is Cause.MALFORMED
            else grpc.StatusCode.PERMISSION_DENIED
        )
        await context.abort(
            code, f"gatekeeper does not answer this: ask its operator about the id [id {call_id}]"
        )
        raise AssertionError  # pragma: no cover  abort raises


def listener(membership: Membership, address: str, handler: ExtAuthz) -> Listener:
    """Give what serves proxies at ``host:port``, to be started; raise ``OSError`` if it cannot listen."""
    found = Listener(membership, address, handler, _OPTIONS)
    handler.warden = found.warden
    return found
