"""The worker is a pipe between its socket and one Lua state, and ends rather than do anything else."""

from __future__ import annotations

import signal
import time
from typing import Final

import pytest

from tests.lua_host.jail.child import MEMORY, MESSAGE, USERS, Child, worker

CLOSED, RETURNED, BROKEN = 0, 4, 5
LIMIT: Final = 2 * MESSAGE + 64 * 1024
START: Final = "local host = python.as_function((...)) "
ECHO: Final = START + "local heard = host('?') while true do heard = host('?' .. heard) end"


def started(child: Child) -> Child:
    assert child.receive() == b"mesh-lua/1 jailed"
    return child


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("size", [0, 1, 100, 65_531, 65_532, 65_533, 100_000, LIMIT])
def test_what_comes_goes_through_lua_and_back(user: int | None, size: int) -> None:
    """Frames of any length up to the limit, byte for byte, one after the other and all at once."""
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    with started(worker(ECHO if size else START + "host('?') host('!')", user=user)) as child:
        child.send(body)
        assert child.receive() == body
        if 0 < size < 1000:
            for _ in range(50):
                child.send(body)
            assert [child.receive() for _ in range(50)] == [body] * 50
        child.socket.shutdown(1)
        assert child.everything() == []
        assert child.end() == (CLOSED if size else RETURNED)


def test_lua_gets_the_function_and_the_other_sources() -> None:
    """The first source is run; the others are given to it, after the one function, as they are."""
    main = (
        "local f, a, b, c, d = ... python.as_function(f)('!' .. a .. b .. c .. tostring(d) .. tostring(#a))"
    )
    with started(worker(main)) as child:
        assert child.everything() == ["firstsecondthirdnil5"]
        assert child.end() == RETURNED


def test_nothing_said_is_the_time() -> None:
    """In nanoseconds, of the clock that does not run backwards: between two readings of it outside."""
    main = START + "while true do local heard = host('?') host('!' .. host('')) end"
    with started(worker(main)) as child:
        for _ in range(3):
            before = time.monotonic_ns()
            child.send(b"")
            now = child.receive()
            assert now is not None
            assert len(now) == 8
            assert before <= int.from_bytes(now) <= time.monotonic_ns()


@pytest.mark.parametrize(
    "said",
    [
        "nil",
        "1",
        "1.5",
        "true",
        "{}",
        "print",
        "(...)",
        "'x'",
        "'x?'",
        "'\\0'",
        "",
        "'?', '?'",
        "'!', nil, 1",
    ],
)
def test_lua_may_say_only_what_is_agreed(said: str) -> None:
    """One string that is a question, a message or nothing; anything else is the end, and cannot be caught."""
    with started(
        worker(START + f"pcall(host, {said}) host('!alive')".replace("(host, )", "(host)"))
    ) as child:
        assert child.everything() == []
        assert child.end() == BROKEN


@pytest.mark.parametrize(
    "reach",
    [
        "f.__class__",
        "f.x = 1",
        "f['__globals__']",
        "f[1]",
        "python.as_attrgetter(f).__self__",
        "f.__self__._limit",
    ],
)
def test_the_function_has_nothing_else_to_it(reach: str) -> None:
    """Whoever wants an attribute of Python's is out, and cannot catch it."""
    code = reach if "=" in reach else f"local x = {reach}"
    with started(worker(f"local f = ... pcall(function() {code} end) {START} host('!alive')")) as child:
        assert child.everything() == []
        assert child.end() == BROKEN


@pytest.mark.parametrize("name", ["eval", "builtins"])
def test_lua_has_no_way_into_python(name: str) -> None:
    """What lupa could give is not there, even before main.lua takes the rest away."""
    with started(worker(START + f"host('!' .. tostring(python.{name}))")) as child:
        assert child.everything() == ["nil"]


@pytest.mark.parametrize(
    "line",
    [
        "print('x') io.stdout:flush()",
        "io.open('/etc/passwd')",
        "io.stdin:read(1)",
        "io.stderr:write('x')",
        "os.execute('true')",
        "os.remove('/tmp/x')",
        "os.tmpname()",
        "os.clock()",
        "dofile('/tmp/x')",
        "require('x')",
        "package.loadlib('/x.so', 'x')",
    ],
)
def test_lua_s_own_library_reaches_nothing(line: str) -> None:
    """A main.lua that keeps the whole of it, which ours does not, gets no further than the jail."""
    with started(worker(START + f"pcall(function() {line} end) host('!done')")) as child:
        assert child.everything() == []
        assert child.end() == -signal.SIGSYS


