"""Places and queue, against a twin that keeps lists."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.breaker import Turnstile
from mesh.core.traffic import Breaker


class Twin:
    """A list of who is in, one of who waits."""

    def __init__(self) -> None:
        self.inside: list[int] = []
        self.queue: list[int] = []
        self.limits: Breaker | None = None

    def settle(self) -> list[int]:
        """Let in whom there are places for."""
        came = []
        while self.queue and (self.limits is None or len(self.inside) < self.limits.calls):
            came.append(self.queue.pop(0))
            self.inside.append(came[-1])
        return came

    def enter(self, ticket: int) -> tuple[bool, bool]:
        """Let in, or have wait."""
        if self.limits is None or len(self.inside) < self.limits.calls:
            self.inside.append(ticket)
            return True, False
        if len(self.queue) < self.limits.queue:
            self.queue.append(ticket)
            return False, True
        return False, False


limits = st.one_of(st.none(), st.builds(Breaker, st.integers(1, 4), st.integers(0, 3)))
steps = st.lists(st.one_of(st.sampled_from(["enter", "leave", "give up"]), limits), max_size=80)


@settings(deadline=None)
@given(steps, st.data())
def test_like_the_twin(moves: list[object], data: st.DataObject) -> None:
    """Places are never too many, nobody is passed over, and no place is lost."""
    turnstile, twin = Turnstile[int](), Twin()
    for ticket, move in enumerate(moves):
        if move == "enter":
            entered = turnstile.enter()
            assert (entered, not entered and turnstile.wait(ticket)) == twin.enter(ticket)
        elif move == "leave":
            if twin.inside:
                twin.inside.pop()
                assert turnstile.leave() == twin.settle()
        elif move == "give up":
            if twin.queue:
                gone = data.draw(st.sampled_from(twin.queue))
                twin.queue.remove(gone)
                turnstile.give_up(gone)
        else:
            assert move is None or isinstance(move, Breaker)
            twin.limits = move
            assert turnstile.limit(move) == twin.settle()
        assert (turnstile.open, turnstile.waiting) == (len(twin.inside), len(twin.queue))


def test_who_came_first_goes_first() -> None:
    """One for each place that is given back, and all that there is room for when the limits are lifted."""
    turnstile = Turnstile[str]()
    turnstile.limit(Breaker(1, 3))
    assert turnstile.enter()
    assert not turnstile.enter()
    assert [turnstile.wait(name) for name in "abcd"] == [True, True, True, False]
    assert turnstile.leave() == ["a"]
    assert turnstile.limit(None) == ["b", "c"]
    assert (turnstile.open, turnstile.waiting) == (3, 0)


def test_without_limits_nobody_waits() -> None:
    """There is always a place."""
    turnstile = Turnstile[str]()
    assert turnstile.enter()
    assert not turnstile.wait("somebody")


def test_giving_up_a_place_that_was_never_asked_for() -> None:
    """Or that was given meanwhile: there is nothing to take back."""
    turnstile = Turnstile[str]()
    turnstile.give_up("nobody")
    assert (turnstile.open, turnstile.waiting) == (0, 0)
