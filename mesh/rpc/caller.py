"""Calls as a caller makes them: sealed for an instance, made, and sealed anew if they were refused.

A call is repeated only on a refusal that proves, under the destination's own key, that it was not
dispatched (``wire.Refusal``), and only while everything that was sent is still held. Each attempt is a new
call with a new sequence number. Whatever else goes wrong is the application's to judge.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc

from mesh.core.errors import PeerError, Reason
from mesh.core.metadata import CALL, Entries, checked_entries, digest
from mesh.core.names import FullMethod, InstanceId, ServiceName, full_method
from mesh.core.routes import shortened
from mesh.core.seal import CallSeal
from mesh.core.sender import NoKeyError
from mesh.rpc.asking import OWN_KEYS
from mesh.rpc.attempt import Attempt, unary_reply
from mesh.rpc.connections import Connection
from mesh.rpc.membership import Membership
from mesh.rpc.observing import NOBODY, Calling, Observer
from mesh.rpc.reply import RawEnd, initial_entries, message_of, refusal_of, settle
from mesh.rpc.routing import Plan, Routing
from mesh.rpc.status import CallFailedError, Outcome, mesh_outcome

if TYPE_CHECKING:
    from mesh.rpc.asking import Asking

ATTEMPTS: Final = 3
#: Seconds past which a deadline is none: ten years. What applications say to mean never.
_ENDLESS: Final = 10 * 365 * 86_400.0
_C = grpc.StatusCode
LATE: Final = Outcome(_C.DEADLINE_EXCEEDED, "deadline exceeded")
CANCELLED: Final = Outcome(_C.CANCELLED, "cancelled by the caller")
_TOO_LARGE: Final = "reply of {} bytes is larger than the limit of {}"


@dataclass(frozen=True, slots=True)
class CallSpec:
    """What an application asked for. ``deadline`` is by the loop's clock, in seconds.

    ``plan`` is what policy says of the method, ``tried`` the instances that it was sent to so far.
    """

    method: FullMethod
    entries: Entries
    digest: bytes
    deadline: float | None
    wait_for_ready: bool
    compression: grpc.Compression | None
    watched: Calling
    plan: Plan | None = None
    tried: set[InstanceId] = field(default_factory=set)

    @classmethod
    def build(
        cls,
        method: str,
        metadata: Any,
        timeout: float | None,
        destination: ServiceName,
        observer: Observer = NOBODY,
        routing: Routing | None = None,
        *,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> CallSpec:
        """Check what the application gave; raise ``CallFailedError`` for what the mesh cannot carry."""
        try:
            entries = checked_entries(metadata or ())
            name = full_method(method)
        except ValueError as error:
            raise CallFailedError(mesh_outcome(Reason.BAD_REQUEST, str(error))) from None
        plan = routing.plan(name.text) if routing is not None else None
        timeout = timeout if plan is None else shortened(timeout, plan.route)
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        watched = observer.calling(destination, name, entries)
        entries = watched.entries
        return cls(name, entries, digest(entries), deadline, bool(wait_for_ready), compression, watched, plan)

    def remaining(self) -> float | None:
        """Seconds left, ``None`` for ever; raises ``CallFailedError`` when there are none."""
        if self.deadline is None:
            return None
        left = self.deadline - asyncio.get_running_loop().time()
        if left <= 0:
            raise CallFailedError(LATE)
        return left

    def late(self) -> bool:
        """Whether the deadline has passed, as near as a transport's timer can tell."""
        return self.deadline is not None and asyncio.get_running_loop().time() >= self.deadline - 0.01


class Target(Protocol):
    """Where calls to one service go."""

    service: ServiceName

    async def connection(self, spec: CallSpec) -> tuple[InstanceId, Connection]:
        """Choose an instance, with keys for it in force; raise ``CallFailedError`` if there is none.

        A call has begun on the connection, which whoever is given it has to end (``Connection.ended``).
        """

    async def refused(self, instance: InstanceId, by: InstanceId) -> None:
        """Take note that a call for ``instance`` was refused by ``by``."""

    def split(self, metadata: Any) -> Target:
        """Give where a call with the application's metadata goes, by the policy: mostly to this very one."""

    def ended(self, instance: InstanceId, end: RawEnd, *, begun: bool) -> None:
        """Take note of how a call to ``instance`` ended; ``begun``: a part of the reply came before."""