@pytest.mark.parametrize(
    "main", ["error('x')", "error({})", "error(nil)", "x x", "local f = ... f()", "\x1bLua"]
)
def test_a_broken_main_ends_it(main: str) -> None:
    """An error in Lua, an error from Python, a syntax error, bytecode: all the same."""
    with started(worker(main)) as child:
        assert child.everything() == []
        assert child.end() == BROKEN


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", CLOSED),
        (b"\0\0", CLOSED),
        (b"\0\0\0\5half", CLOSED),
        ((LIMIT + 1).to_bytes(4), BROKEN),
        (b"\xff\xff\xff\xff", BROKEN),
        (b"\x7f\xff\xff\xff" + bytes(100), BROKEN),
    ],
)
def test_a_host_that_breaks_off_is_its_end(sent: bytes, status: int) -> None:
    """The end of the socket, in a frame or between two, and lengths that nobody may claim."""
    with started(worker(ECHO)) as child:
        child.socket.sendall(sent)
        child.socket.shutdown(1)
        assert child.everything() == []
        assert child.end() == status


def test_lua_cannot_send_more_than_the_limit() -> None:
    """A frame of just the limit goes; with one byte more the worker is gone, and has sent nothing of it."""
    with started(worker(START + f"for more = 0, 1 do host('!' .. ('x'):rep({LIMIT} + more)) end")) as child:
        assert child.receive() == b"x" * LIMIT
        assert child.everything() == []
        assert child.end() == BROKEN


def test_lua_s_memory_is_limited_and_it_goes_on() -> None:
    """Too much, at once or bit by bit, is an error in Lua; what follows works."""
    main = (
        START
        + f"""
      for round = 1, 5 do
        local at_once, why = pcall(string.rep, 'x', {MEMORY})
        local kept = {{}}
        local by_bits = pcall(function() for i = 1, 1 << 40 do kept[i] = ('x'):rep(1000) .. i end end)
        kept = nil
        collectgarbage()
        host('!' .. tostring(at_once) .. tostring(by_bits) .. tostring(why))
      end"""
    )
    with started(worker(main)) as child:
        assert child.everything() == ["falsefalsenot enough memory"] * 5
        assert child.end() == RETURNED


@pytest.mark.parametrize("memory", [0, -1])
def test_memory_without_a_limit_is_refused(memory: int) -> None:
    """To lupa, none is no limit."""
    with worker(ECHO, before=f"MEMORY = {memory}") as child:
        assert child.everything() == []
        assert child.end() == BROKEN


def test_an_idle_worker_is_small() -> None:
    """25 MB, and no more after many calls: nothing is left for Python's collector, which is off, to find."""
    with started(worker(ECHO)) as child:
        sizes = []
        for _ in range(2):
            for _ in range(5000):
                child.send(b"x" * 100)
                child.receive()
            sizes.append(int(child.status("VmRSS").split()[0]))
        assert sizes[0] < 25_000
        assert sizes[1] - sizes[0] < 500


def test_it_can_be_stopped_and_continued() -> None:
    """An operator's signals that do not end it do not change it."""
    with started(worker(ECHO)) as child:
        for number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGWINCH, signal.SIGPIPE):
            child.process.send_signal(number)
        child.send(b"x")
        assert child.receive() == b"x"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_it_are_its_end(number: signal.Signals) -> None:
    """Without a handler of Python's in between, and though whoever started it ignores them."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        child = worker(ECHO)
    finally:
        signal.signal(number, before)
    with started(child):
        child.process.send_signal(number)
        assert child.everything() == []
        assert child.end() == -number


def test_without_a_jail_it_says_so() -> None:
    """And is the same pipe."""
    with worker(ECHO, jailed=False) as child:
        assert child.receive() == b"mesh-lua/1 unsafe"
        child.send(b"x")
        assert child.receive() == b"x"
        assert child.status("Seccomp") == "0"
