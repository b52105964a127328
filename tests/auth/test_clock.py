"""Auth's clock: forwards with the machine's, never backwards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.v1 import auth_pb2
from services.auth.errors import StartError
from tests.auth.world import START_MS, Time, World


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
