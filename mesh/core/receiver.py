"""Everything that is checked before a call is dispatched, in the one order in which it is safe.

    1  bounds and grammar      and the path is the method that was sealed
    2  it is meant for me      name, then instance
    3  the epoch               one whose key is held and still accepted
    4  the mac                 so the source's keys made this header
    5  the TLS peer            is the header's source and instance
    6  the replay window       each sequence number once
    7  revocation, policy      gives a permit, or denies
    8  deadline and metadata   are what was sealed

Nothing is touched before its turn: a forged call moves no window and leaves no session behind. Up to 6 the
answer is never sealed, because the same call may come again and its true reply must stay the only one; from
7 on it is, for that sequence number cannot come back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from mesh.core.epochs import SKEW_MS, Epoch, KeyRing
from mesh.core.errors import REVOKED, Cause, Denied, PeerError
from mesh.core.keys import Key, pair_key
from mesh.core.matcher import Permit
from mesh.core.metadata import CALL, Entries, application_entries, digest, sendable, single
from mesh.core.names import InstanceId, KeyEpoch, ServiceName
from mesh.core.replay import ReplayWindow
from mesh.core.revoked import Revoked
from mesh.core.seal import CallSeal, Session
from mesh.core.wire import CallHeader, Refusal, decode_call

#: gRPC sends what is left of a deadline in two or three digits, rounded up by one part in 100 at most; and as
#: much again for the clocks.
ROUNDING: Final = 50

Authorize: TypeAlias = Callable[[str, str, Entries], Permit]


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom TLS has proved to be at the other end."""

    service: ServiceName
    instance: InstanceId


@dataclass(frozen=True, slots=True)
class Incoming:
    """A call as the transport shows it, nothing verified but the peer.

    ``deadline_ms`` is what the transport's own time-out comes to, or ``None`` without one.
    """

    path: str
    metadata: Entries
    peer: Peer
    deadline_ms: int | None


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call that its source made, once, for this instance. Only one with a ``Permit`` may be dispatched."""

    header: CallHeader
    seal: CallSeal
    verdict: Permit | Denied | PeerError
    metadata: Entries


@dataclass(frozen=True, slots=True)
class Answer:
    """What auth has said of one call, to a receiver whose keys it keeps (``signing``).

    ``session`` verifies what auth has verified; ``refusal`` is the proof of a call for another instance.
    """

    session: Session
    refusal: Refusal | None = None


class StalePeerError(PeerError):
    """Sealed for an instance or epoch that this node does not have; with a proof only for an instance."""

    def __init__(self, cause: Cause, refusal: Refusal | None) -> None:
        """Take the cause and, where the asker is the source itself, the proof that nothing was dispatched."""
        super().__init__(cause)
        self.refusal = refusal


@dataclass(slots=True)
class _Inbound:
    session: Session
    window: ReplayWindow = field(default_factory=ReplayWindow)


class Receiver:
    """Admits calls to one instance."""

    def __init__(self, service: ServiceName, instance: InstanceId) -> None:
        """Start with no key, for the callee's own name and instance."""
        self._service, self._instance = service, instance
        self._ring = KeyRing()
        self._inbound: dict[KeyEpoch, dict[Peer, _Inbound]] = {}
        self._expired = 0
        self.revoked = Revoked()

    def revoke(self, revoked: Revoked) -> None:
        """Deny calls of revoked instances from now on, and forget the keys made for them."""
        self.revoked = revoked
        for inbound in self._inbound.values():
            for peer in [peer for peer in inbound if peer.instance in revoked]:
                del inbound[peer]

    def learn(self, epoch: Epoch, key: Key) -> None:
        """Add this service's destination key for an epoch, unless that or a later one has expired here.

        Its windows are gone: were the key taken back, by an answer that came late and set the clock back as
        well, all that was sent under it could be sent again.
        """
        if epoch.number.number > self._expired:
            self._ring.learn(epoch, key)

    def expire(self, now_ms: int) -> None:
        """Forget keys that are accepted no more, with their windows."""
        for epoch in self._ring.expire(now_ms):
            self._expired = max(self._expired, epoch.number)
            self._inbound.pop(epoch, None)

    def accepts(self, epoch: KeyEpoch, now_ms: int) -> bool:
        """Whether calls of an epoch may be admitted now."""
        return self._ring.accepting(epoch, now_ms) is not None

    def epoch(self, now_ms: int) -> Epoch | None:
        """Give the newest epoch that has begun and whose key is held here."""
        held = self._ring.sending(now_ms)
        return held[0] if held else None

    def read(self, incoming: Incoming) -> tuple[bytes, bytes, CallHeader]:
        """Give the mac, the header's bytes and the header of a call for this service; raise ``PeerError``."""
        mac, encoded = _sealed_call(incoming.metadata)
        header = CallHeader.decode(encoded)
        if header.method.text != incoming.path:
            raise PeerError(Cause.BAD_METHOD, "path is not the method that was sealed")
        if header.destination != self._service:
            raise PeerError(Cause.NOT_ME, header.destination.text)
        return mac, encoded, header

    def admit(
        self, incoming: Incoming, authorize: Authorize, now_ms: int, answer: Answer | None = None
    ) -> Admitted:
        """Check a call. Raises ``PeerError`` where the reply must not be sealed; nothing has changed then.

        ``answer``: what auth says of it, where auth keeps the keys.
        """
        mac, encoded, header = self.read(incoming)
        if header.destination_instance != self._instance:
            refusal = self._refusal(header, mac, encoded, incoming.peer, now_ms, answer)
            raise StalePeerError(Cause.NOT_THIS_INSTANCE, refusal)
        key = self._ring.accepting(header.epoch, now_ms)
        if key is None:
            # No proof for this one: the call may have been dispatched while its epoch was still known.
            raise StalePeerError(Cause.UNKNOWN_EPOCH, None)
        source = Peer(header.source, header.source_instance)
        known = self._inbound.get(header.epoch, {}).get(source)
        inbound = known or self._derive(key, source, answer)
        seal = (answer or inbound).session.open(mac, encoded)
        if source != incoming.peer:
            raise PeerError(Cause.WRONG_PEER, f"{incoming.peer.service} sent what {header.source} sealed")
        if known is None:
            self._inbound.setdefault(header.epoch, {})[source] = inbound
        if not inbound.window.accept(header.sequence):
            raise PeerError(Cause.REPLAYED, f"{header.source} {header.sequence}")
        entries = application_entries(incoming.metadata)
        if header.source_instance in self.revoked:
            # Only now, and sealed: whoever is not that instance learns nothing of it.
            return Admitted(header, seal, Denied(header.source.text, header.method.text, REVOKED), entries)
        return Admitted(header, seal, _judge(header, incoming, entries, authorize, now_ms), entries)

    def _derive(self, key: Key, source: Peer, answer: Answer | None = None) -> _Inbound:
        if answer is not None:
            return _Inbound(answer.session)
        pair = pair_key(key, source.service)
        return _Inbound(Session.derive(pair, source.instance, self._instance))

    def _refusal(
        self,
        header: CallHeader,
        mac: bytes,
        encoded: bytes,
        peer: Peer,
        now_ms: int,
        answer: Answer | None,
    ) -> Refusal | None:
        # It lets the caller make the call again, so it is given to the caller alone, and only for a call that
        # was truly sealed for the other instance: with the mac of a call for this one under another header,
        # it would deny what was done.
        key, held = self._ring.accepting(header.epoch, now_ms), self._ring.sending(now_ms)
        if key is None or held is None or peer != Peer(header.source, header.source_instance):
            return None
        if answer is not None:
            return answer.refusal
        return refuse((held[0].number, held[1]), key, header, mac, encoded, self._instance)


