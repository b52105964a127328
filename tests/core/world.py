"""A small world that the tests of the core share: two services, an epoch, and calls between them."""

from __future__ import annotations

from mesh.core.epochs import Epoch
from mesh.core.keys import Key, destination_key, pair_key
from mesh.core.matcher import Matcher
from mesh.core.metadata import CALL, Entries, digest
from mesh.core.names import FullMethod, InstanceId, KeyEpoch, ServiceName, TrustDomain
from mesh.core.policy import Section
from mesh.core.receiver import Incoming, Peer, Receiver
from mesh.core.seal import CallSeal, Session
from mesh.core.sender import Sender
from mesh.core.wire import CallHeader

DOMAIN = TrustDomain("shop.example")
FRONTEND, ORDERS, EVIL = ServiceName("frontend"), ServiceName("orders"), ServiceName("evil")
A, B, C = InstanceId(b"a" * 16), InstanceId(b"b" * 16), InstanceId(b"c" * 16)
METHOD = FullMethod("/shop.v1.Orders/Get")
OTHER_METHOD = FullMethod("/shop.v1.Orders/Delete")
NOW = 2_000_000
HOUR = 3_600_000
ENTRIES: Entries = (("x-tenant", "acme"), ("x-trace-bin", b"\0\1"))
RULES = Section.parse('{"allow": [{"principals": ["frontend"], "paths": ["/shop.v1.Orders/Get"]}]}')

ROOTS = {7: Key(b"7" * 32), 8: Key(b"8" * 32)}
EPOCH = Epoch(KeyEpoch(7), 1_000_000, 1_000_000 + HOUR, 1_300_000 + HOUR)
NEXT = Epoch(KeyEpoch(8), 1_000_000 + HOUR, 1_000_000 + 2 * HOUR, 1_300_000 + 2 * HOUR)


def key_of(destination: ServiceName = ORDERS, epoch: Epoch = EPOCH) -> Key:
    return destination_key(ROOTS[epoch.number.number], DOMAIN, destination)


def pair_of(source: ServiceName = FRONTEND, destination: ServiceName = ORDERS, epoch: Epoch = EPOCH) -> Key:
    return pair_key(key_of(destination, epoch), source)


def session(
    source: ServiceName = FRONTEND, by: InstanceId = A, to: InstanceId = B, epoch: Epoch = EPOCH
) -> Session:
    return Session.derive(pair_of(source, ORDERS, epoch), by, to)


def header(
    *,
    source: ServiceName = FRONTEND,
    source_instance: InstanceId = A,
    destination: ServiceName = ORDERS,
    destination_instance: InstanceId = B,
    epoch: KeyEpoch = EPOCH.number,
    sequence: int = 1,
    method: FullMethod = METHOD,
    metadata_digest: bytes | None = None,
    deadline_ms: int = 0,
) -> CallHeader:
    bound = digest(ENTRIES) if metadata_digest is None else metadata_digest
    return CallHeader(
        source,
        source_instance,
        destination,
        destination_instance,
        epoch,
        sequence,
        method,
        bound,
        deadline_ms,
    )


def call(sequence: int = 1) -> CallSeal:
    return session().seal(header(sequence=sequence))[1]


def sender() -> Sender:
    """Give frontend's instance A, with its keys of both epochs for orders."""
    made = Sender(FRONTEND, A)
    for epoch in (EPOCH, NEXT):
        made.learn(ORDERS, epoch, pair_of(epoch=epoch))
    return made


def receiver(instance: InstanceId = B) -> Receiver:
    """Give an instance of orders, with its keys of both epochs."""
    made = Receiver(ORDERS, instance)
    for epoch in (EPOCH, NEXT):
        made.learn(epoch, key_of(epoch=epoch))
    return made


def incoming(
    sealed: bytes,
    *,
    path: str = METHOD.text,
    entries: Entries = ENTRIES,
    peer: Peer = Peer(FRONTEND, A),  # noqa: B008  frozen
    deadline_ms: int | None = None,
) -> Incoming:
    return Incoming(path, ((CALL, sealed), *entries), peer, deadline_ms)


authorize = Matcher(RULES).permit


def state(of: Receiver) -> object:
    """Give all that a receiver remembers of its callers, to compare before and after."""
    return {
        (epoch.number, peer): (inbound.window._highest, tuple(inbound.window._ring))
        for epoch, peers in of._inbound.items()
        for peer, inbound in peers.items()
    }
