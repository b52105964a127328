"""Bounded telling with exact counts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mesh.core.tally import ALL, Limits, Tally, Told

LIMITS = Limits(burst=3, per_second=1, capacity=5, sources=2, counts_every_ms=10_000)


def told(what: str | None, source: str = "evil", at: int = 0, count: int = 1) -> Told[str]:
    return Told(what, source, f"id of {what} at {at}", count, at, at)


def test_alike_is_one_with_a_count() -> None:
    """The same thing again while it waits costs nothing but a number; the first one's id stays."""
    tally = Tally[str](LIMITS)
    assert all(tally.note(told("a", at=at), at) for at in range(100))
    assert len(tally) == 1
    assert tally.take(9, 100) == [Told("a", "evil", "id of a at 0", 100, 0, 99)]
    assert not tally.is_due(100)


def test_a_flood_is_counted() -> None:
    """What is over a source's budget is counted, the counts come at once, then once in a while."""
    tally = Tally[str](LIMITS)
    assert [tally.note(told(f"{n}"), 0) for n in range(10)] == [True] * 3 + [False] * 7
    assert [(one.what, one.count) for one in tally.take(9, 0)] == [("0", 1), ("1", 1), ("2", 1), (None, 7)]
    for n in range(50):
        tally.note(told(f"again {n}", at=500), 500)
    assert tally.take(9, 500) == []
    assert not tally.is_due(9_999)
    assert tally.is_due(10_000)
    assert tally.take(9, 10_000) == [Told(None, "evil", "", 50, 500, 500)]


def test_counts_may_be_asked_for() -> None:
    """At the end, counts are told before their time."""
    tally = Tally[str](LIMITS)
    for round_ in range(2):
        for n in range(5):
            tally.note(told(f"{round_} {n}"), 0)
        tally.take(9, 0)
    tally.note(told("more"), 0)
    assert tally.take(9, 0) == []
    assert [one.count for one in tally.take(9, 0, everything=True)] == [6]


def test_what_comes_again_may_be_held() -> None:
    """The first is told at once, what comes again once in a while, as one with a count."""
    tally = Tally[str](replace(LIMITS, again_every_ms=60_000))
    tally.note(told("a"), 0)
    assert [one.count for one in tally.take(9, 0)] == [1]
    for at in range(1, 8):
        assert tally.note(told("a", at=at), at)
    tally.note(told("b", at=8), 8)
    assert [(one.what, one.count) for one in tally.take(9, 8)] == [("b", 1)]
    assert not tally.is_due(59_999)
    assert tally.take(9, 60_000) == [Told("a", "evil", "id of a at 1", 7, 1, 7)]
    tally.note(told("a", at=60_001), 60_001)
    assert tally.take(9, 60_001) == []
    assert [one.count for one in tally.take(9, 60_001, everything=True)] == [1]


def test_a_budget_comes_back_with_time() -> None:
    """One more thing a second, and never more than the burst."""
    tally = Tally[str](LIMITS)
    for n in range(4):
        tally.note(told(f"{n}"), 0)
    tally.take(9, 0)
    assert [tally.note(told(f"later {n}"), 1_000) for n in range(2)] == [True, False]
    tally.take(9, 1_000)
    assert [tally.note(told(f"much later {n}"), 900_000) for n in range(4)] == [True] * 3 + [False]
    assert not tally.note(told("the clock went back"), 0)


def test_what_costs_more_takes_more_of_the_budget() -> None:
    """A budget goes by what things cost; what is too dear is counted, what is alike costs nothing."""
    tally = Tally[str](LIMITS)
    assert [tally.note(told(f"{n}"), 0, cost=2) for n in range(2)] == [True, False]
    assert tally.note(told("0", at=1), 1, cost=2)
    assert tally.note(told("small", at=1), 1)


def test_a_time_before_gives_no_budget() -> None:
    """Whoever tells of the past, and whichever clock goes back, a budget comes back with time alone."""
    tally = Tally[str](LIMITS)
    written = 0
    for round_ in range(9):
        written += sum(tally.note(told(f"{round_} {n}"), 0) for n in range(4))
        tally.take(99, 86_400_000)
    assert written == 3 + 3  # at 0, and once more when a day had passed


def test_a_quiet_source_has_its_budget_beside_a_loud_one() -> None:
    """A flood of one source takes nothing from another, but for room that is used up."""
    tally = Tally[str](LIMITS)
    for n in range(1000):
        tally.note(told(f"{n}"), 0)
    assert tally.note(told("mine", "good"), 0)