def refuse(
    newest: tuple[KeyEpoch, Key], key: Key, header: CallHeader, mac: bytes, encoded: bytes, by: InstanceId
) -> Refusal | None:
    """Give the proof of instance ``by`` that it dispatches no call sealed for another of its service.

    ``newest`` and ``key`` are the service's keys of the newest epoch and of the header's. ``None`` if the
    call was not truly sealed for the other.
    """
    pair = pair_key(key, header.source)
    if not Session.derive(pair, header.source_instance, header.destination_instance).sealed(mac, encoded):
        return None
    epoch, current = newest
    session = Session.derive(pair_key(current, header.source), header.source_instance, by)
    return Refusal(session.refuse(mac), by, epoch)


def _sealed_call(metadata: Entries) -> tuple[bytes, bytes]:
    sealed = single(metadata, CALL)
    if sealed is None:
        raise PeerError(Cause.MALFORMED, "no seal")
    return decode_call(sealed)


def _judge(
    header: CallHeader, incoming: Incoming, entries: Entries, authorize: Authorize, now_ms: int
) -> Permit | Denied | PeerError:
    # Values, not exceptions: from here on the reply is sealed, so the caller needs the seal as well.
    try:
        permit = authorize(header.source.text, header.method.text, entries)
    except Denied as denied:
        return denied
    if digest(entries) != header.metadata_digest or not sendable(entries):
        return PeerError(Cause.BAD_METADATA, "metadata of the request")
    if header.deadline_ms and not _deadline_kept(header.deadline_ms, incoming.deadline_ms, now_ms):
        return PeerError(Cause.BAD_DEADLINE)
    return permit


def _deadline_kept(sealed_ms: int, transport_ms: int | None, now_ms: int) -> bool:
    if transport_ms is None or now_ms > sealed_ms + SKEW_MS:
        return False
    return transport_ms <= sealed_ms + max(SKEW_MS, (sealed_ms - now_ms) // ROUNDING)
