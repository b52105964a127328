"""What a listener puts up with, second by second."""

from mesh.core.conduct import (
    ADDRESSES,
    BURST,
    CREEP,
    FIRST_OUT,
    FORGOTTEN,
    LONGEST_OUT,
    LOOKS,
    REFILL,
    STRANGE,
    Addresses,
    Line,
)

WHO = "192.0.2.1"


def test_bytes_without_a_call() -> None:
    """So many bytes may come without a call; more, in some looks in a row, is a nuisance."""
    line = Line()
    assert not any(line.look(STRANGE) for _ in range(10))
    line = Line()
    assert [line.look(2 * STRANGE) for _ in range(LOOKS)] == [False] * (LOOKS - 1) + [True]


def test_pings_of_an_idle_connection() -> None:
    """What comes slowly is forgiven, however much it is at last."""
    line = Line()
    assert not any(line.look(look * CREEP) for look in range(10 * STRANGE // CREEP))


def test_a_call_accounts_for_what_came_before_the_next_look() -> None:
    """A call that was taken, even one that is over, has all the bytes that came with it."""
    line = Line()
    assert not line.look(2 * STRANGE)
    line.begin()
    line.end()
    assert not line.look(10 * STRANGE)
    assert not any(line.look(11 * STRANGE) for _ in range(10))
    assert [line.look(13 * STRANGE) for _ in range(LOOKS)][-1]


def test_an_open_call_may_send_without_end() -> None:
    """As long as a call is open, and no longer, bytes are its own."""
    line = Line()
    line.begin()
    assert not any(line.look(size * STRANGE) for size in range(0, 100, 5))
    line.end()
    assert not line.look(1000 * STRANGE)  # how much of that came while it was open is not known
    assert [line.look(1002 * STRANGE) for _ in range(LOOKS)][-1]


def test_a_pause_in_a_flood_begins_it_anew() -> None:
    """Looks at which too much had come count in a row only, from the last call on."""
    line = Line()
    assert not line.look(2 * STRANGE)
    line.begin()
    line.end()
    assert not line.look(2 * STRANGE)
    assert not line.look(3 * STRANGE)
    assert not line.look(4 * STRANGE)


def test_refused_calls() -> None:
    """Some at once and some a second are nothing; more are too many."""
    addresses = Addresses()
    assert [addresses.refuse(WHO, 5.0) for _ in range(int(BURST) + 1)] == [False] * int(BURST) + [True]
    assert not addresses.refuse(WHO, 5.0 + 2 / REFILL)
    assert not any(addresses.refuse("192.0.2.2", 5.0 + second / REFILL) for second in range(1000))


def test_shut_out_for_longer_each_time() -> None:
    """An address comes back after a while, twice as long each time up to a bound; it is forgotten at last."""
    addresses, now, lasted = Addresses(), 100.0, []
    for _ in range(8):
        addresses.strike(WHO, now)
        addresses.strike(WHO, now)  # of another connection: it counts once
        assert addresses.out(now) == {WHO}
        assert addresses.refuse(WHO, now)
        begun = now
        while WHO in addresses.out(now):
            now += FIRST_OUT
        lasted.append(now - begun)
    assert lasted[:4] == [FIRST_OUT, 2 * FIRST_OUT, 4 * FIRST_OUT, 8 * FIRST_OUT]
    assert lasted[-1] == LONGEST_OUT
    now += FORGOTTEN + LONGEST_OUT
    addresses.strike(WHO, now)
    assert addresses.out(now + FIRST_OUT) == frozenset()


def test_memory_is_bounded() -> None:
    """However many addresses come, so many are kept: those heard of last."""
    addresses = Addresses()
    for number in range(ADDRESSES + 100):
        addresses.strike(str(number), 1.0)
    assert addresses.out(1.0) == {str(number) for number in range(100, ADDRESSES + 100)}
