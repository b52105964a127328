"""Becoming and staying a member: join with a token, renew before anything runs out, fetch pair keys.

Join is retried until auth answers, with the same request, so a lost answer costs nothing; a refusal is
final. What is held is renewed at the time that auth names, with 10 % of jitter, and again and again until it
succeeds, spread over seconds so that many who lost auth do not come back in one; nothing here ever gives up
while the certificate lives.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final, Self

import grpc
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from mesh.core.errors import MeshError, PeerError, Reason
from mesh.core.join import MAX_SEALED, NONCE_BYTES, JoinRequester, JoinToken
from mesh.core.keys import KEY_BYTES, Key
from mesh.core.names import AUTH, GATEKEEPER, InstanceId, ServiceName
from mesh.core.vouching import Proof, read_join_key
from mesh.pauses import backoff, renewing
from mesh.rpc.channel import MeshChannel
from mesh.rpc.membership import (
    Clock,
    Membership,
    identity_of,
    learn_credentials,
    learn_pair_keys,
)
from mesh.rpc.signer import Signer
from mesh.rpc.status import CallFailedError, mesh_outcome
from mesh.rpc.svid import Svid, new_key
from mesh.rpc.targets import FixedTarget, each_of
from mesh.telemetry.names import RENEW
from mesh.telemetry.spans import Tracing
from mesh.v1 import auth_pb2, auth_pb2_grpc, signer_pb2_grpc

log = logging.getLogger("mesh")

_C = grpc.StatusCode
JOIN_TIMEOUT: Final = 5.0
CALL_TIMEOUT: Final = 5.0
JITTER: Final = 0.1
#: Variables that name the files of who joins by Kubernetes' word.
TOKEN_FILE: Final = "MESH_SERVICE_ACCOUNT_TOKEN_FILE"  # noqa: S105  a name
JOIN_KEY_FILE: Final = "MESH_JOIN_KEY_FILE"
#: Names that auth takes in one request for keys (auth.proto, GetPairKeysRequest).
MAX_NAMES: Final = 1000
_JOIN_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_SEALED),
    ("grpc.enable_http_proxy", 0),
    # gRPC would wait for up to two minutes, when auth has been away for long, before it connects again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # which is also the time that connecting may take
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
#: What a join may fail with because auth is not there (yet), or hears nobody from here for a while (somebody
#: guesses at tokens), rather than because it refuses.
_TRANSIENT: Final = (_C.UNAVAILABLE, _C.DEADLINE_EXCEEDED, _C.CANCELLED, _C.RESOURCE_EXHAUSTED)


class JoinError(MeshError):
    """Auth refused to let this node in, or gave what cannot be believed."""


@dataclass(frozen=True, slots=True)
class Vouched:
    """How a node joins without a token: what it proves itself with, and auth's join key as published."""

    service_account_token: str = field(repr=False)
    join_key: str

    @classmethod
    def read(cls, token: Path, join_key: Path) -> Self:
        """Read both from files; raise ``OSError`` or ``ValueError``."""
        return cls(token.read_text(encoding="ascii").strip(), join_key.read_text(encoding="ascii"))

    @classmethod
    def named(cls, environment: Mapping[str, str]) -> Self | None:
        """Read what an environment names, if it does; raise ``OSError`` or ``ValueError``."""
        token, join_key = environment.get(TOKEN_FILE), environment.get(JOIN_KEY_FILE)
        return cls.read(Path(token), Path(join_key)) if token and join_key else None


