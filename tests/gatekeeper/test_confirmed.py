"""Auth's word on the policy: how old it is, and when questions may be answered by it."""

from __future__ import annotations

import pytest

from services.gatekeeper.confirmed import DOUBT_MS, Confirmed

STALE = 600_000


class _Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    """Make a clock that goes forward when it is told to."""
    return _Clock()


@pytest.fixture
def confirmed(clock: _Clock) -> Confirmed:
    """Listen to a stream of which nothing was heard."""
    made = Confirmed(clock)
    made.asked()
    return made


def test_nothing_holds_before_the_first_word(confirmed: Confirmed) -> None:
    """Nor when auth is away."""
    assert (confirmed.at_ms, confirmed.holds(STALE)) == (0, False)
    confirmed.lost()
    assert not confirmed.holds(STALE)


@pytest.mark.parametrize("skew", [-3_600_000, 0, 3_600_000])
def test_a_word_is_as_old_as_auth_made_it(clock: _Clock, confirmed: Confirmed, skew: int) -> None:
    """However late it is read, whatever lies between the clocks."""
    for late in (0, 300, 0):
        clock.now += 500
        assert confirmed.heard(clock.now - late + skew)
        assert confirmed.at_ms == clock.now - late


@pytest.mark.parametrize("skew", [-3_600_000, 0, 3_600_000])
def test_what_lay_waiting_confirms_nothing(clock: _Clock, confirmed: Confirmed, skew: int) -> None:
    """After a stop even the youngest of the words that came meanwhile may be followed by a newer policy."""
    confirmed.heard(clock.now + skew)
    stopped = clock.now
    clock.now += 60_000
    assert not confirmed.holds(STALE)
    for made in range(stopped + 500, clock.now, 500):
        assert confirmed.heard(made + skew)
        assert (confirmed.at_ms, confirmed.holds(STALE)) == (stopped, False)
    clock.now += 100
    confirmed.heard(clock.now + skew)
    assert (confirmed.at_ms, confirmed.holds(STALE)) == (clock.now, True)


def test_a_first_word_that_may_have_lain_waiting_is_not_believed(clock: _Clock, confirmed: Confirmed) -> None:
    """Nothing tells how old it is, so the stream is good for nothing."""
    clock.now += DOUBT_MS + 1
    assert not confirmed.heard(clock.now)
    assert not confirmed.heard(clock.now)
    confirmed.asked()
    assert confirmed.heard(clock.now)
    assert confirmed.holds(STALE)


def test_silence_is_doubt_and_absence_is_not(clock: _Clock, confirmed: Confirmed) -> None:
    """A silent stream may hide a newer policy; an auth that does not answer gives none to anybody."""
    confirmed.heard(clock.now)
    clock.now += DOUBT_MS
    assert confirmed.holds(STALE)
    clock.now += 1
    assert not confirmed.holds(STALE)
    confirmed.asked()
    assert not confirmed.holds(STALE)
    confirmed.lost()
    assert confirmed.holds(STALE)
    clock.now += STALE
    assert not confirmed.holds(STALE)


def test_a_short_max_stale_goes_before(clock: _Clock, confirmed: Confirmed) -> None:
    """What is stale holds no longer, doubt or not."""
    confirmed.heard(clock.now)
    clock.now += 501
    assert not confirmed.holds(500)


def test_a_new_stream_is_measured_by_itself(clock: _Clock, confirmed: Confirmed) -> None:
    """An auth that comes back with another clock is believed as it is."""
    confirmed.heard(clock.now)
    clock.now += 10_000
    confirmed.asked()
    confirmed.heard(clock.now - 5_000)
    assert confirmed.at_ms == clock.now
    assert confirmed.holds(STALE)
