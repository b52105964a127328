"""Secrets at rest: AES-256-GCM under the key-encryption key (KEK), each bound to its place.

    sealed = KEK id (8 bytes) | nonce (12 random bytes) | ciphertext | tag (16)
    associated data = "mesh/v1/at-rest" lp(column) lp(row identity) version-as-8-bytes
    KEK id = HMAC(KEK, "mesh/v1/kek-id"), cut; zeros of what was sealed before there were ids

A sealed secret that is moved to another row, or whose row says something else than when it was sealed, does
not open. Random nonces are good for 2^32 secrets under one KEK (NIST SP 800-38D section 8.3).

Where the KEK comes from is ``kek``'s; how another takes its place is ``rekey``'s.
"""

import os
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mesh.core.keys import Key, lp
from services.auth.errors import AuthError

_LABEL: Final = b"mesh/v1/at-rest"
_KEK_ID: Final = b"mesh/v1/kek-id"
_NONCE_BYTES: Final = 12
ID_BYTES: Final = 8
#: In the place of the KEK's id, before there were ids.
NO_ID: Final = bytes(ID_BYTES)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a secret belongs: ``table.column``, what its row is and says, and its version there."""

    column: str
    row: str
    version: int


class TamperedError(AuthError):
    """A sealed secret does not open in its place: another KEK, or the database was changed."""

    def __init__(self, place: Place) -> None:
        """Take the place."""
        super().__init__(f"{place.column} of {place.row!r} does not open: the database was changed")


class Vault:
    """Seals and opens secrets."""

    def __init__(self, kek: Key) -> None:
        """Take the key-encryption key."""
        self.turn(kek)

    def turn(self, kek: Key) -> None:
        """Go on with another KEK, and forget the one before."""
        self.kek_id, self._cipher = kek_id(kek), AESGCM(kek.reveal())

    def take(self, other: Self) -> None:
        """Go on with the KEK of another vault."""
        self.kek_id, self._cipher = other.kek_id, other._cipher

    def seal(self, secret: bytes, place: Place) -> bytes:
        """Seal a secret for its place."""
        nonce = os.urandom(_NONCE_BYTES)
        return self.kek_id + nonce + self._cipher.encrypt(nonce, secret, _associated(place))

    def is_under(self, sealed: bytes) -> bool:
        """Whether a secret says that it was sealed under the KEK of this vault."""
        return sealed.startswith(self.kek_id)

    def open(self, sealed: bytes, place: Place) -> bytes:
        """Open what was sealed for this place; raise ``TamperedError`` for anything else."""
        named, sealed = sealed[:ID_BYTES], sealed[ID_BYTES:]
        try:
            nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
            if named not in (self.kek_id, NO_ID):
                raise TamperedError(place)
            return self._cipher.decrypt(nonce, ciphertext, _associated(place))
        except (InvalidTag, ValueError):
            raise TamperedError(place) from None


def kek_id(kek: Key) -> bytes:
    """Give the id of a KEK, by which sealed secrets name it. It is no secret."""
    return kek.mac(_KEK_ID)[:ID_BYTES]


def _associated(place: Place) -> bytes:
    return _LABEL + lp(place.column.encode()) + lp(place.row.encode()) + place.version.to_bytes(8, "big")
