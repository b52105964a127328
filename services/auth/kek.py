"""The key-encryption key (KEK), as it lies on the disk and takes another's place.

The file ``kek`` (0600) holds it, or says who does:

    32 bytes                                         the KEK itself
    {"kms": "aws:alias/mesh", "sealed": "…"}         the KEK, sealed by a key management service (``kms``)

Around a rotation (``rekey``) there may be two more files, and what the database says decides which counts:

    kek       kek.next                    the database is under kek: nothing refers to kek.next, it goes
    kek       kek.next                    the database is under kek.next: it takes kek's place
              kek.next     kek.old        killed in the middle of that
    kek                    kek.old        killed before kek.old was overwritten and removed

So a crash at any step leaves a directory that opens, under the one key or the other.
"""

import base64
import binascii
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mesh.core.keys import KEY_BYTES, Key
from services.auth.durable import sync, write_secret
from services.auth.errors import StartError
from services.auth.kms import kms

KEK: Final = "kek"
NEXT: Final = "kek.next"
OLD: Final = "kek.old"
_MAX_FILE: Final = 16_384


class KekFiles:
    """The KEK of a data directory, and the one that is to follow."""

    def __init__(self, path: Path) -> None:
        """Read what is there; raise ``StartError`` unless it holds a KEK that only its owner can reach."""
        self._path = path
        self._found: dict[str, Key] = {}
        self._unread: StartError | None = None
        there = (path / NEXT).exists()
        if (path / KEK).exists() or not there:
            self._found[KEK] = read_kek(path / KEK)
        if there:
            try:
                self._found[NEXT] = read_kek(path / NEXT)
            except StartError as error:
                # One that is not whole is not in force, for it was written through first. Else this was why.
                self._unread = error

    def offer(self, content: bytes) -> None:
        """Write what may be in force by now, as others have it: the database says which one is.

        Where one is to follow already, that may be in force, and is not touched. Raises ``OSError``.
        """
        if (self._path / NEXT).exists() or content == (self._path / KEK).read_bytes():
            return
        write_secret(self._path / NEXT, content)
        sync(self._path)

    def settle(self, is_in_force: Callable[[Key], bool]) -> Key:
        """Give the KEK that the database is under, alone in its place; raise ``StartError`` without it."""
        for name, kek in self._found.items():
            if is_in_force(kek):
                self._settle(name)
                return kek
        if self._unread:
            raise self._unread
        raise StartError(
            f"{self._path / KEK} is not the key of this database: put back the one it was made with; "
            f"if the KEK was rotated at another auth, copy that one's kek to {self._path / NEXT} (mode 0600)"
        )

    def add(self, kek: Key, keeper: str) -> None:
        """Write the KEK that is to follow, kept by a KMS or (``""``) by its file; raise ``StartError``."""
        content = content_of(kek, keeper)
        try:
            _shred(self._path / NEXT)
            write_secret(self._path / NEXT, content)
            sync(self._path)
        except OSError as error:
            raise StartError(f"cannot write {self._path / NEXT}: {error.strerror}") from None
        self._found[NEXT] = kek

    @property
    def keeper(self) -> str:
        """Who keeps the KEK in force: the name of a KMS, or ``""`` for the file itself."""
        content = (self._path / KEK).read_bytes()
        return "" if len(content) == KEY_BYTES else _read(content)[0]

    def _settle(self, in_force: str) -> None:
        # Each step is on the disk before the next, so a crash finds one of the rows of the table above.
        path = self._path
        try:
            if in_force == NEXT:
                if (path / KEK).exists():
                    (path / KEK).replace(path / OLD)
                    sync(path)
                (path / NEXT).replace(path / KEK)
                sync(path)
            for name in (NEXT, OLD):
                _shred(path / name)
        except OSError as error:
            raise StartError(f"cannot put the key file of {path} in its place: {error.strerror}") from None
        self._found = {KEK: self._found[in_force]}


def read_kek(path: Path) -> Key:
    """Read a KEK; raise ``StartError`` unless it is in a good file that only its owner can reach."""
    return key_in(_content(path, stat.S_IRWXG | stat.S_IRWXO), path)


def given(path: Path) -> bytes:
    """Give the content of a key file that a directory is to be made with; raise ``StartError``.

    It may be open to its group: what Kubernetes mounts of a Secret is root's, and for the group of the pod.
    """
    content = _content(path, stat.S_IRWXO)
    key_in(content, path)
    return content


def _content(path: Path, closed_to: int) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            raw = file.read(_MAX_FILE)
    except FileNotFoundError:
        raise StartError(f"no key file {path}: put back the one that this directory was made with") from None
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise StartError(f"{path} is not a regular file: put back the key file of this directory")
    if status.st_mode & closed_to:
        raise StartError(f"{path} can be reached by others than its owner: run chmod 600 {path}")
    return raw


def key_in(raw: bytes, path: Path) -> Key:
    """Give the KEK that is the content of a key file, which ``path`` names; raise ``StartError``."""
    if len(raw) == KEY_BYTES:
        return Key(raw)
    try:
        keeper, sealed = _read(raw)
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise StartError(
            f"{path} holds neither {KEY_BYTES} bytes nor a key sealed by a KMS: "
            "put back the key file of this directory"
        ) from None
    return Key(kms(keeper).open(sealed))


def content_of(kek: Key, keeper: str) -> bytes:
    """Give what stands in a key file; raise ``StartError`` if the KMS does not seal."""
    if not keeper:
        return kek.reveal()
    sealed = kms(keeper).seal(kek.reveal())
    return json.dumps({"kms": keeper, "sealed": base64.b64encode(sealed).decode()}).encode() + b"\n"


def _read(content: bytes) -> tuple[str, bytes]:
    held = json.loads(content)
    keeper, sealed = held["kms"], held["sealed"]
    if not isinstance(keeper, str):
        raise TypeError
    return keeper, base64.b64decode(sealed, validate=True)


def _shred(path: Path) -> None:
    # What an SSD or a copy-on-write file system keeps of it is beyond us: the database does not open with it.
    try:
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.write(bytes(os.fstat(file.fileno()).st_size))
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        return
    path.unlink()
    sync(path.parent)
