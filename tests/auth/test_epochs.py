"""The schedule of epochs: always one in force, the next one ready, numbers that only go up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.epochs import Epoch
from mesh.core.names import KeyEpoch
from services.auth.epochs import Schedule, accepted, fetch_at_ms, kept_until_ms, sendable, turn_at_ms

SCHEDULE = Schedule(epoch_ms=1000, grace_ms=100)
FIRST = Epoch(KeyEpoch(1), 5000, 6000, 6100)
SECOND = Epoch(KeyEpoch(2), 6000, 7000, 7100)
THIRD = Epoch(KeyEpoch(3), 7000, 8000, 8100)


@pytest.mark.parametrize(
    ("held", "now_ms", "made"),
    [
        ([], 5000, [FIRST, SECOND]),
        ([FIRST], 5000, [SECOND]),
        ([FIRST], 5999, [SECOND]),
        ([FIRST, SECOND], 5000, []),
        ([FIRST, SECOND], 5999, []),
        ([FIRST, SECOND], 6000, [THIRD]),
        ([FIRST, SECOND], 6999, [THIRD]),
        ([FIRST], 6000, [SECOND, THIRD]),
        ([FIRST, SECOND, THIRD], 6000, []),
        (
            [FIRST],
            90_000,
            [Epoch(KeyEpoch(2), 90_000, 91_000, 91_100), Epoch(KeyEpoch(3), 91_000, 92_000, 92_100)],
        ),
        ([FIRST, SECOND], 7000, [THIRD, Epoch(KeyEpoch(4), 8000, 9000, 9100)]),
    ],
)
def test_what_is_due(held: list[Epoch], now_ms: int, made: list[Epoch]) -> None:
    """The next is made as one begins; after an absence, a new one begins at once, with the next number."""
    assert SCHEDULE.due(held, now_ms) == made


def test_who_needs_which_keys() -> None:
    """Receivers hold an epoch for its grace as well; senders only until it ends."""
    held = [SECOND, FIRST]
    assert accepted(held, 6099) == [FIRST, SECOND]
    assert accepted(held, 6100) == [SECOND]
    assert sendable(held, 5999) == [FIRST, SECOND]
    assert sendable(held, 6000) == [SECOND]


def test_when_it_is_time_again() -> None:
    """The timer is due when the newest begins, or when the oldest is kept no longer."""
    assert turn_at_ms([FIRST, SECOND], 900) == 6000
    assert turn_at_ms([FIRST, SECOND, THIRD], 900) == 6100
    assert turn_at_ms([FIRST, SECOND, THIRD], 1500) == 6500
    assert turn_at_ms([SECOND, THIRD], 1500) == 7000


@pytest.mark.parametrize(("longest_ms", "until"), [(0, 6100), (1100, 6100), (1101, 6101), (9000, 14_000)])
def test_what_auth_itself_accepts(longest_ms: int, until: int) -> None:
    """An epoch's keys for auth last for the grace, or for as long as a certificate that came with them."""
    assert kept_until_ms(FIRST, longest_ms) == until


@pytest.mark.parametrize(("epoch_ms", "grace_ms"), [(0, 1), (-1, 1), (1, -1)])
def test_a_schedule_that_cannot_be(epoch_ms: int, grace_ms: int) -> None:
    """An epoch without length is refused."""
    with pytest.raises(ValueError, match="longer than nothing"):
        Schedule(epoch_ms, grace_ms)


def test_a_change_of_lengths_leaves_old_epochs_alone() -> None:
    """New lengths hold for new epochs only: what nodes were told stays true."""
    assert Schedule(10, 1).due([FIRST, SECOND], 5999) == []
    assert Schedule(10, 1).due([FIRST], 5000) == [Epoch(KeyEpoch(2), 6000, 6010, 6011)]


@given(
    st.integers(40, 5000),
    st.integers(0, 5000),
    st.lists(st.integers(0, 20_000), min_size=1, max_size=40),
)
def test_there_is_always_one_in_force(epoch_ms: int, grace_ms: int, steps: list[int]) -> None:
    """After every turn, whenever it comes, there are an epoch to send under and a whole one to come.

    No number comes twice.
    """
    schedule, held, now, numbers = Schedule(epoch_ms, grace_ms), list[Epoch](), 0, list[int]()
    for step in steps:
        now += step
        made = schedule.due(held, now)
        numbers += [epoch.number.number for epoch in made]
        held = accepted([*held, *made], now)
        [*_, current, ahead] = sendable(held, now)
        assert current.begins_ms <= now < ahead.begins_ms == current.ends_ms
        assert turn_at_ms(held, 0) > now
    assert numbers == sorted(set(numbers))


