"""auth as a running thing: two ports, its own identity, and the timer that keeps all of it fresh.

auth is a node like any other, but for two things: it issues its own credentials, and it judges callers by
the built-in rules instead of a slice. It calls nobody.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeVar

import grpc

from mesh.core.builtin import SECTIONS
from mesh.core.document import MAX_DOCUMENT
from mesh.core.matcher import Matcher
from mesh.core.names import AUTH, INSTANCE_BYTES, Identity, InstanceId
from mesh.core.tally import Told
from mesh.reports import Denial, Reporter, messages
from mesh.rpc.connections import MAX_MESSAGE
from mesh.rpc.lasting import OPTIONS as LASTING
from mesh.rpc.lasting import LastingServer
from mesh.rpc.membership import Membership, learn_credentials
from mesh.rpc.server import MeshServer
from mesh.rpc.svid import Svid, new_key
from mesh.rpc.swollen import Before
from mesh.rpc.waiting import within
from mesh.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    auth_pb2,
    auth_pb2_grpc,
    keys_pb2_grpc,
    revocation_pb2,
    revocation_pb2_grpc,
    signer_pb2_grpc,
)
from services.auth.audit_service import AuditServicer
from services.auth.auth_service import AuthServicer
from services.auth.authority import MAX_DESTINATIONS, Authority
from services.auth.clock import Clock
from services.auth.errors import AuthError, ListenError
from services.auth.join_service import JoinServicer
from services.auth.key_service import KeyServicer
from services.auth.operator_service import OperatorServicer
from services.auth.policy_feed import PolicyFeed
from services.auth.revocation_service import RevocationServicer
from services.auth.signer_service import SignerServicer
from services.auth.vouching import Vouching
from services.auth.worker import Worker

_T = TypeVar("_T")

log = logging.getLogger("mesh.auth")

#: How often the timer looks where it is not told to. Short: a machine that slept, a clock that was set, and
#: what another auth did not tell of are noticed by it.
TICK_SECONDS: Final = 0.5
GRACE_SECONDS: Final = 2.0
#: How long a look at the store may take before auth is not ready.
SILENCE_SECONDS: Final = 5.0
#: A join request is at most 8 KiB and its mac.
MAX_JOIN: Final = 16 * 1024
#: A message of an application, of the size that gRPC takes unless it is told otherwise, and a call beside it.
MAX_SIGNED: Final = MAX_MESSAGE + 4 * 1024
#: What is larger is refused before it is parsed: a parsed message is up to 200 times as large as it was.
MAX_REQUEST: Final = 64 * 1024
#: Requests that may be larger: a policy with what a message adds to its document, names for keys, each of 125
#: bytes and two more, and the reports of some nodes.
LIMITS: Final = MappingProxyType(
    {
        "/mesh.v1.OperatorService/ApplyPolicy": MAX_DOCUMENT + 1024,
        "/mesh.v1.AuthService/GetPairKeys": MAX_DESTINATIONS * 127,
        "/mesh.v1.AuditService/Record": 256 * 1024,
        "/mesh.v1.SignerService/Sign": MAX_SIGNED,
        "/mesh.v1.SignerService/Verify": MAX_SIGNED,
    }
)

_JOIN_OPTIONS: Final = (
    *LASTING,
    ("grpc.max_receive_message_length", MAX_JOIN),
    ("grpc.max_concurrent_streams", 1000),
)


class OwnMembership:
    """Auth's own place in the mesh, and its upkeep."""

    def __init__(self, authority: Authority, worker: Worker, clock: Clock) -> None:
        """Get an instance id and credentials for it."""
        self._authority, self._worker, self._clock = authority, worker, clock
        self._instance = InstanceId(os.urandom(INSTANCE_BYTES))
        svid, credentials = self._issue()
        self.membership = Membership(Identity(authority.domain, AUTH), self._instance, svid, clock)
        self.membership.authorize = Matcher(SECTIONS[AUTH]).permit
        self._learn(svid, credentials)
        self.look = asyncio.Event()
        """Set where there may be news in the database."""
        self.reporter = Reporter(self.membership, self._record)
        self._revision = 0
        self._failing, self._kept_at = "", time.monotonic()

    def missing(self) -> str:
        """Give what keeps auth from answering nodes, or ``""``: its store did not answer at the last look."""
        silent = time.monotonic() - self._kept_at > SILENCE_SECONDS
        return self._failing or ("its database has not answered for some seconds" if silent else "")

    async def keep(self, feed: PolicyFeed) -> None:
        """Turn epochs and renew, on time, for ever, and tell of a new policy; run it as a task of its own."""
        while True:
            with suppress(TimeoutError):
                await within(TICK_SECONDS, self.look.wait())
            self.look.clear()
            try:
                now_ms, tell = await self._worker.do(self._turn)
                tell(feed)
                if now_ms >= self._renew_at_ms:
                    self._learn(*await self._worker.do(self._issue))
                self._failing, self._kept_at = "", time.monotonic()
            except AuthError as error:
                if not self._failing:
                    log.error("cannot keep epochs and certificate fresh, trying on: %s", error)  # noqa: TRY400
                self._failing = str(error)

    async def listen(self) -> None:
        """Look as soon as another auth tells of a change, for ever."""
        await self._authority.following.listen(self.look.set)

    def _turn(self) -> tuple[int, Callable[[PolicyFeed], None]]:
        # What other auths have changed is told as if it was changed here.
        now_ms, authority = self._authority.turn(), self._authority
        policy, confirmed_ms, revision = (
            authority.policy_of_record,
            authority.following.looked_ms,
            authority.revoking.revision,
        )
        told = authority.revoking.told() if revision != self._revision else None
        self._revision = revision

        def tell(feed: PolicyFeed) -> None:
            if told is not None:
                feed.revoke(told, revision)
            feed.confirm(policy, confirmed_ms)

        return now_ms, tell

    async def _record(self, told: Sequence[Told[Denial]]) -> None:
        # What auth denies itself takes the way of all others, but for gatekeeper.
        own = audit_pb2.NodeDenials(service=AUTH.text, instance=self._instance.raw, denials=messages(told))
        try:
            await self._worker.do(self._authority.auditor.record, (own,))
        except AuthError as error:
            raise OSError(str(error)) from None

    def _issue(self) -> tuple[Svid, auth_pb2.Credentials]:
        key, _ = new_key()
        credentials = self._authority.credentials_for(AUTH, self._instance, key.public_key())
        return Svid.build(key, credentials.certificate_chain, credentials.trust_bundle), credentials

    def _learn(self, svid: Svid, credentials: auth_pb2.Credentials) -> None:
        self.membership.svid = svid
        learn_credentials(self.membership, credentials)
        self._renew_at_ms = credentials.renew_at_ms


