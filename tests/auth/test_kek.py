"""The file of the KEK: what is one, and who may reach it."""

import os
from pathlib import Path

import pytest

from mesh.core.keys import Key
from services.auth.errors import StartError
from services.auth.kek import read_kek

KEK = Key(bytes(range(32)))


def test_a_kek_is_read(tmp_path: Path) -> None:
    """A file of 32 bytes that only its owner can reach is a KEK."""
    (tmp_path / "kek").touch(0o600)
    (tmp_path / "kek").write_bytes(KEK.reveal())
    assert read_kek(tmp_path / "kek") == KEK
    (tmp_path / "kek").chmod(0o400)
    assert read_kek(tmp_path / "kek") == KEK


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610, 0o601, 0o777])
def test_a_kek_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """Any right for group or others is one too many."""
    (tmp_path / "kek").write_bytes(KEK.reveal())
    (tmp_path / "kek").chmod(mode)
    with pytest.raises(StartError, match="run chmod 600"):
        read_kek(tmp_path / "kek")


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33), b"0" * 64])
def test_a_kek_of_another_length_is_refused(tmp_path: Path, content: bytes) -> None:
    """A KEK is 32 bytes."""
    (tmp_path / "kek").touch(0o600)
    (tmp_path / "kek").write_bytes(content)
    with pytest.raises(StartError, match="holds neither 32 bytes nor"):
        read_kek(tmp_path / "kek")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A missing file, a directory and a device are refused with one line each."""
    (tmp_path / "kek").mkdir(0o700)
    for path, words in ((tmp_path / "none", "no key file"), (tmp_path / "kek", "cannot read")):
        with pytest.raises(StartError, match=words):
            read_kek(path)
    with pytest.raises(StartError, match="not a regular file"):
        read_kek(Path(os.devnull))