async def join(
    by: JoinToken | Vouched, address: str, at: tuple[str, str] | None = None, *, remote_keys: bool = False
) -> Enrolment:
    """Join over auth's join port at ``host:port``, or several with commas between; wait for auth there.

    ``at``: where auth and gatekeeper are from here, if not where auth says. ``remote_keys``: have auth keep
    the keys. Raises ``JoinError`` if auth refuses, and ``ValueError`` for what cannot be joined with.
    """
    key, csr = new_key()
    requester, request = _asking(by, csr, remote_keys=remote_keys)
    async with AsyncExitStack() as stack:
        stubs = []
        for one in random.sample(each_of(address), len(each_of(address))):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(one, _JOIN_OPTIONS))
            stubs.append(auth_pb2_grpc.JoinServiceStub(channel))
        response = await _ask(stubs, request, address)
    try:
        bundle = requester.open(response)
        if at is not None:
            bundle.auth_address, bundle.gatekeeper_address = at
        if remote_keys and not bundle.credentials.remote_keys:
            raise JoinError(f"auth at {address} does not keep keys: join without keys=remote")
        return Enrolment(bundle, key)
    except (PeerError, ValueError) as error:
        msg = f"auth at {address} gave an answer that does not verify: check the address ({error})"
        raise JoinError(msg) from None


def _asking(
    by: JoinToken | Vouched, csr: bytes, *, remote_keys: bool
) -> tuple[JoinRequester, auth_pb2.JoinRequest]:
    nonce = secrets.token_bytes(NONCE_BYTES)
    if isinstance(by, JoinToken):
        requester = JoinRequester(by, csr, nonce, remote_keys=remote_keys)
        return requester, requester.request()
    proof = Proof(Key(secrets.token_bytes(KEY_BYTES)), by.service_account_token)
    requester = JoinRequester(proof.join_token, csr, nonce, remote_keys=remote_keys)
    request = requester.request()
    request.sealed_proof = proof.seal(read_join_key(by.join_key), request.body)
    return requester, request


