"""Auth's clock: forwards with the machine's, never backwards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.v1 import auth_pb2
from services.auth.clock import HOLD_SECONDS, LEAP_SECONDS
from services.auth.errors import RefusedError, StartError
from services.auth.timekeeping import MARK_EVERY_MS
from tests.auth.world import START_MS, Time, World

YEAR = 365 * 86_400


def test_it_tells_the_time() -> None:
    """An undisturbed clock tells the machine's time."""
    time = Time()
    clock = time.clock()
    assert clock.now_ms() == START_MS
    time.pass_ms(1500)
    assert clock.now_ms() == START_MS + 1500


def test_a_clock_set_back_goes_on() -> None:
    """Where the machine's clock is set back, auth's goes on from where it was, at its own pace."""
    time = Time()
    clock = time.clock()
    clock.now_ms()
    time.wall -= 7200
    time.pass_ms(1000)
    assert clock.now_ms() == START_MS + 1000


def test_a_clock_set_forward_is_followed() -> None:
    """Where the machine's clock is set forward, auth's follows."""
    time = Time()
    clock = time.clock()
    time.wall += 60
    assert clock.now_ms() == START_MS + 60_000


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(0, 2e12)), max_size=20))
def test_it_never_runs_backwards(steps: list[tuple[float, float, float]]) -> None:
    """Whatever becomes of the machine's clock, no time is before the one told last."""
    time = Time()
    clock = time.clock()
    last = clock.now_ms()
    for wall, passed, told in steps:
        time.wall += wall
        time.monotonic += passed
        clock.set(int(told))
        assert clock.now_ms() >= max(last, int(told))
        last = clock.now_ms()


def test_a_restart_does_not_turn_it_back(world: World) -> None:
    """A clock set back while auth was down starts no earlier than the newest entry of the audit log."""
    token = world.token(ttl_seconds=60)
    logged = world.store.logs.newest_ms()
    world.stop()
    world.time.wall -= 3_600
    world.start()
    assert world.authority.turn() >= logged
    world.time.pass_ms(60_001)
    states = {info.id: info.state for info in world.authority.list_tokens(world.operator())}
    assert states[token.id] == auth_pb2.TOKEN_STATE_EXPIRED


def test_a_clock_that_is_days_behind_is_refused(world: World) -> None:
    """Where the machine's clock is days behind the database, auth says so and does not start."""
    world.time.pass_ms(5 * 86_400_000)
    world.token()
    world.stop()
    world.time.wall -= 3 * 86_400
    with pytest.raises(StartError, match="clock is 3 days behind"):
        world.start()
    world.time.wall += 3 * 86_400
    world.start()


def test_a_leap_is_not_followed_at_once() -> None:
    """A year ahead and back again within minutes leaves no trace; a year ahead to stay is believed."""
    time = Time()
    clock = time.clock()
    clock.now_ms()
    for _ in range(3):
        time.wall += YEAR
        time.pass_ms(1000)
        clock.now_ms()
        time.pass_ms(int(HOLD_SECONDS) * 1000 - 1000)
        clock.now_ms()
        time.wall -= YEAR
        assert clock.now_ms() == START_MS + int(time.monotonic - 1000) * 1000
    time.wall += YEAR
    clock.now_ms()
    time.pass_ms(int(HOLD_SECONDS) * 1000)
    assert clock.now_ms() == int(time.wall * 1000)


def test_a_day_is_no_leap() -> None:
    """A machine that was off for an afternoon without counting it goes on at once."""
    time = Time()
    clock = time.clock()
    time.wall += LEAP_SECONDS
    assert clock.now_ms() == int(time.wall * 1000)


def test_tokens_and_a_clock_that_is_moved(world: World) -> None:
    """An hour back, a year ahead and back: what expired stays so, what is open stays open; the CA lives."""
    expired, ca = world.token(ttl_seconds=1), world.ca
    world.time.pass_ms(2000)
    still_open = world.token(ttl_seconds=86_400)
    for seconds in (-3600, YEAR, -YEAR, 3600, -3600):
        world.time.wall += seconds
        world.time.pass_ms(100)
        world.authority.turn()
        with pytest.raises(RefusedError):
            world.join(expired)
        assert world.ca is ca
    assert world.join(still_open).credentials.service == "orders"
    world.restart()
    with pytest.raises(RefusedError):
        world.join(expired)


def test_expired_without_a_word_in_the_log(world: World) -> None:
    """The mark alone keeps a token expired whose clock was set back while auth was down, killed or not."""
    token = world.token(ttl_seconds=60)
    for _ in range(8):
        world.time.pass_ms(10_000)
        world.authority.turn()
    assert world.store.logs.newest_ms() < START_MS + 60_000 <= world.store.marked_ms()
    for _ in range(2):
        world.time.wall -= 40
        world.restart()
        with pytest.raises(RefusedError):
            world.join(token)


def test_what_was_told_after_the_last_mark(world: World) -> None:
    """Where a clock was set back behind the mark, no time comes again that may have been told after it."""
    world.authority.turn()
    world.time.pass_ms(MARK_EVERY_MS - 1)
    told = world.authority.turn()
    world.time.wall -= 60
    world.restart()
    assert world.authority.turn() >= told


def test_a_restart_in_order_loses_no_time(world: World) -> None:
    """Where the clock goes on, a token lives as long as it was told, however often auth is started again."""
    token = world.token(ttl_seconds=60)
    for _ in range(5):
        world.time.pass_ms(11_000)
        world.restart()
        assert world.authority.turn() == world.now_ms
    assert world.join(token).credentials.service == "orders"


def test_the_mark_is_written_now_and_then(world: World) -> None:
    """Once in ten seconds, however often auth looks; and it never goes back."""
    marks = set()
    for _ in range(120):
        world.time.pass_ms(500)
        world.authority.turn()
        marks.add(world.store.marked_ms())
    assert len(marks) == 60_000 // MARK_EVERY_MS + 1
    world.store.mark(START_MS)
    assert world.store.marked_ms() == max(marks)
