"""Secrets at rest: AES-256-GCM under the key-encryption key (KEK), each bound to its place.

    sealed = nonce (12 random bytes) | ciphertext | tag (16)
    associated data = "mesh/v1/at-rest" lp(column) lp(row identity) version-as-8-bytes

A sealed secret that is moved to another row, or whose row says something else than when it was sealed, does
not open. Random nonces are good for 2^32 secrets under one KEK (NIST SP 800-38D section 8.3).

The KEK comes from a file of 32 bytes that nobody but its owner may read. Nothing else is written there.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mesh.core.keys import KEY_BYTES, Key, lp
from services.auth.errors import AuthError, StartError

_LABEL: Final = b"mesh/v1/at-rest"
_NONCE_BYTES: Final = 12


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
        self._cipher = AESGCM(kek.reveal())

    def seal(self, secret: bytes, place: Place) -> bytes:
        """Seal a secret for its place."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, _associated(place))

    def open(self, sealed: bytes, place: Place) -> bytes:
        """Open what was sealed for this place; raise ``TamperedError`` for anything else."""
        try:
            nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
            return self._cipher.decrypt(nonce, ciphertext, _associated(place))
        except (InvalidTag, ValueError):
            raise TamperedError(place) from None


def _associated(place: Place) -> bytes:
    return _LABEL + lp(place.column.encode()) + lp(place.row.encode()) + place.version.to_bytes(8, "big")


def read_kek(path: Path) -> Key:
    """Read the KEK; raise ``StartError`` unless it is a file of 32 bytes that only its owner can reach."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            raw = file.read(KEY_BYTES + 1)
    except FileNotFoundError:
        raise StartError(f"no key file {path}: put back the one that this directory was made with") from None
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise StartError(f"{path} is not a regular file: put back the key file of this directory")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StartError(f"{path} can be reached by others than its owner: run chmod 600 {path}")
    if len(raw) != KEY_BYTES:
        raise StartError(f"{path} does not hold {KEY_BYTES} bytes: put back the key file of this directory")
    return Key(raw)
