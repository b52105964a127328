"""The files of one log: a segment each, written at their end and synced, never changed before it.

    <directory>/<log>-<number of the segment, 8 digits>.log    (0600)

A file that is not as long as it was left, or not the one that it was, was changed by somebody else:
``ChangedError``. The one exception is bytes behind the end that this process wrote itself and took back
(``cut``), or that a crash left behind (``audit_log`` looks at those before anything is written).
"""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from mesh.core.chain import Piece
from services.auth.durable import sync
from services.auth.errors import AuditError, AuthError

_MODE: Final = 0o600
#: How it shows that something else stands in the place of a file: a link, a directory, a socket, a device.
_NO_FILE: Final = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV)


class ChangedError(AuthError):
    """A file of the log is not as it was left."""

    def __init__(self, path: Path, segment: int, how: str) -> None:
        """Take the file, its segment, and what it is instead."""
        super().__init__(f"{path.name} is {how}")
        self.segment = segment


class Segments:
    """Reads and writes the segments of one log."""

    def __init__(self, directory: Path, log: str) -> None:
        """Take the directory, which exists, and the log's name."""
        self._directory, self._log = directory, log
        self._open: tuple[int, int] | None = None

    def path(self, number: int) -> Path:
        """Give the file of a segment."""
        return self._directory / f"{self._log}-{number:08d}.log"

    def numbers(self) -> list[int]:
        """Give the numbers of the segments that are there, in order."""
        name = re.compile(rf"{re.escape(self._log)}-([0-9]{{8,}})\.log")
        found: list[re.Match[str] | None] = []
        with suppress(FileNotFoundError), _telling("read"):
            found = [name.fullmatch(path.name) for path in self._directory.iterdir()]
        return sorted(int(match[1]) for match in found if match)

    def size(self, number: int) -> int:
        """Give the bytes of a segment, 0 if there is no file that could be one."""
        with suppress(FileNotFoundError), _telling("read"):
            found = self.path(number).lstat()
            return found.st_size if stat.S_ISREG(found.st_mode) else 0
        return 0

    def read(self, number: int, offset: int = 0, most: int = -1) -> bytes:
        """Give bytes of a segment from an offset; none if there is no file that could be one."""
        with suppress(FileNotFoundError, ChangedError), _telling("read"):
            file = os.fdopen(self._opened(number, os.O_RDONLY), "rb")
            with file:
                file.seek(offset)
                return file.read(most)
        return b""

    def write(self, piece: Piece) -> None:
        """Write at the end of a segment, through to the disk.

        Raises ``ChangedError`` if that is not where its end is, and ``AuditError`` if it cannot be written.
        """
        with _telling():
            file = self._file(piece)
            if os.fstat(file).st_size != piece.offset:
                raise ChangedError(self.path(piece.segment), piece.segment, "not as long as it was left")
            left, at = memoryview(piece.data), piece.offset
            while left:
                count = os.pwrite(file, left, at)
                left, at = left[count:], at + count
            os.fdatasync(file)

    def cut(self, number: int, size: int) -> None:
        """Take back what stands behind an offset; the whole file for 0. What is no file is put aside."""
        with suppress(FileNotFoundError), _telling():
            try:
                file = self._opened(number, os.O_RDWR)
            except ChangedError:
                self.set_aside(number)
                return
            with os.fdopen(file, "r+b") as opened:
                if size == 0:
                    self.close()
                    self.path(number).unlink()
                elif opened.seek(0, os.SEEK_END) > size:
                    opened.truncate(size)
                    os.fsync(opened.fileno())

    def cut_back(self, number: int, size: int) -> None:
        """Take back what stands behind an offset of a segment, and all segments after it."""
        for after in self.numbers():
            if after > number:
                self.cut(after, 0)
        self.cut(number, size)

    def set_aside(self, number: int) -> None:
        """Give what stands in a segment's place, if anything, another name: it is somebody else's."""
        with suppress(FileNotFoundError), _telling():
            path = self.path(number)
            path.rename(path.with_name(f"{path.name}.{secrets.token_hex(8)}"))

    def remove_before(self, number: int) -> None:
        """Remove the segments before one. What cannot be removed now is at the next time."""
        for old in self.numbers():
            if old < number:
                with suppress(OSError):
                    self.path(old).unlink()

    def close(self) -> None:
        """Close the newest segment."""
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def _file(self, piece: Piece) -> int:
        path = self.path(piece.segment)
        if self._open is None or self._open[0] != piece.segment:
            self.close()
            new = piece.offset == 0
            if new:
                self._directory.mkdir(mode=0o700, exist_ok=True)
            try:
                flags = os.O_RDWR | ((os.O_CREAT | os.O_EXCL) if new else 0)
                self._open = piece.segment, self._opened(piece.segment, flags)
            except (FileNotFoundError, FileExistsError):
                raise ChangedError(path, piece.segment, "there already" if new else "gone") from None
            if new:
                sync(self._directory)
        held, there = os.fstat(self._open[1]), None
        with suppress(FileNotFoundError):
            there = path.lstat()
        if there is None or (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
            self.close()
            raise ChangedError(path, piece.segment, "not the file that it was")
        return self._open[1]

    def _opened(self, number: int, flags: int) -> int:
        # Neither through a link nor waiting for the other end of a pipe, whoever put it there.
        path = self.path(number)
        no_file = ChangedError(path, number, "no file")
        try:
            file = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, _MODE)
        except OSError as error:
            if error.errno in _NO_FILE:
                raise no_file from None
            raise
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise no_file
        return file


@contextmanager
def _telling(done: str = "written") -> Iterator[None]:
    # That a file is not there is for whoever asked.
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        why = (error.strerror or "input/output error").lower()
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            why = "audit/ is no directory: move away what stands there"
        raise AuditError(f"the audit log cannot be {done}: {why}: nothing was done") from None
