"""Secrets at rest: they open in their place, with their key, unchanged; or not at all."""

import os
from pathlib import Path

import pytest

from mesh.core.keys import Key
from services.auth.errors import StartError
from services.auth.vault import Place, TamperedError, Vault, read_kek

KEK = Key(bytes(range(32)))
PLACE = Place("token.sealed", "0123 orders", 1)
SECRET = b"a secret of 32 bytes, as they are"


def test_what_is_sealed_opens() -> None:
    """A secret opens in its place."""
    assert Vault(KEK).open(Vault(KEK).seal(SECRET, PLACE), PLACE) == SECRET


def test_sealing_twice_gives_different_bytes() -> None:
    """Equal secrets do not show that they are equal."""
    assert Vault(KEK).seal(SECRET, PLACE) != Vault(KEK).seal(SECRET, PLACE)


@pytest.mark.parametrize(
    "place",
    [
        Place("epoch.sealed", PLACE.row, 1),
        Place(PLACE.column, "0123 payments", 1),
        Place(PLACE.column, PLACE.row, 2),
        Place("token.sealed0", "123 orders", 1),
    ],
)
def test_it_opens_nowhere_else(place: Place) -> None:
    """A secret moved to another table, row or version does not open."""
    with pytest.raises(TamperedError, match="the database was changed"):
        Vault(KEK).open(Vault(KEK).seal(SECRET, PLACE), place)


def test_it_opens_with_no_other_key() -> None:
    """Another KEK opens nothing."""
    with pytest.raises(TamperedError):
        Vault(Key(bytes(32))).open(Vault(KEK).seal(SECRET, PLACE), PLACE)


def test_every_byte_counts() -> None:
    """A sealed secret with any byte changed, or cut anywhere, does not open."""
    sealed = Vault(KEK).seal(SECRET, PLACE)
    broken = [sealed[:at] for at in range(len(sealed))]
    broken += [sealed[:at] + bytes([byte ^ 0x40]) + sealed[at + 1 :] for at, byte in enumerate(sealed)]
    for wrong in broken:
        with pytest.raises(TamperedError):
            Vault(KEK).open(wrong, PLACE)


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
    with pytest.raises(StartError, match="32 bytes"):
        read_kek(tmp_path / "kek")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A missing file, a directory and a device are refused with one line each."""
    (tmp_path / "kek").mkdir(0o700)
    for path, words in ((tmp_path / "none", "no key file"), (tmp_path / "kek", "cannot read")):
        with pytest.raises(StartError, match=words):
            read_kek(path)
    with pytest.raises(StartError, match="not a regular file"):
        read_kek(Path(os.devnull))
