"""Files through to the disk: what was written is there after the loss of power."""

import os
from pathlib import Path


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can reach."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def sync(path: Path) -> None:
    """Write a file or directory that is there through to the disk."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
