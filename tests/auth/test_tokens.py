"""The life of a token: what its state is, and what a proven request gets."""

from dataclasses import replace

import pytest

from mesh.core.names import OPERATOR, ServiceName
from services.auth.errors import InvalidError
from services.auth.records import Kind, Token
from services.auth.tokens import State, Verdict, joinable, judge, life_ms, state

OPEN = Token("0123456789abcdef", Kind.JOIN, ServiceName("orders"), 1000, 2000, b"")
USED, REVOKED = replace(OPEN, used_ms=1500), replace(OPEN, revoked_ms=1500)
CREDENTIAL = replace(OPEN, kind=Kind.OPERATOR, service=OPERATOR, used_ms=1500)
#: Whether this very request got something before, and whether that is good yet.
NEW, ALIVE, ENDED = (False, False), (True, True), (True, False)


@pytest.mark.parametrize(
    ("token", "now_ms", "expected"),
    [
        (OPEN, 1000, State.OPEN),
        (OPEN, 1999, State.OPEN),
        (OPEN, 2000, State.EXPIRED),
        (USED, 1600, State.USED),
        (USED, 9999, State.USED),
        (REVOKED, 1600, State.REVOKED),
        (REVOKED, 9999, State.REVOKED),
        (CREDENTIAL, 1600, State.OPEN),
        (CREDENTIAL, 2000, State.EXPIRED),
        (replace(CREDENTIAL, revoked_ms=1700), 1800, State.REVOKED),
    ],
)
def test_state(token: Token, now_ms: int, expected: State) -> None:
    """A token is open until its time is over, it is used or it is revoked; a credential is never used up."""
    assert state(token, now_ms) is expected


@pytest.mark.parametrize(
    ("token", "before", "now_ms", "expected"),
    [
        (OPEN, NEW, 1999, Verdict.ISSUE),
        (OPEN, NEW, 2000, Verdict.EXPIRED),
        (USED, ALIVE, 1999, Verdict.REPEAT),
        (USED, ALIVE, 2000, Verdict.EXPIRED),
        (USED, ENDED, 1999, Verdict.ENDED),
        (USED, ENDED, 2000, Verdict.EXPIRED),
        (USED, NEW, 1999, Verdict.REUSED),
        (USED, NEW, 2000, Verdict.REUSED),
        (REVOKED, NEW, 1999, Verdict.REVOKED),
        (REVOKED, ALIVE, 1999, Verdict.REVOKED),
        (REVOKED, ENDED, 1999, Verdict.REVOKED),
        (CREDENTIAL, NEW, 1999, Verdict.ISSUE),
        (CREDENTIAL, ALIVE, 1999, Verdict.REPEAT),
        (CREDENTIAL, ENDED, 1999, Verdict.ENDED),
        (CREDENTIAL, NEW, 2000, Verdict.EXPIRED),
        (CREDENTIAL, ALIVE, 2000, Verdict.EXPIRED),
        (CREDENTIAL, ENDED, 2000, Verdict.EXPIRED),
    ],
)
def test_verdict(token: Token, before: tuple[bool, bool], now_ms: int, expected: Verdict) -> None:
    """The first request is served, its repeat gets the same while that lives, any other is refused."""
    known, alive = before
    assert judge(token, known=known, alive=alive, now_ms=now_ms) is expected


@pytest.mark.parametrize(("seconds", "ms"), [(0, 60_000), (1, 1000), (86_400, 86_400_000)])
def test_lives(seconds: int, ms: int) -> None:
    """A token lives for as long as it is asked for, a minute if nothing is."""
    assert life_ms(seconds) == ms


def test_a_life_that_is_too_long() -> None:
    """A token lives for a day at most."""
    with pytest.raises(InvalidError, match="1 to 86400"):
        life_ms(86_401)


@pytest.mark.parametrize("name", ["orders", "team.orders", "meshed", "mesh.gatekeeper"])
def test_names_that_can_join(name: str) -> None:
    """Tokens are made for services, and for gatekeeper."""
    assert joinable(name).text == name


@pytest.mark.parametrize(
    "name", ["mesh", "mesh.auth", "mesh.operator", "mesh.other", "", "Orders", "or/ders", "a" * 200]
)
def test_names_that_cannot_join(name: str) -> None:
    """No token is made for a name of the mesh itself, or for what is no name."""
    with pytest.raises(InvalidError) as refused:
        joinable(name)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300
