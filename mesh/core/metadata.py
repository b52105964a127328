"""Which metadata is the application's, and the digest that binds it to a call.

Three kinds of keys: those of the transport (never seen by an application, not covered), those of the mesh
(``mesh-*``, refused from applications), and the application's: all others, every one of them covered.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from mesh.core.errors import Cause, PeerError
from mesh.core.keys import lp

Value: TypeAlias = str | bytes
Entries: TypeAlias = tuple[tuple[str, Value], ...]

CALL: Final = "mesh-call-bin"
INITIAL: Final = "mesh-initial-bin"
END: Final = "mesh-end-bin"
REFUSAL: Final = "mesh-refusal-bin"
#: Tells the receiving application who calls: a SPIFFE ID.
PEER: Final = "mesh-peer"
#: Tells a sidecar's loopback port where a call is to go: a service name.
TO: Final = "mesh-to"
PREFIX: Final = "mesh-"
#: What a server says of the next attempt (gRFC A6): between transports, never covered by a seal.
PUSHBACK: Final = "grpc-retry-pushback-ms"

#: Keys that gRPC's transports use among themselves on each hop. They are dropped at every edge, so what an
#: application sees is what was covered. Anything not listed here is the application's.
_TRANSPORT: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "endpoint-load-metrics-bin",
        "expect",
        "grpc-accept-encoding",
        "grpc-encoding",
        "grpc-internal-encoding-request",
        "grpc-message",
        "grpc-previous-rpc-attempts",
        PUSHBACK,
        "grpc-server-stats-bin",
        "grpc-status",
        "grpc-tags-bin",
        "grpc-timeout",
        "grpc-trace-bin",
        "grpclb_client_stats",
        "host",
        "keep-alive",
        "lb-cost-bin",
        "lb-token",
        "te",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-envoy-peer-metadata",
    }
)


def is_application_key(key: str) -> bool:
    """Whether a key is the application's: neither the transport's nor the mesh's."""
    return key not in _TRANSPORT and not key.startswith(PREFIX)


def application_entries(entries: Iterable[tuple[str, Value]]) -> Entries:
    """Give the application's entries, in order, without those of the transport and of the mesh."""
    return tuple((key, value) for key, value in entries if is_application_key(key))


#: What gRPC sends as metadata ("gRPC over HTTP2", Custom-Metadata): text is printable ASCII. No blank at an
#: end: some transports drop it, so that policy would judge one value and the application see another.
_KEY: Final = re.compile(r"[0-9a-z_.-]+")
_TEXT: Final = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")


def checked_entries(entries: Iterable[tuple[str, Value]]) -> Entries:
    """Give what an application may send: its entries without the transport's.

    Raises ``ValueError`` for a key that starts with ``mesh-``, whatever its case, and for what gRPC cannot
    send: found out here, and not by a transport that drops the call.
    """
    kept = []
    for key, value in entries:
        if key.lower().startswith(PREFIX):
            msg = f"metadata key {key!r:.80} belongs to the mesh: choose one that does not start with mesh-"
            raise ValueError(msg)
        if key not in _TRANSPORT:
            _check_sendable(key, value)
            kept.append((key, value))
    return tuple(kept)


def sendable(entries: Entries) -> bool:
    """Whether all entries are such as ``checked_entries`` lets an application send."""
    try:
        for key, value in entries:
            _check_sendable(key, value)
    except ValueError:
        return False
    return True


def _check_sendable(key: str, value: object) -> None:
    if not _KEY.fullmatch(key):
        msg = f"bad metadata key {key!r:.80}: use lower-case a-z, 0-9 and _ . -"
        raise ValueError(msg)
    if key.endswith("-bin"):
        if not isinstance(value, bytes):
            msg = f"metadata {key!r:.80} has to be bytes: keys that end in -bin hold nothing else"
            raise ValueError(msg)
        return
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not _TEXT.fullmatch(text):
        msg = (
            f"metadata {key!r:.80} has to be printable ascii without blanks at its ends: "
            "use a key that ends in -bin for anything else"
        )
        raise ValueError(msg)


def pushbacks(entries: Iterable[tuple[str, Value]]) -> tuple[str, ...]:
    """Give what a server says of the next attempt, as it says it: nobody vouches for it."""
    return tuple(str(value)[:20] for key, value in entries if key == PUSHBACK)


def single(entries: Iterable[tuple[str, Value]], key: str) -> bytes | None:
    """Give the one binary value of a mesh key, or ``None``; raise ``PeerError`` if there are several."""
    found = [value for name, value in entries if name == key]
    if not found:
        return None
    if len(found) > 1 or not isinstance(found[0], bytes):
        raise PeerError(Cause.MALFORMED, f"{key} is there more than once")
    return found[0]


def digest(entries: Entries) -> bytes:
    """SHA-256 over ``lp(key) lp(value)`` of each entry, sorted by key, order kept within a key: 32 bytes."""
    if not entries:
        return EMPTY_DIGEST
    running = hashlib.sha256()
    for key, value in sorted(entries, key=lambda entry: entry[0]):
        running.update(lp(key.encode()))
        running.update(lp(value if isinstance(value, bytes) else value.encode()))
    return running.digest()


EMPTY_DIGEST: Final = hashlib.sha256().digest()
