"""What a listener puts up with, second by second."""

from mesh.core.conduct import (
    ADDRESSES,
    BURST,
    CREEP,
    FEW,
    FIRST_OUT,
    FORGOTTEN,
    LONGEST_OUT,
    LOOKS,
    MEMBER,
    MEMBERS,
    REFILL,
    STRANGE,
    Addresses,
    Line,
    swollen,
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


def test_a_call_that_anybody_may_make_excuses_bytes_and_vouches_for_nobody() -> None:
    """What was heard is no nuisance; that a member stands there, only a member's call says, and once."""
    line = Line()
    line.heard()
    assert not line.look(10 * STRANGE)
    assert not line.vouches()
    line.begin()
    assert line.vouches()
    assert line.vouches()
    line.end()
    assert not line.vouches()
    line.begin()
    line.end()
    assert [line.vouches(), line.vouches()] == [True, False]


def refused(addresses: Addresses, line: Line, now: float, count: int) -> list[bool]:
    """Refuse calls of a connection; give which were one too many."""
    return [addresses.refuse(WHO, line, now) for _ in range(count)]


def test_metadata_that_is_too_much_for_one_call() -> None:
    """It is what it comes to that counts, texts or bytes; few values are not looked at."""
    assert swollen([("x-bomb", "v" * 3900)] * (STRANGE // 3900 + 1))
    assert swollen([("x-bomb-bin", b"v" * 5000)] * (FEW + 1))
    assert not swollen([("x-bomb", "v" * 3900)] * FEW)
    assert not swollen([("x", "v")] * 10_000)
    assert not swollen([])


def test_refused_calls() -> None:
    """Some at once and some a second are nothing; more are too many, of whichever connection they are."""
    addresses, line, burst = Addresses(), Line(), int(BURST)
    assert refused(addresses, line, 5.0, burst) == [False] * burst
    assert addresses.refuse(WHO, Line(), 5.0)
    assert not addresses.refuse(WHO, Line(), 5.0 + 2 / REFILL)
    other = Line()
    assert not any(addresses.refuse("192.0.2.2", other, 5.0 + second / REFILL) for second in range(1000))


def test_an_address_of_a_member_is_not_shut_out() -> None:
    """Behind a member's address each connection answers for itself, and nobody is shut out."""
    addresses, nuisance, burst = Addresses(), Line(), int(BURST)
    addresses.vouch(WHO, 100.0)
    assert refused(addresses, nuisance, 101.0, burst + 1) == [False] * burst + [True]
    assert not any(refused(addresses, Line(), 101.0, burst))
    assert not addresses.strike(WHO, 101.0)
    assert addresses.out(101.0) == frozenset()
    later = 100.0 + MEMBER
    assert addresses.strike(WHO, later)
    assert addresses.out(later) == {WHO}


def test_a_member_found_behind_an_address_lets_it_in() -> None:
    """A call that a member makes from an address that is shut out, on an old connection, ends that."""
    addresses = Addresses()
    assert addresses.strike(WHO, 1.0)
    addresses.vouch(WHO, 2.0)
    assert addresses.out(2.0) == frozenset()
    assert not addresses.strike(WHO, 2.0)


def test_some_addresses_are_members_whoever_called() -> None:
    """The host's own is never shut out, however quiet its members are."""
    addresses = Addresses(frozenset({WHO}))
    assert not addresses.strike(WHO, 1.0)
    assert addresses.members(WHO, 10 * MEMBER)
    assert not addresses.members("192.0.2.2", 10 * MEMBER)


def test_shut_out_for_longer_each_time() -> None:
    """An address comes back after a while, twice as long each time up to a bound; it is forgotten at last."""
    addresses, now, lasted = Addresses(), 100.0, []
    for _ in range(8):
        addresses.strike(WHO, now)
        addresses.strike(WHO, now)  # of another connection: it counts once
        assert addresses.out(now) == {WHO}
        assert addresses.refuse(WHO, Line(), now)
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


def test_members_are_forgotten_by_members_only() -> None:
    """However many strangers come, members stay known; of too many members, those heard of last."""
    addresses = Addresses()
    addresses.vouch(WHO, 1.0)
    for number in range(ADDRESSES + 100):
        addresses.strike(str(number), 1.0)
    assert addresses.members(WHO, 2.0)
    for number in range(MEMBERS - 1):
        addresses.vouch(f"m{number}", 1.0)
    addresses.vouch(WHO, 1.0)
    addresses.vouch("one more", 1.0)
    assert addresses.members(WHO, 2.0)
    assert not addresses.members("m0", 2.0)