class Caller:
    """Makes sealed calls to one service."""

    def __init__(
        self, membership: Membership, target: Target, max_receive: int, routing: Routing | None = None
    ) -> None:
        """Take who calls, where to, the largest reply taken (-1: any), and what policy says of methods."""
        self._membership, self._target, self._max_receive = membership, target, max_receive
        self._routing = routing

    def split(self, metadata: Any) -> Caller:
        """Give who makes a call with such metadata: another one if policy sends it to another service."""
        target = self._target.split(metadata)
        if target is self._target:
            return self
        return Caller(self._membership, target, self._max_receive, self._routing)

    def spec(
        self,
        method: str,
        metadata: Any,
        timeout: float | None,
        *,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> CallSpec:
        """Give what an application asks for, watched from now on. Raises as ``CallSpec.build`` does."""
        return CallSpec.build(
            method,
            metadata,
            timeout,
            self._target.service,
            self._membership.observer,
            self._routing,
            wait_for_ready=wait_for_ready,
            compression=compression,
        )

    async def begin(self, spec: CallSpec, only: bytes | None = None) -> Attempt:
        """Choose an instance and seal the call for it. ``only``: its one message, if it has one only."""
        instance, connection = await self._target.connection(spec)
        spec.tried.add(instance)
        try:
            return await self._attempt(spec, instance, connection, only)
        except BaseException:
            connection.ended()
            raise

    async def _attempt(
        self, spec: CallSpec, instance: InstanceId, connection: Connection, only: bytes | None
    ) -> Attempt:
        timeout = spec.remaining()
        now_ms = self._membership.clock.now_ms()
        deadline_ms = 0
        if timeout is not None and timeout < _ENDLESS:
            deadline_ms = now_ms + int(timeout * 1000) + 1
        service, signer = self._target.service, self._membership.signer
        asking: Asking = OWN_KEYS
        if signer is None or service.reserved:
            sealed, seal = self._sealed(spec, instance, deadline_ms, now_ms)
        else:
            asking = kept = await signer.begin(service, instance, spec, deadline_ms, only)
            sealed, seal, timeout = kept.sealed, kept.seal, spec.remaining()
        spec.watched.attempt(connection.address, sealed, seal)
        options = {
            "timeout": timeout,
            "metadata": grpc.aio.Metadata((CALL, sealed), *spec.entries),
            "wait_for_ready": spec.wait_for_ready,
            "compression": spec.compression,
        }
        return Attempt(instance, connection, seal, options, asking)

    def _sealed(
        self, spec: CallSpec, instance: InstanceId, deadline_ms: int, now_ms: int
    ) -> tuple[bytes, CallSeal]:
        try:
            return self._membership.sender.seal(
                self._target.service, instance, spec.method, spec.digest, deadline_ms, now_ms
            )
        except NoKeyError as error:
            raise CallFailedError(mesh_outcome(Reason.NOT_READY, str(error))) from None

    async def unary(self, spec: CallSpec, payload: bytes) -> tuple[Outcome, bytes]:
        """Make a call of one message each way, and give its end and its reply (empty unless OK)."""
        for last in (*[False] * (ATTEMPTS - 1), True):
            attempt = await self.begin(spec, payload)
            frame = attempt.seal.request_sealer().seal(payload, end=True)
            end, reply = await unary_reply(attempt, spec.method.text, frame)
            if not last and await self.was_refused(attempt, spec, end):
                continue
            self.ended(attempt, end)
            ok = end.code is _C.OK
            await attempt.asking.end_seen(end, (1,) if ok else (0, 1), reply if ok else None)
            return self._unary_outcome(attempt.seal, spec, end, reply)
        raise AssertionError  # pragma: no cover  the last attempt always returns

    async def was_refused(self, attempt: Attempt, spec: CallSpec, end: RawEnd) -> bool:
        """Whether the call was provably not dispatched and may be made again.

        Raises ``CallFailedError`` if there is nowhere to make it, or no time left.
        """
        refusal = refusal_of(end)
        if refusal is None or refusal.instance == attempt.instance:
            return False  # the instance that was meant never has cause to refuse
        if attempt.asking.remote:
            proven = await attempt.asking.is_refused(refusal)
        else:
            now_ms, sender = self._membership.clock.now_ms(), self._membership.sender
            proven = sender.is_refused(self._target.service, attempt.seal, refusal, now_ms)
        if not proven:
            return False
        try:
            await asyncio.wait_for(self._target.refused(attempt.instance, refusal.instance), spec.remaining())
        except TimeoutError:
            raise CallFailedError(LATE) from None
        return True

    def ended(self, attempt: Attempt, end: RawEnd, *, begun: bool = False) -> None:
        """Have the next call go elsewhere, if there is an elsewhere, where this one was not answered."""
        self._target.ended(attempt.instance, end, begun=begun)

    def checked_size(self, message: bytes) -> bytes:
        """Give a message of the application's if it is within its limit; raise ``CallFailedError``."""
        if 0 <= self._max_receive < len(message):
            text = _TOO_LARGE.format(len(message), self._max_receive)
            raise CallFailedError(Outcome(_C.RESOURCE_EXHAUSTED, text))
        return message

    def _unary_outcome(
        self, seal: CallSeal, spec: CallSpec, end: RawEnd, reply: bytes
    ) -> tuple[Outcome, bytes]:
        try:
            if end.code is not _C.OK:
                # A server may send a message before an error; gRPC drops it here, so either count is true.
                return settle(seal, end, (0, 1), late=spec.late()), b""
            initial_entries(seal, end.initial)
            opened = message_of(seal.reply_opener(), reply)
            return settle(seal, end, (1,), late=False), self.checked_size(opened)
        except PeerError as error:
            return self.disbelieved(error, spec), b""
        except CallFailedError as failed:
            return failed.outcome, b""

    def disbelieved(self, error: PeerError, spec: CallSpec) -> Outcome:
        """Report a reply that does not verify; give what the application is told of it."""
        call_id = self._membership.rejected(
            error.cause, f"reply: {error}", spec.method.text, self._target.service.text
        )
        spec.watched.refused(error, call_id)
        return mesh_outcome(Reason.UNSEALED, call_id=call_id)
