"""What is read out of an expression without judging it: when the time may change what it says."""

from __future__ import annotations

import pytest

from mesh.core.condition import Condition
from mesh.core.expression import instant_ms

NEW_YEAR = 1_798_761_600_000

TURNS: list[tuple[str, tuple[int, ...] | None]] = [
    ("source == 'a'", ()),
    ("time.getHours() >= 8 && time.getDayOfWeek('Europe/Berlin') < 6", ()),
    ("time.getMinutes() == 1 || time.getFullYear() > 2026", ()),
    ("time.getSeconds() < 3", None),
    ("time.getMilliseconds() < 3", None),
    ("time.getHours() < 3 && time.getSeconds() < 3", None),
    ("time < timestamp('2027-01-01T00:00:00Z')", (NEW_YEAR,)),
    ("timestamp('2027-01-01T01:00:00+01:00') != time && time.getHours() > 2", (NEW_YEAR,)),
    (
        "time >= timestamp('2027-01-01T00:00:00Z') || time == timestamp('1970-01-01T00:00:00.0019Z')",
        (1, NEW_YEAR),
    ),
    ("time < timestamp(17)", None),
    ("time < timestamp('tomorrow')", None),
    ("time < timestamp(metadata['x-t'])", None),
    ("time == time", None),
    ("time - timestamp('2027-01-01T00:00:00Z') < duration('1h')", None),
    ("timestamp('2027-01-01T00:00:00Z') == [time][0]", None),
    ("time in [timestamp('2027-01-01T00:00:00Z')]", None),
    ("string(time) == 'a'", None),
    ("time.getHours(string(time)) == 1", None),
]


@pytest.mark.parametrize(("text", "turns"), TURNS)
def test_turns(text: str, turns: tuple[int, ...] | None) -> None:
    """The moments that a condition names are known; where it looks closer than at minutes, nothing is."""
    assert Condition.parse(text).turns == turns


@pytest.mark.parametrize(
    "text",
    ["", "now", "2027-01-01", "2027-01-01T00:00:00", "2027-13-01T00:00:00Z", "2027-01-01T00:00:00+9e9"],
)
def test_bad_times(text: str) -> None:
    """A time has its date and its zone."""
    with pytest.raises(ValueError, match="bad time"):
        instant_ms(text)


def test_times() -> None:
    """Zones are heeded, and what is finer than milliseconds is cut off."""
    assert instant_ms("2027-01-01T00:00:00Z") == instant_ms("2027-01-01T01:30:00+01:30") == NEW_YEAR
    assert instant_ms("1970-01-01T00:00:00.0019Z") == 1
