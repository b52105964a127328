"""What a script can do, in a real jail: handlers, calls, streams, failures, log lines, time, state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest
import pytest_asyncio

from mesh.core.names import FullMethod
from services.lua_host.outside import OutgoingCall, Refused
from services.lua_host.rehearsal import Outcome, Stage, rehearse
from services.lua_host.rules import Asked
from services.lua_host.worker import UnfitError
from tests.lua_host.stage import Elsewhere, warm, write_service

DO, STREAM = FullMethod("/t.Own/Do"), FullMethod("/t.Own/Stream")
_C = grpc.StatusCode


class Script:
    """A running script, its messages as Python's own."""

    def __init__(self, stage: Stage, elsewhere: Elsewhere, note: Any) -> None:
        self.stage, self.elsewhere, self.note = stage, elsewhere, note

    async def do(self, method: FullMethod = DO, **fields: Any) -> Outcome:
        """Call it as ``tester``."""
        return await self.stage.call(method, self.note(**fields).SerializeToString())

    async def text(self, **fields: Any) -> str:
        """Call it; give the text of its one answer."""
        outcome = await self.do(**fields)
        assert outcome.code is _C.OK, outcome
        text: str = self.note.FromString(outcome.messages[0]).text
        return text


Open: TypeAlias = Callable[..., Any]


@pytest_asyncio.fixture
async def script(tmp_path: Path) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def open_script(
            source: str, answer: Callable[[OutgoingCall], list[bytes]] | None = None, **settings: Any
        ) -> Script:
            bundle = write_service(tmp_path, source, **settings)
            elsewhere = Elsewhere(answer)
            stage = await stack.enter_async_context(rehearse(bundle, elsewhere))
            return Script(stage, elsewhere, bundle.protos.message("t.Note"))

        yield open_script


async def test_a_handler_answers(script: Open) -> None:
    """A request comes as a table and goes as one."""
    own = await script(
        """
        mesh.handle("Do", function(request)
          return {text = request.text .. "!", number = request.number + 1, notes = {request, {text = "b"}},
                  blob = "\\0\\255"}
        end)
        """
    )
    answer = own.note.FromString((await own.do(text="hi", number=2**62)).messages[0])
    assert (answer.text, answer.number, answer.blob) == ("hi!", 2**62 + 1, b"\0\xff")
    assert [note.text for note in answer.notes] == ["hi", "b"]


async def test_a_method_may_be_named_in_full(script: Open) -> None:
    """As the short name says too little where two services have it."""
    own = await script('mesh.handle("/t.Own/Do", function() return {text = "x"} end)')
    assert await own.text() == "x"


async def test_the_context_says_who_calls_and_with_what(script: Open) -> None:
    """Identity, instance, method and metadata are the verified ones; each key has a list of values."""
    own = await script(
        """
        mesh.handle("Do", function(request, context)
          return {text = table.concat({context.caller, context.identity, context.instance, context.method,
            table.concat(context.metadata["x-a"], "+"), #context.metadata["x-b-bin"][1]}, " ")}
        end)
        """
    )
    metadata = (("x-a", "1"), ("x-b-bin", b"\0\1\2"), ("x-a", "2"))
    outcome = await own.stage.call(DO, b"", caller="front", metadata=metadata)
    said = own.note.FromString(outcome.messages[0]).text.split()
    assert said == ["front", "spiffe://rehearsal.example/front", "00" * 16, "/t.Own/Do", "1+2", "3"]


async def test_the_remaining_time_runs(script: Open) -> None:
    """It is the caller's or the manifest's, whichever is shorter; mesh.now is the mesh's time."""
    own = await script(
        """
        mesh.handle("Do", function(request, context)
          local before, now = context.remaining(), mesh.now()
          local n = 0
          repeat n = n + 1 until context.remaining() < before
          return {text = string.format("%.3f", before), number = mesh.now() - now}
        end)
        """,
        deadline="2s",
    )
    assert 1.8 < float(await own.text()) <= 2
    outcome = await own.stage.call(DO, b"", timeout=0.7)
    assert 0.5 < float(own.note.FromString(outcome.messages[0]).text) <= 0.7