def test_many_sources_are_counted_together() -> None:
    """Beyond the sources that are known at a time, nothing has a budget or a count of its own."""
    tally = Tally[str](LIMITS)
    for n in range(40):
        tally.note(told("a", f"source {n}"), 0)
    out = tally.take(99, 0)
    assert [(one.what, one.source) for one in out] == [
        ("a", "source 0"),
        ("a", "source 1"),
        (None, "source 2"),
        (None, "source 3"),
        (None, ALL),
    ]
    assert sum(one.count for one in out) == 40


def test_a_copy_goes_its_own_way() -> None:
    """What comes to one of the two, and what it costs, is nothing to the other."""
    tally = Tally[str](LIMITS)
    tally.note(told("a"), 0)
    other = tally.copy()
    for n in range(9):
        tally.note(told(f"{n}"), 0)
    assert [one.count for one in other.take(9, 0, everything=True)] == [1]
    assert [other.note(told(f"{n}"), 0) for n in range(3)] == [True, True, False]
    assert sum(one.count for one in tally.take(9, 0, everything=True)) == 10


def test_what_says_nothing_is_forgotten() -> None:
    """A source whose budget is full again, or whose counts may come, takes up no room."""
    tally = Tally[str](LIMITS)
    for n in range(5):
        tally.note(told(f"{n}"), 0)
    tally.take(9, 0)
    assert tally._buckets.keys() == {source for source, _ in tally._due_at_ms} == {"evil"}
    tally.take(9, 100_000)
    assert not tally._buckets
    assert not tally._due_at_ms


def test_what_could_not_be_told_is_kept() -> None:
    """Given back, it is due again, with what came meanwhile, under the first one's id."""
    tally = Tally[str](LIMITS)
    for n in range(5):
        tally.note(told(f"{n}", at=n), n)
    out = tally.take(9, 10)
    tally.note(told("0", at=20), 20)
    tally.give_back(out)
    again = tally.take(9, 30)
    assert sum(one.count for one in again) == 6
    first = next(one for one in again if one.what == "0" or one.count == 3)
    assert first.first_ms == 0 or first.what is None
    tally.give_back([told("9", at=5)])
    tally.note(told("9", at=40), 40)
    assert tally.take(9, 50)[0] == Told("9", "evil", "id of 9 at 5", 2, 5, 40)


@dataclass
class Twin:
    """Counts, and nothing else."""

    noted: int = 0
    told: int = 0
    given_back: int = 0


class Machine(RuleBasedStateMachine):
    """However things come, go and come back: nothing is lost, nothing is invented, bounds hold."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.tally, self.twin, self.now = Tally[str](LIMITS), Twin(), 0
        self.out: list[Told[str]] = []

    @rule(what=st.sampled_from("abcdefgh"), source=st.sampled_from("vwxyz"), count=st.integers(1, 9))
    def note(self, what: str, source: str, count: int) -> None:
        """Bring a thing."""
        self.tally.note(told(what, source, self.now, count), self.now)
        self.twin.noted += count

    @rule(source=st.sampled_from("vwxyz"), count=st.integers(1, 9))
    def note_counts(self, source: str, count: int) -> None:
        """Bring counts."""
        assert not self.tally.note(told(None, source, self.now, count), self.now)
        self.twin.noted += count

    @rule(ms=st.integers(0, 12_000))
    def wait(self, ms: int) -> None:
        """Let time pass."""
        self.now += ms

    @rule(most=st.integers(1, 9), everything=st.booleans())
    def take(self, most: int, everything: bool) -> None:
        """Take some out."""
        self.out = self.tally.take(most, self.now, everything=everything)
        assert len(self.out) <= most
        self.twin.told += sum(one.count for one in self.out)

    @rule()
    def give_back(self) -> None:
        """Give back what was taken."""
        self.tally.give_back(self.out)
        self.twin.told -= sum(one.count for one in self.out)
        self.out = []

    @invariant()
    def adds_up(self) -> None:
        """Hold the promise."""
        waiting = sum(one.count for one in self.tally._waiting.values())
        assert self.twin.noted == self.twin.told + waiting
        assert len(self.tally) == sum(what is not None for _, what in self.tally._waiting)
        assert len(self.tally._waiting) <= LIMITS.capacity + 9 + LIMITS.sources + 1 + 9
        assert len(self.tally._buckets) <= LIMITS.sources


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40)