async def _ask(
    stubs: Sequence[auth_pb2_grpc.JoinServiceAsyncStub], request: auth_pb2.JoinRequest, address: str
) -> auth_pb2.JoinResponse:
    delays = backoff()
    waiting = False
    for number in count():
        try:
            return await stubs[number % len(stubs)].Join(request, timeout=JOIN_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _TRANSIENT:
                msg = f"auth at {address} refused to let this node join: {_plain(error.details())}"
                raise JoinError(msg) from None
            limited = error.code() is _C.RESOURCE_EXHAUSTED
        if number + 1 < len(stubs):
            continue
        if not waiting:
            why = (
                "it hears nobody from here for a while" if limited else "its join port does not answer there"
            )
            log.warning("waiting for auth at %s, to join: %s", address, why)
            waiting = True
        await asyncio.sleep(next(delays))
    raise AssertionError  # pragma: no cover  it is asked for ever


class Enrolment:
    """A joined node's dealings with auth: holds its membership and keeps it in force."""

    def __init__(self, bundle: auth_pb2.JoinBundle, key: EllipticCurvePrivateKey) -> None:
        """Take what joining gave; raise ``ValueError`` if it is not all there."""
        credentials = bundle.credentials
        svid = Svid.build(key, credentials.certificate_chain, credentials.trust_bundle)
        self.membership = Membership(
            identity_of(credentials), InstanceId(credentials.instance), svid, Clock(credentials.now_ms)
        )
        learn_credentials(self.membership, credentials)
        learn_pair_keys(self.membership, bundle.pair_keys, credentials.now_ms)
        self.gatekeeper_address = bundle.gatekeeper_address
        self._renew_at_ms, self._runs_out_ms = credentials.renew_at_ms, _runs_out_ms(svid, credentials)
        self._auth = FixedTarget(AUTH, bundle.auth_address, self.membership)
        channel = MeshChannel(self.membership, self._auth)
        self._stub = auth_pb2_grpc.AuthServiceStub(channel)
        if credentials.remote_keys:
            self.membership.signer = Signer(signer_pb2_grpc.SignerServiceStub(channel))
        self._fetching: dict[ServiceName, asyncio.Task[None]] = {}
        self.tracing = Tracing()
        self.destinations: Callable[[], Iterable[ServiceName]] = tuple

    @property
    def auth(self) -> FixedTarget:
        """Where auth is."""
        return self._auth

    async def keep(self) -> None:
        """Renew for ever; run it as a task of its own."""
        while True:
            await asyncio.sleep(self._until_renewal())
            await self._renew_at_last()

    async def keys_for(self, destination: ServiceName, patience: float) -> None:
        """See within ``patience`` seconds that calls can be sealed; else raise ``CallFailedError``."""
        if self.membership.signer is not None:
            return  # auth has them, and says whether it uses them when it is asked
        if self.membership.sender.has_key(destination, self.membership.clock.now_ms()):
            return
        task = self._fetching.get(destination)
        if task is None:
            task = self._fetching[destination] = asyncio.ensure_future(self._fetch([destination]))
            task.add_done_callback(lambda _: self._fetching.pop(destination, None))
        try:
            await asyncio.wait_for(asyncio.shield(task), patience)
        except (TimeoutError, grpc.aio.AioRpcError):
            text = f"auth gives no key for {destination} at the moment"
            raise CallFailedError(mesh_outcome(Reason.NOT_READY, text)) from None
        if not self.membership.sender.has_key(destination, self.membership.clock.now_ms()):
            raise CallFailedError(mesh_outcome(Reason.NAME_UNAVAILABLE))

    def pauses(self) -> Iterator[float]:
        """Give delays in seconds between attempts to renew, by how long what is held lasts, for ever."""
        return renewing(lambda: max(0, self._runs_out_ms - self.membership.clock.now_ms()) / 1000)

    async def close(self) -> None:
        """End what is going on with auth."""
        tasks = list(self._fetching.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._auth.close()

    def _until_renewal(self) -> float:
        left = max(0.0, (self._renew_at_ms - self.membership.clock.now_ms()) / 1000)
        return left * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  spread, not secrecy

    async def _renew(self) -> None:
        key, csr = new_key()
        response = await self._stub.Renew(auth_pb2.RenewRequest(csr=csr), timeout=CALL_TIMEOUT)
        credentials = response.credentials
        learn_credentials(self.membership, credentials)
        others = () if self.membership.signer is not None else self.destinations()
        await self._fetch([AUTH, GATEKEEPER, *others])
        svid = Svid.build(key, credentials.certificate_chain, credentials.trust_bundle)
        self.membership.svid = svid
        self._renew_at_ms, self._runs_out_ms = credentials.renew_at_ms, _runs_out_ms(svid, credentials)

    async def _fetch(self, destinations: Iterable[ServiceName]) -> None:
        names = sorted({name.text for name in destinations})
        for start in range(0, len(names), MAX_NAMES):
            request = auth_pb2.GetPairKeysRequest(destinations=names[start : start + MAX_NAMES])
            try:
                response = await self._stub.GetPairKeys(request, timeout=CALL_TIMEOUT)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _TRANSIENT:
                    raise
                response = await self._stub.GetPairKeys(request, timeout=CALL_TIMEOUT)  # perhaps elsewhere
            learn_pair_keys(self.membership, response.keys, response.now_ms)

    def _tell_if_ended(self) -> bool:
        # It goes on trying, for a clock may have been wrong; nothing else brings it back.
        ended = self.membership.svid.not_after_ms <= self.membership.clock.now_ms()
        if ended:
            log.error("this node's certificate has ended: start it again with a new token")
        return ended

    async def _renew_at_last(self) -> None:
        delays = self.pauses()
        told = ended = False
        while True:
            try:
                with self.tracing.span(RENEW):
                    await self._renew()
            except (grpc.aio.AioRpcError, ValueError) as error:
                ended = ended or self._tell_if_ended()
                if not (told or ended):
                    said = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
                    log.warning("renewal failed, trying on: %s", said)
                    told = True
                self._auth.forget()
            else:
                return
            await asyncio.sleep(next(delays))


def _runs_out_ms(svid: Svid, credentials: auth_pb2.Credentials) -> int:
    # When the first thing is missing that calls are made or taken with.
    keys = max(held.epoch.ends_ms for held in credentials.destination_keys)
    return min(svid.not_after_ms, keys)


def _plain(text: str | None) -> str:
    # Nothing has proved who said it, and it may end on somebody's terminal.
    return "".join(letter if letter.isprintable() else "?" for letter in text or "")[:300]