async def test_a_stream_of_replies(script: Open) -> None:
    """Each is sent as it is made, and the end is the handler's."""
    own = await script(
        """
        mesh.handle("Stream", function(request, context, send)
          for i = 1, request.number do send {number = i} end
        end)
        """
    )
    outcome = await own.do(STREAM, number=300)
    assert outcome.code is _C.OK
    assert [own.note.FromString(payload).number for payload in outcome.messages] == list(range(1, 301))


async def test_a_stream_may_fail_after_some_messages(script: Open) -> None:
    """Those that were sent arrive, and then the error."""
    own = await script(
        """
        mesh.handle("Stream", function(request, context, send)
          send {number = 1}
          mesh.fail("ABORTED", "enough")
        end)
        """
    )
    outcome = await own.do(STREAM)
    assert (len(outcome.messages), outcome.code, outcome.details) == (1, _C.ABORTED, "enough")


@pytest.mark.parametrize("code", [code for code in _C if code is not _C.OK])
async def test_every_status_can_be_failed_with(script: Open, code: grpc.StatusCode) -> None:
    """By its name; pcall sees it as it is, and it can be raised again."""
    own = await script(
        """
        mesh.handle("Do", function(request)
          local ok, failure = pcall(mesh.fail, request.text, "because")
          assert(not ok and failure.code == request.text and tostring(failure) == request.text .. ": because")
          error(failure)
        end)
        """
    )
    outcome = await own.do(text=code.name)
    assert (outcome.code, outcome.details) == (code, "because")


@pytest.mark.parametrize("call", ['"OK", "x"', '"NOT_A_CODE", "x"', '5, "x"', '"ABORTED", {}', '"ABORTED"'])
async def test_a_bad_failure_is_the_scripts_fault(script: Open, call: str) -> None:
    """Not a status of the call."""
    own = await script(f'mesh.handle("Do", function() mesh.fail({call}) end)')
    assert (await own.do()).code is _C.UNKNOWN


@pytest.mark.parametrize(
    ("blob", "told"),
    [(b"\xff\xfe", "no ??"), ("é".encode() * 3000, "no " + "é" * 2046 + "?"), (b"\0", "no \0")],
)
async def test_what_a_caller_sends_can_stand_in_a_failure(script: Open, blob: bytes, told: str) -> None:
    """It is cut, and bytes that are no text are shown as question marks; the worker lives on."""
    own = await script(
        """
        local calls = 0
        mesh.handle("Do", function(request)
          calls = calls + 1
          mesh.log.info("asked for " .. request.blob)
          if request.number == 0 then mesh.fail("NOT_FOUND", "no " .. request.blob) end
          return {number = calls}
        end)
        """,
        state="kept",
    )
    outcome = await own.do(blob=blob)
    assert (outcome.code, outcome.details) == (_C.NOT_FOUND, told)
    assert own.note.FromString((await own.do(number=1)).messages[0]).number == 2


async def test_a_reader_that_does_not_read_on_costs_nobody_a_worker(script: Open) -> None:
    """Its call ends at the deadline; what the service keeps is kept, and others are served meanwhile."""
    own = await script(
        """
        local calls = 0
        mesh.handle("Do", function() calls = calls + 1 return {number = calls} end)
        mesh.handle("Stream", function(request, context, send)
          calls = calls + 1
          for number = 1, 10 do send {number = number} end
        end)
        """,
        state="kept",
        deadline="300ms",
    )
    await own.do()
    loop = asyncio.get_running_loop()
    asked = Asked(STREAM, b"", "", "slow", "", (), None, 0)
    slow = own.stage.service.stream(asked)
    assert await anext(slow)
    began = loop.time()
    outcome = await own.do()
    while outcome.code is not _C.OK and loop.time() - began < 10:
        outcome = await own.do()
    assert own.note.FromString(outcome.messages[0]).number == 3
    with pytest.raises(Refused) as refused:
        await anext(slow)
    assert refused.value.code is _C.DEADLINE_EXCEEDED


