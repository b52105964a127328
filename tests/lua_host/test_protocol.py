"""Whose turn it is: every frame in every state, and bytes that are no frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.v1 import lua_pb2
from services.lua_host.protocol import ALLOWED, SLACK, State, Turns, ViolationError, start_frames

FRAMES = {
    "ready": lua_pb2.WorkerFrame(ready=lua_pb2.Ready()),
    "report": lua_pb2.WorkerFrame(report=lua_pb2.Report()),
    "log": lua_pb2.WorkerFrame(log=lua_pb2.Log(text="x")),
    "call": lua_pb2.WorkerFrame(call=lua_pb2.Call()),
    "next": lua_pb2.WorkerFrame(next=lua_pb2.Next()),
    "item": lua_pb2.WorkerFrame(item=lua_pb2.Item()),
    "reply": lua_pb2.WorkerFrame(reply=lua_pb2.Reply(failure=lua_pb2.Failure(code=5))),
}
#: The table written out a second time, by hand, as a row for each frame.
TABLE = {
    #          LOADING  IDLE  ANSWERING STREAMING WAITING
    "ready": ("IDLE", None, None, None, None),
    "report": ("LOADING", None, None, None, None),
    "log": ("LOADING", None, "ANSWERING", "STREAMING", None),
    "call": (None, None, "WAITING", "WAITING", None),
    "next": (None, None, "WAITING", "WAITING", None),
    "item": (None, None, None, "WAITING", None),
    "reply": (None, None, "LOADING", "LOADING", None),
}


def in_state(state: State) -> Turns:
    turns = Turns()
    turns.state = state
    return turns


@pytest.mark.parametrize("column", list(enumerate(State)))
@pytest.mark.parametrize("kind", list(FRAMES))
def test_a_frame_is_taken_exactly_where_the_table_says(kind: str, column: tuple[int, State]) -> None:
    """Anything else is a violation, and leaves the turn where it was."""
    index, state = column
    turns, after = in_state(state), TABLE[kind][index]
    body = FRAMES[kind].SerializeToString()
    if after is None:
        with pytest.raises(ViolationError):
            turns.received(body)
        assert turns.state is state
    else:
        assert turns.received(body).WhichOneof("kind") == kind
        assert turns.state is State[after]


def test_every_kind_of_frame_is_in_the_table() -> None:
    """A frame that is added to the proto has to be thought about."""
    assert {field.name for field in lua_pb2.WorkerFrame.DESCRIPTOR.oneofs[0].fields} == set(FRAMES)
    assert set(ALLOWED) == set(State)


@pytest.mark.parametrize(
    ("state", "reply", "good"),
    [
        (State.ANSWERING, lua_pb2.Reply(payload=b""), True),
        (State.ANSWERING, lua_pb2.Reply(done=True), False),
        (State.ANSWERING, lua_pb2.Reply(fault=lua_pb2.Fault()), True),
        (State.ANSWERING, lua_pb2.Reply(), False),
        (State.STREAMING, lua_pb2.Reply(payload=b""), False),
        (State.STREAMING, lua_pb2.Reply(done=True), True),
        (State.STREAMING, lua_pb2.Reply(failure=lua_pb2.Failure()), True),
        (State.STREAMING, lua_pb2.Reply(), False),
    ],
)
def test_a_reply_is_of_the_kind_that_the_call_has(state: State, reply: lua_pb2.Reply, good: bool) -> None:
    """A stream does not end with a message, nor a call with one reply without one."""
    turns = in_state(state)
    body = lua_pb2.WorkerFrame(reply=reply).SerializeToString()
    if good:
        assert turns.received(body).reply == reply
    else:
        with pytest.raises(ViolationError):
            turns.received(body)


@given(st.binary(max_size=64), st.sampled_from(State))
def test_garbage_is_a_frame_or_a_violation(body: bytes, state: State) -> None:
    """Nothing else comes of it."""
    turns = in_state(state)
    try:
        frame = turns.received(body)
    except ViolationError:
        return
    assert frame.WhichOneof("kind") in ALLOWED[state]


@pytest.mark.parametrize("streaming", [False, True])
def test_the_host_speaks_in_its_turn_only(streaming: bool) -> None:
    """It asks an idle worker and answers a waiting one; anything else is a fault of ours."""
    request, result = lua_pb2.Request(method="/a.B/C"), lua_pb2.Result(done=True)
    for state in State:
        if state is not State.IDLE:
            with pytest.raises(RuntimeError):
                in_state(state).request(request, streaming=streaming)
        if state is not State.WAITING:
            with pytest.raises(RuntimeError):
                in_state(state).result(result)
    turns = in_state(State.IDLE)
    assert lua_pb2.HostFrame.FromString(turns.request(request, streaming=streaming)).request == request
    in_call = turns.state
    assert in_call is (State.STREAMING if streaming else State.ANSWERING)
    turns.received(FRAMES["call"].SerializeToString())
    assert lua_pb2.HostFrame.FromString(turns.result(result)).result == result
    assert turns.state is in_call


def test_a_worker_is_started_with_its_language_and_its_script() -> None:
    """The first frame holds the descriptors of the second."""
    start = lua_pb2.Start(script=b"x")
    language, frame = start_frames(start)
    assert b"mesh.v1" in language
    assert lua_pb2.HostFrame.FromString(frame).start == start
    assert SLACK > 0
