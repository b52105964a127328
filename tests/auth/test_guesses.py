"""Guessing is limited by source and by token, and locks nobody out who comes from elsewhere."""

import pytest

from services.auth import guesses
from services.auth.guesses import CLEAN_SECONDS, PAIR, SOURCE, TOKEN, Guesses, source_of


def guess(known: Guesses, source: str, token_id: str, now: float, tries: int) -> int:
    """Guess as often as that; give how often it was heard."""
    heard = 0
    for _ in range(tries):
        if known.may_try(source, token_id, now):
            known.refused(source, token_id, now)
            heard += 1
    return heard


def test_ten_thousand_guesses_from_one_source() -> None:
    """At one token a source is heard some times, and then as often as the limit says; others still are."""
    known = Guesses()
    assert guess(known, "a", "token", 0, 10_000) == PAIR.burst
    assert guess(known, "a", "token", 10, 10_000) == 10 * PAIR.per_second
    assert known.may_try("b", "token", 10)
    assert known.may_try("a", "other", 10)
    assert known.may_try("a", "token", 10 + PAIR.burst / PAIR.per_second)


def test_a_source_that_guesses_at_many_tokens() -> None:
    """It is limited in all; the tokens' owners elsewhere are heard."""
    known = Guesses()
    heard = sum(guess(known, "a", f"{number}", 0, 100) for number in range(100))
    assert heard == SOURCE.burst
    assert not known.may_try("a", "fresh", 0)
    assert all(known.may_try("b", f"{number}", 0) for number in range(100))
    assert known.may_try("a", "fresh", 1)


def test_many_sources_that_guess_at_one_token() -> None:
    """Beyond the token's limit each is heard once in a while; the owner, who did not guess, is at once."""
    known = Guesses()
    sources = [f"{number}" for number in range(100)]
    heard = [guess(known, source, "token", 0, 100) for source in sources]
    spent = int(TOKEN.burst / 100)
    assert heard == [100] * spent + [1] * (100 - spent)
    assert [guess(known, source, "token", 1, 1) for source in sources[-10:]] == [0] * 10
    assert known.may_try("owner", "token", 1)
    assert known.may_try(sources[0], "other", 1)
    assert known.may_try(sources[0], "token", 1 + CLEAN_SECONDS + TOKEN.burst)


def test_times_that_go_back_and_forth() -> None:
    """What came earlier and is counted later neither adds to a debt nor takes from it."""
    known = Guesses()
    for _ in range(int(PAIR.burst) // 2):
        known.refused("a", "token", 100)
        known.refused("a", "token", 0)
    assert not known.may_try("a", "token", 100)
    assert not known.may_try("a", "token", 0)
    assert known.may_try("a", "token", 100 + 1 / PAIR.per_second)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes, so many are kept count of, and the one longest quiet goes first."""
    monkeypatch.setattr(guesses, "CAPACITY", 10)
    known = Guesses()
    guess(known, "a", "token", 0, 1_000)
    for number in range(100):
        known.refused(f"{number}", f"{number}", 1)
    for kept in (known._sources, known._pairs, known._tokens):
        assert len(kept._owed) == 10
    assert known.may_try("a", "token", 1)


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ("ipv4:192.0.2.1:4711", "192.0.2.1"),
        ("ipv6:%5B2001:db8:1:2:3::4%5D:4711", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::9]:4711", "2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:4711", "192.0.2.1"),
        ("unix:/run/x", "elsewhere"),
        ("", "elsewhere"),
    ],
)
def test_sources(peer: str, source: str) -> None:
    """A port is nobody's own, and a network of 64 bits is one machine's."""
    assert source_of(peer) == source