async def test_a_slow_neighbour_is_told_before_the_worker_is_ended(script: Open) -> None:
    """A call that does not come back in time is an error in the script, which can still end well."""
    own = await script(
        """
        local calls = 0
        mesh.handle("Do", function()
          calls = calls + 1
          local ok, failure = pcall(mesh.call, "other", "/t.Other/Ask", {})
          return {number = calls, text = failure.code}
        end)
        """,
        state="kept",
        deadline="200ms",
    )

    async def never(_call: OutgoingCall) -> Any:
        await asyncio.get_running_loop().create_future()
        yield b""

    own.elsewhere.call = never
    for number in (1, 2):
        answer = own.note.FromString((await own.do()).messages[0])
        assert (answer.number, answer.text) == (number, "DEADLINE_EXCEEDED")


async def test_a_broken_handler_tells_its_caller_nothing(
    script: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator's log has the line and the traceback."""
    own = await script('mesh.handle("Do", function()\n  local secret = nil\n  return secret.field\nend)')
    outcome = await own.do()
    assert (outcome.code, outcome.details) == (_C.UNKNOWN, "the script failed: see the service's log")
    assert "own.lua:3: attempt to index a nil value (local 'secret')" in caplog.text


REPLIES = {
    "{text = 5}": "text",
    "{number = 1.5}": "number",
    "{number = 2.0}": "number",
    "{number = '7'}": "number",
    "{nmber = 1}": "nmber",
    "{text = '\\xc3\\x28'}": "text",
    "{notes = {[2] = {}}}": "notes",
    "{notes = {{}, {text = 1}}}": "notes[2].text",
    "{notes = {text = 'x'}}": "notes",
    "5": "table",
    "nil": "table",
}


@pytest.mark.parametrize("reply", REPLIES)
async def test_a_reply_that_is_not_of_its_type_names_the_field(
    script: Open, reply: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It fails; nothing is changed on the quiet."""
    own = await script(f'mesh.handle("Do", function() return {reply} end)')
    assert (await own.do()).code is _C.UNKNOWN
    assert REPLIES[reply] in caplog.text


async def test_a_reply_that_is_too_large_is_the_scripts_failure(
    script: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told by how much, and its worker lives on."""
    own = await script(
        """
        mesh.handle("Do", function(request)
          local half = string.rep("x", 40000)
          return request.number == 0 and {text = half, blob = half} or {}
        end)
        """,
        message="64KiB",
        workers=1,
    )
    assert (await own.do()).code is _C.UNKNOWN
    assert "bytes, and 65536 are the limit (message)" in caplog.text
    assert (await own.do(number=1)).code is _C.OK
    assert "was ended" not in caplog.text


async def test_a_field_that_is_none_is_an_error_to_read(
    script: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """A misspelt name is not nil."""
    own = await script('mesh.handle("Do", function(request) return {text = request.txet} end)')
    assert (await own.do()).code is _C.UNKNOWN
    assert "txet" in caplog.text


async def test_a_method_without_a_handler(script: Open) -> None:
    """Is UNIMPLEMENTED."""
    own = await script('mesh.handle("Do", function() return {} end)')
    assert (await own.do(STREAM)).code is _C.UNIMPLEMENTED


def echo(call: OutgoingCall) -> list[bytes]:
    return [call.payload]


async def test_a_call_goes_out_and_its_answer_comes_back(script: Open) -> None:
    """With the trace of the call that it is made for, its own metadata, and no more time than is left."""
    own = await script(
        """
        mesh.handle("Do", function(request)
          local options = {timeout = 0.5, metadata = {["x-mine"] = "yes"}}
          return mesh.call("other", "/t.Other/Ask", {text = request.text .. "?"}, options)
        end)
        """,
        echo,
    )
    request = own.note(text="hi").SerializeToString()
    trace = (
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "a=b"),
    )
    outcome = await own.stage.call(DO, request, metadata=(*trace, ("x-other", "stays here")))
    assert own.note.FromString(outcome.messages[0]).text == "hi?"
    (call,) = own.elsewhere.calls
    assert (call.service, call.method.text, call.streaming) == ("other", "/t.Other/Ask", False)
    assert call.metadata == (*trace, ("x-mine", "yes"))
    assert call.timeout == 0.5
    outcome = await own.stage.call(DO, request, timeout=0.3)
    assert 0.1 < own.elsewhere.calls[1].timeout <= 0.3


async def test_a_call_that_fails_can_be_caught(script: Open) -> None:
    """With its code, its text and its reason."""
    own = await script(
        """
        mesh.handle("Do", function()
          local ok, failure = pcall(mesh.call, "other", "/t.Other/Ask", {})
          return {text = table.concat({tostring(ok), failure.code, failure.message, failure.reason}, "|")}
        end)
        """,
        refusing,
    )
    assert await own.text() == "false|NOT_FOUND|no such thing|shop.example/GONE"


def refusing(_call: OutgoingCall) -> list[bytes]:
    raise Refused(_C.NOT_FOUND, "no such thing", "shop.example/GONE")


async def test_a_call_that_fails_uncaught_is_the_scripts_own_failure(
    script: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """As an exception of a stub is in any other service: what went wrong behind it is not the caller's."""
    own = await script(
        'mesh.handle("Do", function() return mesh.call("other", "/t.Other/Ask", {}) end)', refusing
    )
    outcome = await own.do()
    assert (outcome.code, "no such thing" in outcome.details) == (_C.UNKNOWN, False)
    assert "NOT_FOUND: no such thing" in caplog.text


async def test_a_stream_of_another_service(script: Open) -> None:
    """Is read message by message, several at once if need be, and may be left."""
    own = await script(
        """
        mesh.handle("Do", function(request)
          local first = mesh.stream("other", "/t.Other/Watch", {})
          local second = mesh.stream("other", "/t.Other/Watch", {})
          local sum = 0
          for note in first do
            sum = sum + note.number * second().number
          end
          for note in mesh.stream("other", "/t.Other/Watch", {}) do break end
          assert(first() == nil and first() == nil)
          return {number = sum}
        end)
        """,
        lambda _call: [b"\x10\x01", b"\x10\x02", b"\x10\x03"],
    )
    assert own.note.FromString((await own.do()).messages[0]).number == 1 + 4 + 9


CALLS = {
    'mesh.call("vault", "/t.Vault/Open", {})': "PERMISSION_DENIED",
    'mesh.call("other", "/t.Vault/Open", {})': "PERMISSION_DENIED",
    'mesh.call("mesh.auth", "/mesh.v1.AuthService/GetPairKeys", {})': "PERMISSION_DENIED",
    'mesh.call("other", "/t.Other/Ask", {text = 1})': "text",
    'mesh.call("other", "/t.Other/Ask", {}, {timeout = -1})': "timeout",
    'mesh.call("other", "/t.Other/Ask", {}, {timeout = 0/0})': "timeout",
    'mesh.call("other", "/t.Other/Ask", {}, {tmeout = 1})': "tmeout",
    'mesh.call("other", "/t.Other/Ask", {}, {metadata = {["mesh-peer"] = "x"}})': "mesh-",
    'mesh.call("other", "/t.Other/Ask", {}, {metadata = {["x y"] = "x"}})': "metadata key",
    'mesh.call("other", "/t.Other/Watch", {})': "mesh.stream",
    'mesh.stream("other", "/t.Other/Ask", {})': "mesh.call",
    "mesh.call()": "service",
    "mesh.call({}, {}, {})": "service",
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_bad_call_leaves_nothing_but_an_error(
    script: Open, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The error says what is wrong with it, and nobody was called."""
    own = await script(f'mesh.handle("Do", function() return {call} end)', echo)
    assert (await own.do()).code is _C.UNKNOWN
    assert CALLS[call] in caplog.text
    assert own.elsewhere.calls == []


async def test_an_answer_that_is_no_message_is_an_error_in_the_script(script: Open) -> None:
    """The host reads it first."""
    own = await script(
        """
        mesh.handle("Do", function()
          local ok, failure = pcall(mesh.call, "other", "/t.Other/Ask", {})
          return {text = failure.code}
        end)
        """,
        lambda _call: [b"\xff\xff"],
    )
    assert await own.text() == "INTERNAL"


async def test_a_request_that_is_no_message_reaches_no_script(script: Open) -> None:
    """It is INVALID_ARGUMENT, by the host's own reading."""
    own = await script('mesh.handle("Do", function() mesh.log.info("reached") return {} end)')
    outcome = await own.stage.call(DO, b"\xff\xff")
    assert (outcome.code, outcome.logs) == (_C.INVALID_ARGUMENT, [])


async def test_log_lines(script: Open) -> None:
    """Go to the operator, in order, one line each."""
    own = await script(
        """
        mesh.handle("Do", function()
          for _, level in ipairs {"debug", "info", "warning", "error"} do
            mesh.log[level](level .. "\\nline")
          end
          return {}
        end)
        """
    )
    assert (await own.do()).logs == [rf"{level}\nline" for level in ("debug", "info", "warning", "error")]


async def test_fresh_state_is_fresh(script: Open) -> None:
    """What a call leaves in globals is gone at the next, in whatever worker that is."""
    own = await script(
        """
        count = 0
        mesh.handle("Do", function() count = count + 1; return {number = count} end)
        """
    )
    for _ in range(5):
        assert own.note.FromString((await own.do()).messages[0]).number == 1


async def test_kept_state_is_kept(script: Open) -> None:
    """From call to call, in one worker."""
    own = await script(
        """
        local count = 0
        mesh.handle("Do", function() count = count + 1; return {number = count} end)
        """,
        state="kept",
    )
    counted = [own.note.FromString((await own.do()).messages[0]).number for _ in range(5)]
    assert counted == [1, 2, 3, 4, 5]


async def test_calls_run_at_once_as_the_manifest_says(script: Open) -> None:
    """Two that wait for each other's end outside get it with two workers."""
    source = 'mesh.handle("Do", function(r) return mesh.call("other", "/t.Other/Ask", r) end)'
    own = await script(source, echo, workers=2, deadline="20s")
    await warm(own.stage)
    both = asyncio.Barrier(2)
    answer = own.elsewhere.call

    async def together(call: OutgoingCall) -> Any:
        await both.wait()
        async for payload in answer(call):
            yield payload

    own.elsewhere.call = together
    outcomes = await asyncio.gather(own.do(text="a"), own.do(text="b"))
    assert [outcome.code for outcome in outcomes] == [_C.OK, _C.OK]


BROKEN = {
    "x =": "own.lua:1:",
    "\nerror('no')": "own.lua:2: no",
    "mesh.handle('Doo', print)": "Doo",
    "mesh.handle('Do', 5)": "function",
    "local f = error\nmesh.handle('Do', f)\nmesh.handle('/t.Own/Do', f)": "handler already",
    "mesh.call('other', '/t.Other/Ask', {})": "call",
    "undefined()": "undefined",
    "mesh.fail('ABORTED', 'not now')": "not now",
    "\27Lua": "own.lua",
}


@pytest.mark.parametrize("source", BROKEN)
async def test_a_script_that_does_not_load_is_not_served(script: Open, source: str) -> None:
    """Its error says where."""
    with pytest.raises(UnfitError) as raised:
        await script(source)
    assert BROKEN[source] in str(raised.value)
    assert len(raised.value.problems) == 1


async def test_a_script_that_loads_for_ever_is_not_served(
    script: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is the host's to end."""
    monkeypatch.setattr("services.lua_host.service.LOAD", 0.3)
    with pytest.raises(Exception, match="did not get ready within"):
        await script("while true do end")
