"""Secrets, and how each key comes from the one above it.

    R(e)             32 random bytes for epoch e; only auth has it
    D(dst, e)      = HKDF-Expand(R(e), "mesh/v1/destination" lp(trust domain) lp(dst))     given to dst
    P(src, dst, e) = HKDF-Expand(D,    "mesh/v1/pair" lp(src))                             given to src
    Kreq, Krep     = HKDF-Expand(P,    "mesh/v1/session" lp(src instance) lp(dst instance)), 64 bytes, split
    K_req          = HKDF-Expand(join secret, "mesh/v1/join/request")
    K_rep          = HKDF-Expand(join secret, "mesh/v1/join/reply")
    join id        = HKDF-Expand(join secret, "mesh/v1/join/id"), 8 bytes; not a secret

HMAC is HMAC-SHA256 (RFC 2104), HKDF-Expand is RFC 5869 section 2.3 with SHA-256, ``lp(x)`` is a 4-byte
big-endian length and ``x``. Every key is 32 bytes, has one label and one use. HKDF-Extract is left out on
purpose: every input is uniformly random already (RFC 5869 section 3.3).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, Never

from mesh.core.names import InstanceId, ServiceName, TrustDomain

KEY_BYTES: Final = 32
MAC_BYTES: Final = 32

#: HMAC's own (RFC 2104 section 2): SHA-256's block, and the pads as tables for ``bytes.translate``.
_BLOCK: Final = 64
_INNER_PAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD: Final = bytes(byte ^ 0x5C for byte in range(256))

_DESTINATION: Final = b"mesh/v1/destination"
_PAIR: Final = b"mesh/v1/pair"
_SESSION: Final = b"mesh/v1/session"
_JOIN_REQUEST: Final = b"mesh/v1/join/request"
_JOIN_REPLY: Final = b"mesh/v1/join/reply"
_JOIN_ID: Final = b"mesh/v1/join/id"
_JOIN_ID_BYTES: Final = 8


class Key:
    """32 secret bytes. Prints as ``Key(...)``; cannot be pickled, hashed or compared by accident."""

    __slots__ = ("_inner", "_outer", "_raw")
    __hash__ = None  # type: ignore[assignment]  # a dict of secrets is a mistake

    def __init__(self, raw: bytes) -> None:
        """Take exactly 32 bytes; raise ``ValueError`` for any other length."""
        if len(raw) != KEY_BYTES:
            msg = f"bad key: {len(raw)} bytes, not {KEY_BYTES}"
            raise ValueError(msg)
        self._raw = bytes(raw)
        # The two pads are hashed once (RFC 2104 section 4): a copy of hmac.HMAC costs twice as much.
        padded = self._raw.ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(padded.translate(_INNER_PAD))
        self._outer = hashlib.sha256(padded.translate(_OUTER_PAD))

    def mac(self, *parts: bytes) -> bytes:
        """HMAC-SHA256 over the parts, one after the other: 32 bytes."""
        inner, outer = self._inner.copy(), self._outer.copy()
        for part in parts:
            inner.update(part)
        outer.update(inner.digest())
        return outer.digest()

    def verify(self, mac: bytes, *parts: bytes) -> bool:
        """Whether ``mac`` is that of the parts, in time that does not depend on where they differ."""
        return hmac.compare_digest(mac, self.mac(*parts))

    def reveal(self) -> bytes:
        """Give the secret bytes, for handing a key over or sealing it at rest. Never print them."""
        return self._raw

    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        return isinstance(other, Key) and hmac.compare_digest(self._raw, other._raw)

    def __repr__(self) -> str:
        """Hide the secret."""
        return "Key(...)"

    def __reduce__(self) -> str:
        """Refuse to be pickled or copied out."""
        msg = "a key is not to be pickled: use reveal() where it is handed over"
        raise TypeError(msg)


class Withheld(Key):
    """In the place of a key that auth keeps. Nothing can be made with it, nor derived from it."""

    __slots__ = ()
    __hash__ = None

    def __init__(self) -> None:
        """Hold nothing."""

    def mac(self, *_parts: bytes) -> bytes:
        """Refuse."""
        msg = "auth keeps this key: ask it (mesh.rpc.signer)"
        raise RuntimeError(msg)

    def reveal(self) -> Never:
        """Refuse."""
        msg = "auth keeps this key, and hands it to nobody"
        raise RuntimeError(msg)

    def __eq__(self, other: object) -> bool:
        """Say that it is itself alone."""
        return self is other


def lp(data: bytes) -> bytes:
    """Length-prefix: 4 bytes big-endian, then the data."""
    return len(data).to_bytes(4, "big") + data


def expand(key: Key, info: bytes, length: int = KEY_BYTES) -> bytes:
    """HKDF-Expand (RFC 5869 section 2.3) with SHA-256: ``length`` bytes, at most 8160."""
    if not 0 < length <= 255 * MAC_BYTES:
        msg = f"bad length {length}: HKDF-Expand gives 1 to {255 * MAC_BYTES} bytes"
        raise ValueError(msg)
    block, out = b"", b""
    for counter in range(1, -(-length // MAC_BYTES) + 1):
        block = key.mac(block, info, bytes([counter]))
        out += block
    return out[:length]


def destination_key(root: Key, domain: TrustDomain, destination: ServiceName) -> Key:
    """D(dst, e) from R(e): what ``destination`` holds to open calls sealed in that epoch."""
    info = _DESTINATION + lp(domain.text.encode()) + lp(destination.text.encode())
    return Key(expand(root, info))


def pair_key(destination: Key, source: ServiceName) -> Key:
    """P(src, dst, e) from D(dst, e): what ``source`` holds to call that destination."""
    return Key(expand(destination, _PAIR + lp(source.text.encode())))


def session_keys(pair: Key, source: InstanceId, destination: InstanceId) -> tuple[Key, Key]:
    """Kreq and Krep from P: the request and the reply key between two instances."""
    both = expand(pair, _SESSION + lp(source.raw) + lp(destination.raw), 2 * KEY_BYTES)
    return Key(both[:KEY_BYTES]), Key(both[KEY_BYTES:])


def join_keys(secret: Key) -> tuple[Key, Key]:
    """K_req and K_rep from a join secret: what proves a request, and what proves its reply."""
    return Key(expand(secret, _JOIN_REQUEST)), Key(expand(secret, _JOIN_REPLY))


def join_id(secret: Key) -> str:
    """Give the public id of a join token whose secret a node made itself: 16 hex digits."""
    return expand(secret, _JOIN_ID, _JOIN_ID_BYTES).hex()
