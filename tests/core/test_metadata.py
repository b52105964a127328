"""Metadata: whose is it, and what its digest binds."""

import hashlib
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import Cause, PeerError
from mesh.core.metadata import (
    _TRANSPORT,
    CALL,
    EMPTY_DIGEST,
    Entries,
    application_entries,
    checked_entries,
    digest,
    is_application_key,
    pushbacks,
    single,
)

entries = st.lists(
    st.tuples(st.sampled_from(["a", "b", "a-bin", "ab"]), st.text(max_size=5) | st.binary(max_size=5)),
    max_size=6,
).map(tuple)
MIXED: Entries = (
    ("x-tenant", "acme"),
    ("user-agent", "grpc"),
    (CALL, b"seal"),
    ("mesh-new-thing", "1"),
    ("x-tenant", "other"),
    ("grpc-timeout", "1S"),
    ("meshed", "1"),
    ("grpc-status-details-bin", b"d"),
)
APPLICATION: Entries = (
    ("x-tenant", "acme"),
    ("x-tenant", "other"),
    ("meshed", "1"),
    ("grpc-status-details-bin", b"d"),
)


def test_application_entries() -> None:
    """The application sees its own entries, in order, and none of the transport's or the mesh's."""
    assert application_entries(MIXED) == APPLICATION


def test_checked_entries() -> None:
    """What an application sends goes on in order, without what is the transport's."""
    assert checked_entries([entry for entry in MIXED if not entry[0].startswith("mesh-")]) == APPLICATION


@pytest.mark.parametrize("key", [CALL, "mesh-", "mesh-peer", "Mesh-Call-Bin", "MESH-X"])
def test_application_sends_no_mesh_keys(key: str) -> None:
    """An application that sends a key of the mesh, in whatever case, is told so."""
    with pytest.raises(ValueError, match="belongs to the mesh"):
        checked_entries([("a", "1"), (key, "x")])


SENDABLE: list[tuple[str, object]] = [
    ("x", ""),
    ("x", "! ~"),
    ("x_1.2-3", "a,b"),
    ("x", b"text"),
    ("x-bin", b"\0\xff"),
    ("x-bin", b""),
    ("grpc-status-details-bin", b"d"),
]
NOT_SENDABLE: list[tuple[str, object]] = [
    ("", "1"),
    ("X", "1"),
    (":path", "/"),
    ("a b", "1"),
    ("a\n", "1"),
    ("a\u00e9", "1"),
    ("a\ud800", "1"),
    ("x", "\n"),
    ("x", "a\r\nb: c"),
    ("x", "\0"),
    ("x", " a"),
    ("x", "a "),
    ("x", " "),
    ("x", "\x7f"),
    ("x", "\u00e9"),
    ("x", "\ud800"),
    ("x", b"\xff"),
    ("x", b"a\n"),
    ("x", 1),
    ("x", None),
    ("x-bin", "text"),
    ("x-bin", None),
]


@pytest.mark.parametrize("entry", SENDABLE)
def test_sendable(entry: tuple[str, str]) -> None:
    """What gRPC can carry goes on unchanged."""
    assert checked_entries([entry]) == (entry,)


@pytest.mark.parametrize("entry", NOT_SENDABLE)
def test_not_sendable(entry: tuple[str, str]) -> None:
    """What gRPC cannot carry is the application's mistake, and is said before a call is sealed."""
    with pytest.raises(ValueError, match="metadata"):
        checked_entries([("a", "1"), entry])


@pytest.mark.parametrize("key", sorted(_TRANSPORT))
def test_transport_keys(key: str) -> None:
    """A key of the transport is nobody's: neither sent on nor shown."""
    assert not is_application_key(key)
    assert application_entries([(key, "x")]) == checked_entries([(key, "x")]) == ()


def test_single() -> None:
    """A mesh key gives its one binary value, or nothing."""
    assert single([("a", "1"), (CALL, b"x")], CALL) == b"x"
    assert single([("a", "1"), ("Mesh-Call-Bin", b"x")], CALL) is None


@pytest.mark.parametrize(
    "found",
    [
        [(CALL, b"x"), (CALL, b"x")],
        [(CALL, b"x"), ("a", "1"), (CALL, b"y")],
        [(CALL, "text")],
    ],
)
def test_single_refuses_more(found: list[tuple[str, str | bytes]]) -> None:
    """A mesh key that comes twice, or as text, is never chosen from."""
    with pytest.raises(PeerError) as caught:
        single(found, CALL)
    assert caught.value.cause is Cause.MALFORMED


def test_digest_as_specified() -> None:
    """The digest is SHA-256 over length-prefixed keys and values, sorted by key."""
    covered = b"\0\0\0\1a\0\0\0\2xy\0\0\0\1b\0\0\0\1\xff"
    assert digest((("b", b"\xff"), ("a", "xy"))) == hashlib.sha256(covered).digest()
    assert digest(()) == EMPTY_DIGEST == hashlib.sha256(b"").digest()


@given(entries, entries)
def test_digest_binds_everything(left: Entries, right: Entries) -> None:
    """Two lists have one digest only if each key has the same values in the same order."""

    def by_key(found: Entries) -> dict[str, list[bytes]]:
        values: dict[str, list[bytes]] = {}
        for key, value in found:
            values.setdefault(key, []).append(value.encode() if isinstance(value, str) else value)
        return values

    assert (digest(left) == digest(right)) == (by_key(left) == by_key(right))


@given(entries, st.randoms())
def test_digest_ignores_the_order_of_keys(found: Entries, chance: Random) -> None:
    """Transports may reorder different keys, and the digest stays; within a key order counts."""
    keys = sorted({key for key, _ in found})
    chance.shuffle(keys)
    moved = tuple(entry for key in keys for entry in found if entry[0] == key)
    assert digest(moved) == digest(found)


def test_digest_tampering() -> None:
    """Dropped, doubled, added, swapped, joined or altered entries give digests of their own."""
    variants: list[Entries] = [
        (("k", "a"), ("k", "b")),
        (("k", "b"), ("k", "a")),
        (("k", "a,b"),),
        (("k", "a"),),
        (("k", "a"), ("k", "b"), ("k", "b")),
        (("k", "ab"), ("k", "")),
        (("k", ""), ("k", "ab")),
        (("ka", ""), ("k", "b")),
        (("K", "a"), ("k", "b")),
    ]
    assert all(digest(left) != digest(right) for left, right in pairwise([*variants, variants[0]]))
    assert len({digest(found) for found in variants}) == len(variants)


def test_pushback_is_nobodys_entry() -> None:
    """What a server says of the next attempt is read as it came, and is none of the application's entries."""
    raw = (("grpc-retry-pushback-ms", "5"), ("x", "y"), ("grpc-retry-pushback-ms", "1" * 40))
    assert pushbacks(raw) == ("5", "1" * 20)
    assert application_entries(raw) == checked_entries(raw) == (("x", "y"),)
