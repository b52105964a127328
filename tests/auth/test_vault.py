"""Secrets at rest: they open in their place, with their key, unchanged; or not at all."""

import pytest

from mesh.core.keys import Key
from services.auth.vault import Place, TamperedError, Vault, kek_id

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


def test_the_kek_is_named() -> None:
    """What was sealed says with which key, and says nothing else of it."""
    assert Vault(KEK).seal(SECRET, PLACE).startswith(kek_id(KEK))
    assert kek_id(KEK) not in KEK.reveal()
    assert kek_id(Key(bytes(32))) != kek_id(KEK)