class AuthServer:
    """Both ports of a running auth. It listens from the start, and answers once started."""

    def __init__(
        self,
        authority: Authority,
        worker: Worker,
        own: OwnMembership,
        join_at: str,
        listen_at: str,
        vouching: Vouching | None = None,
    ) -> None:
        """Listen at two ``host:port``; raise ``ListenError`` if one is in use."""
        self._own = own
        self._feed = PolicyFeed(
            authority.policy_of_record, authority.revoking.told(), shared=authority.following.shared
        )
        self._feed.confirm(authority.policy_of_record, authority.following.looked_ms)
        membership = own.membership
        self._sealed = _listen(
            listen_at, lambda: MeshServer(membership, listen_at, max_receive=MAX_REQUEST, limits=LIMITS)
        )
        self.port = self._sealed.port
        self._feed.on_revoked = self._revoked
        self._revoked(authority.revoking.told())
        joins = JoinServicer(authority, worker, vouching)
        self._join = _listen(join_at, lambda: LastingServer(partial(_join_server, joins), join_at))
        self.join_port = self._join.port
        joins.warden = self._join.warden
        nodes = AuthServicer(authority, worker, self._feed, membership.clock.now_ms)
        operators = OperatorServicer(authority, worker, self._feed)
        keys_pb2_grpc.add_KeyServiceServicer_to_server(KeyServicer(authority, worker), self._sealed)
        revocations = RevocationServicer(authority, worker, self._feed)
        revocation_pb2_grpc.add_RevocationServiceServicer_to_server(revocations, self._sealed)
        signer = SignerServicer(authority.signatory, worker)
        signer_pb2_grpc.add_SignerServiceServicer_to_server(signer, self._sealed)
        audit_pb2_grpc.add_AuditServiceServicer_to_server(AuditServicer(authority, worker), self._sealed)
        auth_pb2_grpc.add_AuthServiceServicer_to_server(nodes, self._sealed)
        auth_pb2_grpc.add_OperatorServiceServicer_to_server(operators, self._sealed)

    def _revoked(self, told: revocation_pb2.Revocations) -> None:
        membership = self._own.membership
        instances = {InstanceId(one.instance): one.until_ms for one in told.instances}
        membership.revoke(membership.receiver.revoked.joined(instances, membership.clock.now_ms()))
        self._sealed.recheck()

    async def start(self) -> None:
        """Begin to take calls."""
        await self._sealed.start()
        await self._join.start()

    async def keep_until(self, stop: asyncio.Event) -> None:
        """Keep keys and certificate fresh until it is time to stop."""
        async with asyncio.TaskGroup() as tasks:
            kept = self._own.keep(self._feed), self._own.listen(), self._own.reporter.keep()
            upkeep = [tasks.create_task(one) for one in kept]
            await stop.wait()
            for one in upkeep:
                one.cancel()

    async def stop(self) -> None:
        """Take no more calls; end the streams, and give other calls in progress a moment."""
        self._feed.close()
        await asyncio.gather(self._join.stop(GRACE_SECONDS), self._sealed.stop(GRACE_SECONDS))


def _join_server(servicer: JoinServicer, address: str) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(options=_JOIN_OPTIONS)
    registering: Any = Before(server, lambda: servicer.warden)
    auth_pb2_grpc.add_JoinServiceServicer_to_server(servicer, registering)
    try:
        return server, server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _listen(address: str, listen: Callable[[], _T]) -> _T:
    try:
        return listen()
    except OSError:
        wrong = "the port is in use, or the address not ours"
        raise ListenError(f"cannot listen on {address}: {wrong}") from None