@settings(max_examples=50)
@given(st.integers(400, 5000), st.integers(0, 4999), st.lists(st.floats(0.9, 1.1), min_size=30, max_size=30))
def test_a_node_that_comes_when_told_never_runs_out(epoch_ms: int, joined: int, jitter: list[float]) -> None:
    """A node that fetches at the time it is told, give or take 10 %, holds the epoch in force throughout."""
    schedule, held, now = Schedule(epoch_ms, 0), list[Epoch](), 0
    held = schedule.due(held, now)
    now = joined % epoch_ms
    for factor in jitter:
        # Auth is punctual to the millisecond here; the node is not.
        while turn_at_ms(held, 0) <= now:
            at = turn_at_ms(held, 0)
            held = accepted([*held, *schedule.due(held, at)], at)
        node_holds_until = max(held).ends_ms
        now += max(1, int((fetch_at_ms(held) - now) * factor))
        assert now < node_holds_until - epoch_ms // 2


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(40, 5000), st.integers(0, 500), st.integers(40, 20_000))
def test_auth_hears_whoever_has_a_certificate(
    data: st.DataObject, epoch_ms: int, grace_ms: int, longest_ms: int
) -> None:
    """Whenever a node was here last, auth accepts its newest key for as long as its certificate lives.

    Whatever auth slept through meanwhile, and whatever epochs were forced.
    """
    schedule, held, now = Schedule(epoch_ms, grace_ms), list[Epoch](), 0
    nodes: list[tuple[int, list[Epoch]]] = []
    for _ in range(data.draw(st.integers(1, 20))):
        now += data.draw(st.integers(1, 2 * epoch_ms))
        held += schedule.due(held, now)
        held = [epoch for epoch in held if now < kept_until_ms(epoch, longest_ms)]
        nodes = [(until, taken) for until, taken in nodes if now < until]
        for _, taken in nodes:
            seals = max(epoch for epoch in taken if epoch.begins_ms <= now)
            assert now < kept_until_ms(seals, longest_ms)
            assert seals.number in {epoch.number for epoch in held}
        nodes.append((now + longest_ms, sendable(held, now)))
        if data.draw(st.booleans()) and len(accepted(held, now)) < 5:
            held = schedule.forced(held, now + longest_ms)


def test_a_forced_epoch_ends_those_before_it() -> None:
    """They end as it begins, one that would begin later never does, and numbers go up."""
    assert SCHEDULE.forced([FIRST], 5400) == [
        Epoch(KeyEpoch(1), 5000, 5400, 5500),
        Epoch(KeyEpoch(2), 5400, 6400, 6500),
    ]
    assert SCHEDULE.forced([FIRST, SECOND], 5900) == [
        Epoch(KeyEpoch(1), 5000, 5900, 6000),
        Epoch(KeyEpoch(3), 5900, 6900, 7000),
    ]
    assert SCHEDULE.forced([FIRST, SECOND], 6300) == [
        FIRST,
        Epoch(KeyEpoch(2), 6000, 6300, 6400),
        Epoch(KeyEpoch(3), 6300, 7300, 7400),
    ]


def test_a_forced_epoch_leaves_no_gap() -> None:
    """It begins as the newest ends, where that comes before the time asked for."""
    assert SCHEDULE.forced([FIRST], 9000) == [FIRST, SECOND]


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(400, 5000), st.integers(400, 5000))
def test_forcing_cuts_nobody_off(data: st.DataObject, epoch_ms: int, svid_ms: int) -> None:
    """Whatever a living node sends under, every other living node accepts, however often epochs are forced.

    Nodes come again after half of an SVID's life, or when they are told if that is sooner, give or take 10 %.
    """
    schedule, held, now = Schedule(epoch_ms, epoch_ms // 10), list[Epoch](), 0
    nodes: list[tuple[int, list[Epoch]]] = []
    for _ in range(data.draw(st.integers(1, 40))):
        now += data.draw(st.integers(1, svid_ms // 4))
        while not held or turn_at_ms(held, 0) <= now:
            at = turn_at_ms(held, 0) if held else now
            held = accepted([*held, *schedule.due(held, at)], at)
        if data.draw(st.booleans()) and len(held) < 5:
            held = schedule.forced(held, now + svid_ms)
        nodes = [(until, seen) for until, seen in nodes if now < until]
        again = min(svid_ms // 2, fetch_at_ms(held) - now)
        nodes.append((now + int(again * 1.1), held))
        for _, sender in nodes:
            sends = max(epoch for epoch in sender if epoch.begins_ms <= now < epoch.ends_ms)
            for _, receiver in nodes:
                [known] = [epoch for epoch in receiver if epoch.number == sends.number]
                assert now < known.accepted_until_ms
