"""What a calling node holds: its pair keys, one session per peer and epoch, and the sequence numbers.

A sequence number belongs to a pair of instances, goes up with every call sealed and is never given back,
whatever becomes of the call. A repeat of a call is a new call with a new number.
"""

from __future__ import annotations

from collections.abc import Container

from mesh.core.epochs import Epoch, KeyRing
from mesh.core.errors import MeshError
from mesh.core.keys import Key
from mesh.core.names import AUTH, FullMethod, InstanceId, KeyEpoch, ServiceName
from mesh.core.replay import MAX_SEQUENCE
from mesh.core.seal import CallSeal, Session
from mesh.core.wire import MAX_DEADLINE_MS, CallHeader, Refusal


class NoKeyError(MeshError):
    """There is no key in force for calling a destination: fetch one from auth."""


class Sender:
    """Seals calls from one instance to any other."""

    def __init__(self, service: ServiceName, instance: InstanceId) -> None:
        """Start with no key, for the caller's own name and instance."""
        self._service, self._instance = service, instance
        self._rings: dict[ServiceName, KeyRing] = {}
        self._sessions: dict[tuple[ServiceName, InstanceId, KeyEpoch], Session] = {}
        self._sequences: dict[InstanceId, int] = {}

    def learn(self, destination: ServiceName, epoch: Epoch, key: Key) -> None:
        """Add the pair key of a destination for an epoch."""
        self._rings.setdefault(destination, KeyRing()).learn(epoch, key)

    def forget(self, destination: ServiceName) -> None:
        """Drop all keys of a destination that may be called no more. Its sequence numbers stay."""
        self._rings.pop(destination, None)
        for known in [known for known in self._sessions if known[0] == destination]:
            del self._sessions[known]

    def revoke(self, instances: Container[InstanceId]) -> None:
        """Drop the keys made for calling revoked instances. Their sequence numbers stay."""
        for known in [known for known in self._sessions if known[1] in instances]:
            del self._sessions[known]

    def has_key(self, destination: ServiceName, now_ms: int) -> bool:
        """Whether a call to the destination could be sealed now."""
        ring = self._rings.get(destination)
        return ring is not None and ring.sending(now_ms) is not None

    def expire(self, now_ms: int) -> None:
        """Forget keys and sessions of epochs that nobody accepts any more."""
        for destination, ring in self._rings.items():
            gone = set(ring.expire(now_ms))
            for known in [k for k in self._sessions if k[0] == destination and k[2] in gone]:
                del self._sessions[known]

    def seal(
        self,
        destination: ServiceName,
        instance: InstanceId,
        method: FullMethod,
        metadata_digest: bytes,
        deadline_ms: int,
        now_ms: int,
    ) -> tuple[bytes, CallSeal]:
        """Seal one call: the value of ``mesh-call-bin`` and the seal of what follows.

        ``deadline_ms`` is 0 for a call without one. Raises ``NoKeyError`` if no key is in force,
        ``ValueError`` for a deadline out of range, and ``RuntimeError`` once 2^63 - 1 calls were sealed for
        that instance.
        """
        if not 0 <= deadline_ms <= MAX_DEADLINE_MS:
            msg = f"bad deadline {deadline_ms}: not 0 to 2^53 milliseconds; use 0 for a call without one"
            raise ValueError(msg)
        held = self._held(destination, now_ms)
        if held is None:
            msg = f"no key in force for {destination}"
            raise NoKeyError(msg)
        epoch, key = held
        sequence = self._sequences.get(instance, 0) + 1
        if sequence > MAX_SEQUENCE:
            msg = f"sequence numbers to {instance} are used up: rejoin to get a new instance id"
            raise RuntimeError(msg)
        self._sequences[instance] = sequence
        header = CallHeader(
            self._service,
            self._instance,
            destination,
            instance,
            epoch.number,
            sequence,
            method,
            metadata_digest,
            deadline_ms,
        )
        return self._session(destination, instance, epoch.number, key).seal(header)

    def _held(self, destination: ServiceName, now_ms: int) -> tuple[Epoch, Key] | None:
        ring = self._rings.get(destination)
        if ring is None:
            return None
        # Who has no key for auth can ask for none: the one before does, for as long as auth accepts it.
        return ring.lasting(now_ms) if destination == AUTH else ring.sending(now_ms)

    def is_refused(self, destination: ServiceName, seal: CallSeal, refusal: Refusal, now_ms: int) -> bool:
        """Whether a refusal proves that an instance of the destination did not dispatch the call.

        False, too, where this node does not hold the key that the refusal was made with.
        """
        ring = self._rings.get(destination)
        key = ring.accepting(refusal.epoch, now_ms) if ring else None
        if key is None:
            return False
        # Not kept: who invents instances gets no memory for them.
        session = Session.derive(key, self._instance, refusal.instance)
        return session.is_refusal(refusal.mac, seal.mac)

    def _session(self, destination: ServiceName, instance: InstanceId, epoch: KeyEpoch, key: Key) -> Session:
        known = (destination, instance, epoch)
        session = self._sessions.get(known)
        if session is None:
            session = Session.derive(key, self._instance, instance)
            self._sessions[known] = session
        return session
