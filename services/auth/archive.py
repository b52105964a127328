"""The file of a backup: named files in one stream, sealed under the KEK, whole or refused.

    "sealmesh backup 1" line feed | KEK id (8) | salt (16) | pieces
    piece = length (4, big-endian) | AES-256-GCM, key = HKDF-Expand(KEK, "mesh/v1/backup" salt),
            nonce = its number (12, big-endian), associated data = 1 for the last, else 0
    plain = length (4) | JSON {"domain", "at_ms", "files": {name: size}} | the files, one after the other

A piece that is missing, moved, cut or changed does not open, and without the last one it is no backup. It
does not hold the KEK, so it is of no use to who has it alone.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mesh.core.keys import Key, expand
from services.auth.errors import StartError
from services.auth.vault import ID_BYTES, kek_id

MAGIC: Final = b"sealmesh backup 1\n"
PIECE: Final = 256 * 1024
_LABEL: Final = b"mesh/v1/backup"
_SALT_BYTES: Final = 16
_TAG_BYTES: Final = 16
_MAX_HEADER: Final = 1024 * 1024
DAMAGED: Final = "the backup is damaged or cut short: take another one"


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a backup: whose, as of when, and its files with their sizes, in order."""

    domain: str
    at_ms: int
    files: dict[str, int]


def seal(kek: Key, contents: Contents, data: Iterable[bytes]) -> Iterator[bytes]:
    """Give the bytes of a backup, a piece at a time. ``data`` are the files' bytes, in order."""
    salt = os.urandom(_SALT_BYTES)
    cipher = AESGCM(expand(kek, _LABEL + salt))
    yield MAGIC + kek_id(kek) + salt
    header = json.dumps(asdict(contents)).encode()
    number, held = 0, len(header).to_bytes(4, "big") + header
    for more in data:
        held += more
        while len(held) > PIECE:
            yield _sealed(cipher, number, held[:PIECE], last=False)
            number, held = number + 1, held[PIECE:]
    yield _sealed(cipher, number, held, last=True)


class Archive:
    """A backup that is read. Nothing of a piece is given before that piece was verified."""

    def __init__(self, file: BinaryIO, kek: Key) -> None:
        """Read its beginning; raise ``StartError`` if it is none, damaged, or under another KEK."""
        if file.read(len(MAGIC)) != MAGIC:
            raise StartError("this is no backup: name a file that mesh backup has written")
        if file.read(ID_BYTES) != kek_id(kek):
            raise StartError("the backup is under another KEK: name the key file of its time with --kek")
        self._cipher = AESGCM(expand(kek, _LABEL + file.read(_SALT_BYTES)))
        self._pieces = self._opened(file)
        self._held = b""
        try:
            size = int.from_bytes(self._take(4), "big")
            self.contents = Contents(**json.loads(self._take(min(size, _MAX_HEADER))))
        except (ValueError, TypeError):
            raise StartError(DAMAGED) from None

    def files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Give each file with its bytes, which are to be read before the next; raise ``StartError``."""
        for name, size in self.contents.files.items():
            yield name, self._file(size)
        if self._held or next(self._pieces, None) is not None:
            raise StartError(DAMAGED)

    def _file(self, size: int) -> Iterator[bytes]:
        while size:
            data = self._take(min(size, PIECE))
            size -= len(data)
            yield data

    def _take(self, size: int) -> bytes:
        while len(self._held) < size:
            piece = next(self._pieces, None)
            if piece is None:
                raise StartError(DAMAGED)
            self._held += piece
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def _opened(self, file: BinaryIO) -> Iterator[bytes]:
        number, last = 0, False
        following = _read(file)
        while not last:
            sealed, following = following, _read(file)
            last = not following
            try:
                yield self._cipher.decrypt(number.to_bytes(12, "big"), sealed, bytes([last]))
            except (InvalidTag, ValueError):
                raise StartError(DAMAGED) from None
            number += 1


def _sealed(cipher: AESGCM, number: int, plain: bytes, *, last: bool) -> bytes:
    sealed = cipher.encrypt(number.to_bytes(12, "big"), plain, bytes([last]))
    return len(sealed).to_bytes(4, "big") + sealed


def _read(file: BinaryIO) -> bytes:
    size = file.read(4)
    if not size:
        return b""
    sealed = file.read(min(int.from_bytes(size, "big"), PIECE + _TAG_BYTES))
    if not sealed or size != len(sealed).to_bytes(4, "big"):
        raise StartError(DAMAGED)
    return sealed
