"""The file of a backup: whole and of this KEK, or refused."""

import io
from collections.abc import Iterator

import pytest

from mesh.core.keys import Key
from services.auth import archive
from services.auth.archive import DAMAGED, Archive, Contents, seal
from services.auth.errors import StartError

KEK = Key(bytes(range(32)))
FILES = {"auth.db": b"d" * 700, "empty": b"", "audit/actions-00000000.log": b"line\n" * 100}
CONTENTS = Contents("shop.example", 1000, {name: len(data) for name, data in FILES.items()})


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have several pieces without megabytes."""
    monkeypatch.setattr(archive, "PIECE", 256)


def sealed() -> bytes:
    return b"".join(seal(KEK, CONTENTS, iter(FILES.values())))


def opened(data: bytes, kek: Key = KEK) -> dict[str, bytes]:
    return {name: b"".join(pieces) for name, pieces in Archive(io.BytesIO(data), kek).files()}


def test_what_was_sealed_is_read_again() -> None:
    """Every file, as it was, with whose and of when it is."""
    assert opened(sealed()) == FILES
    assert Archive(io.BytesIO(sealed()), KEK).contents == CONTENTS


def test_nothing_of_it_can_be_read_without_the_kek() -> None:
    """Neither names nor contents; and another KEK is told apart from damage."""
    for word in (b"shop.example", b"auth.db", b"line\n", KEK.reveal()):
        assert word not in sealed()
    with pytest.raises(StartError, match="under another KEK"):
        opened(sealed(), Key(bytes(32)))


def test_every_bit_counts() -> None:
    """A backup with any byte changed is refused, in one line."""
    whole = sealed()
    for at in range(len(whole)):
        with pytest.raises(StartError) as refused:
            opened(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert "\n" not in str(refused.value)


def test_every_cut_is_seen() -> None:
    """So is one that ends early, anywhere, or late."""
    whole = sealed()
    for at in range(len(whole)):
        with pytest.raises(StartError):
            opened(whole[:at])
    with pytest.raises(StartError, match="damaged"):
        opened(whole + b"\0")


def pieces(data: bytes) -> Iterator[bytes]:
    at = len(archive.MAGIC) + 24
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        yield data[at:end]
        at = end


def test_pieces_keep_their_order() -> None:
    """Two that have changed places, one twice, one left out: refused."""
    whole = sealed()
    start, all_ = whole[: len(archive.MAGIC) + 24], list(pieces(whole))
    assert len(all_) > 4
    swapped = [all_[0], all_[2], all_[1], *all_[3:]]
    for wrong in (swapped, [*all_[:2], *all_[1:]], [all_[0], *all_[2:]], all_[:-1]):
        with pytest.raises(StartError, match=DAMAGED):
            opened(start + b"".join(wrong))
    assert opened(start + b"".join(all_)) == FILES


def test_sizes_that_do_not_add_up() -> None:
    """What says that it holds more or less than it does is refused."""
    for size in (0, 699, 701, 10**9):
        wrong = Contents("shop.example", 1000, {"only": size})
        with pytest.raises(StartError, match=DAMAGED):
            opened(b"".join(seal(KEK, wrong, [FILES["auth.db"]])))
