"""Epochs: which key is used to send, which are accepted, and when they are forgotten."""

import pytest

from mesh.core.epochs import SKEW_MS, Epoch, KeyRing
from mesh.core.keys import Key
from mesh.core.names import KeyEpoch

ONE = Epoch(KeyEpoch(1), 1000, 2000, 2300)
TWO = Epoch(KeyEpoch(2), 2000, 3000, 3300)
LATER = Epoch(KeyEpoch(4), 90_000, 100_000, 101_000)
K1, K2 = Key(b"1" * 32), Key(b"2" * 32)


@pytest.fixture
def ring() -> KeyRing:
    made = KeyRing()
    made.learn(TWO, K2)
    made.learn(ONE, K1)
    return made


@pytest.mark.parametrize(
    ("now", "number"),
    [(999, None), (1000, 1), (1999, 1), (2000, 2), (2999, 2), (3000, None)],
)
def test_sending(ring: KeyRing, now: int, number: int | None) -> None:
    """Calls are sealed under the epoch that has begun and not ended, to the millisecond."""
    held = ring.sending(now)
    assert (held and held[0].number.number) == number


def test_sending_prefers_the_newest(ring: KeyRing) -> None:
    """Where epochs overlap, the newest that has begun is used."""
    ring.learn(Epoch(KeyEpoch(3), 2500, 4000, 4300), K1)
    held = ring.sending(2500)
    assert held is not None
    assert held[0].number == KeyEpoch(3)


@pytest.mark.parametrize(
    ("now", "number"),
    [(999, None), (1000, 1), (1999, 1), (2000, 2), (3000, 2), (3299, 2), (3300, None)],
)
def test_lasting(ring: KeyRing, now: int, number: int | None) -> None:
    """The newest that has begun, for as long as it is accepted, to the millisecond."""
    held = ring.lasting(now)
    assert (held and held[0].number.number) == number


@pytest.mark.parametrize(
    ("number", "now", "accepted"),
    [
        *[(1, 0, True), (1, 2299, True), (1, 2300, False), (2, 0, True), (2, 3300, False), (3, 2500, False)],
        *[(4, 90_000 - SKEW_MS - 1, False), (4, 90_000 - SKEW_MS, True), (4, 100_999, True), (4, 0, False)],
    ],
)
def test_accepting(ring: KeyRing, number: int, now: int, accepted: bool) -> None:
    """A key that is known is accepted from one clock's error before it begins to the end of its grace."""
    ring.learn(LATER, K1)
    assert (ring.accepting(KeyEpoch(number), now) is not None) is accepted


def test_accepting_gives_the_key_of_that_epoch(ring: KeyRing) -> None:
    """Each epoch has its own key."""
    assert ring.accepting(KeyEpoch(1), 2100) == K1
    assert ring.accepting(KeyEpoch(2), 2100) == K2


def test_expire(ring: KeyRing) -> None:
    """Expiry forgets what is accepted no more, says so once, and keeps the rest."""
    assert ring.expire(2299) == []
    assert ring.expire(2300) == [KeyEpoch(1)]
    assert ring.expire(2300) == []
    assert ring.accepting(KeyEpoch(1), 0) is None
    assert ring.accepting(KeyEpoch(2), 2300) == K2


def test_learning_again_replaces(ring: KeyRing) -> None:
    """What is learned later of an epoch replaces what was known of it."""
    ring.learn(Epoch(KeyEpoch(1), 1000, 2000, 2200), K2)
    assert ring.accepting(KeyEpoch(1), 2199) == K2
    assert ring.accepting(KeyEpoch(1), 2200) is None


def test_empty() -> None:
    """An empty ring gives nothing."""
    assert KeyRing().sending(0) is None
    assert KeyRing().accepting(KeyEpoch(1), 0) is None
    assert KeyRing().expire(10**18) == []
