"""The replay window, against a slow twin that simply remembers everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.replay import MAX_SEQUENCE, WINDOW, ReplayWindow


class Twin:
    """All numbers ever seen, in a set."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def accept(self, sequence: int) -> bool:
        """Refuse what was seen, is a window or more behind, or out of range."""
        highest = max(self.seen, default=0)
        fits = 1 <= sequence <= MAX_SEQUENCE and sequence > highest - WINDOW
        if not fits or sequence in self.seen:
            return False
        self.seen.add(sequence)
        return True


steps = st.one_of(
    st.integers(-3, 3),
    st.integers(-WINDOW - 70, WINDOW + 70),
    st.sampled_from([-WINDOW - 1, -WINDOW, -WINDOW + 1, 63, 64, 65, WINDOW, WINDOW + 64, 10 * WINDOW]),
    st.integers(-(2**64), 2**64),
)


@given(st.integers(0, MAX_SEQUENCE), st.lists(steps, max_size=60))
def test_like_the_twin(start: int, moves: list[int]) -> None:
    """Whatever the order of arrival, window and twin accept the same numbers."""
    window, twin, at = ReplayWindow(), Twin(), start
    for move in [0, *moves, 0]:
        at = max(-2, min(at + move, MAX_SEQUENCE + 2))
        assert window.accept(at) == twin.accept(at)


@given(st.permutations(range(1, 200)))
def test_any_order_once(order: list[int]) -> None:
    """Numbers within the window pass once in any order, and never again."""
    window = ReplayWindow()
    assert all(window.accept(number) for number in order)
    assert not any(window.accept(number) for number in order)


def test_every_number_of_a_long_run() -> None:
    """Over several turns of the ring each number passes once, and nothing that fell out passes."""
    window = ReplayWindow()
    for number in range(1, 3 * WINDOW):
        assert window.accept(number)
        assert not window.accept(number)
        assert not window.accept(number - WINDOW)


def test_edge_of_the_window() -> None:
    """The oldest number in the window passes, the one before does not."""
    window = ReplayWindow()
    assert window.accept(WINDOW + 5)
    assert window.accept(6)
    assert not window.accept(5)


@pytest.mark.parametrize(
    "jump", [1, 63, 64, WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + 64, 2**40, MAX_SEQUENCE - 1]
)
def test_jump_forgets_nothing_that_counts(jump: int) -> None:
    """After a jump ahead, what was seen is still refused, and what lies between is not."""
    window = ReplayWindow()
    assert window.accept(1)
    assert window.accept(1 + jump)
    assert not window.accept(1)
    assert not window.accept(1 + jump)
    assert window.accept(jump) is (jump > 1)


@pytest.mark.parametrize("number", [0, -1, -(2**63), MAX_SEQUENCE + 1, 2**64, 2**64 + 1])
def test_out_of_range_changes_nothing(number: int) -> None:
    """A number that no sender may use is refused, and moves nothing."""
    window = ReplayWindow()
    assert window.accept(10)
    before = (window._highest, list(window._ring))
    assert not window.accept(number)
    assert (window._highest, window._ring) == before


def test_last_number() -> None:
    """The last number of all passes once, and nothing comes after it."""
    window = ReplayWindow()
    assert window.accept(MAX_SEQUENCE)
    assert not window.accept(MAX_SEQUENCE)
    assert window.accept(MAX_SEQUENCE - WINDOW + 1)
    assert not window.accept(MAX_SEQUENCE + 1)


@given(st.lists(st.integers(1, MAX_SEQUENCE), max_size=50))
def test_memory_is_bounded(numbers: list[int]) -> None:
    """However far a sender jumps, the window holds the same few words of 64 bits."""
    window = ReplayWindow()
    for number in numbers:
        window.accept(number)
    assert len(window._ring) == WINDOW // 64 + 1
    assert all(word < 2**64 for word in window._ring)
