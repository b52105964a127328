"""When an authority is made, signs and is trusted: for any time at which auth happens to look."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.auth.errors import InvalidError
from services.auth.succession import Reign, Succession, signing

LIFE, SVID = 600_000, 100_000
PLAN = Succession(LIFE, SVID)
FIRST = Reign(1, 0, LIFE)


def test_the_next_is_made_at_half_and_signs_in_the_last_sixth() -> None:
    """Not before, and its own life begins when it signs."""
    assert PLAN.due([FIRST], LIFE // 2 - 1) is None
    due = PLAN.due([FIRST], LIFE // 2)
    assert due == Reign(2, LIFE * 5 // 6, LIFE * 5 // 6 + LIFE)
    assert PLAN.due([FIRST, due], LIFE * 5 // 6 - 1) is None
    assert signing([FIRST, due], LIFE * 5 // 6 - 1) == FIRST
    assert signing([FIRST, due], LIFE * 5 // 6) == due


def test_a_late_one_is_published_for_long_enough() -> None:
    """Made after its time, it signs only when everybody has come for it, or when the old one is over."""
    late = PLAN.due([FIRST], 450_000)
    assert late == Reign(2, 551_000, 551_000 + LIFE)
    very_late = PLAN.due([FIRST], 599_000)
    assert very_late == Reign(2, LIFE, 2 * LIFE)


def test_after_a_long_sleep_the_next_signs_at_once() -> None:
    """Nothing of the old one lives, so there is nobody to wait for."""
    due = PLAN.due([FIRST], 10 * LIFE)
    assert due == Reign(2, 10 * LIFE, 11 * LIFE)
    assert PLAN.trusted([FIRST, due], 10 * LIFE) == [due]


def test_the_old_one_is_trusted_until_its_last_certificate_has_ended() -> None:
    """One life of a certificate after the next began to sign, and no longer."""
    second = Reign(2, 500_000, 500_000 + LIFE)
    assert PLAN.trusted([FIRST, second], 0) == [second, FIRST]
    short = Succession(LIFE, 50_000)
    assert short.trusted([FIRST, second], 550_999) == [second, FIRST]
    assert short.trusted([FIRST, second], 551_000) == [second]
    assert PLAN.trusted([FIRST, second], LIFE) == [second]


def test_a_forced_one_signs_as_soon_as_everybody_knows() -> None:
    """One life of a certificate from now, or when the one in force ends."""
    assert PLAN.forced([FIRST], 1000) == Reign(2, 102_000, 102_000 + LIFE)
    assert PLAN.forced([FIRST], 590_000) == Reign(2, LIFE, 2 * LIFE)


def test_too_short_a_life_is_refused() -> None:
    """Between publishing and signing, every certificate has to end."""
    Succession(6 * SVID, SVID).check()
    with pytest.raises(InvalidError, match="a CA of 599 s is too short for certificates of 100 s"):
        Succession(599_999, SVID).check()


@pytest.mark.timeout(300)
@settings(deadline=None)
@given(st.lists(st.integers(1, 400_000), max_size=60), st.data())
def test_whoever_comes_once_in_a_life_is_never_cut_off(steps: list[int], data: st.DataObject) -> None:
    """A node that renewed within an SVID's life trusts whoever signs now; what it shows is trusted by all.

    That holds whenever auth looked, asleep or forced, for nodes that still have a living certificate.
    """
    reigns, now = [FIRST], 0
    seen: list[tuple[int, list[Reign], Reign]] = []
    for step in steps:
        now += step
        if due := PLAN.due(reigns, now):
            reigns.append(due)
        if data.draw(st.booleans()) and max(reigns).begins_ms <= now:
            reigns.append(PLAN.forced(reigns, now))
        signs, trusted = signing(reigns, now), PLAN.trusted(reigns, now)
        assert signs in trusted
        assert now < signs.ends_ms
        for then, bundle, signer in seen:
            ends = min(then + SVID, signer.ends_ms)
            if now < ends:
                assert signs in bundle
                assert signer in trusted
        seen.append((now, trusted, signs))
