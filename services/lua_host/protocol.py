"""What a worker may say, and when: frames to events, by a table. Pure.

The host and a worker take turns. ``Turns`` holds whose turn it is, reads the worker's frames and builds the
host's. It knows nothing of sockets, processes or messages' contents; a frame that it refuses is a reason to
end the worker, never to answer it.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, TypeAlias

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError, Message

from mesh.v1 import lua_pb2

#: What a frame holds besides a message of the service: names, metadata, a log line with its traceback.
SLACK: Final = 64 * 1024
#: How a worker begins.
GREETING: Final = b"mesh-lua/1 "
JAILED: Final = GREETING + b"jailed"
UNSAFE: Final = GREETING + b"unsafe"
MISSING: Final = GREETING + b"missing "

WorkerFrame: TypeAlias = lua_pb2.WorkerFrame


class ViolationError(Exception):
    """The worker said what it may not say: it is not our code any more that runs there."""


class State(Enum):
    """Whose turn it is, and for what."""

    LOADING = auto()
    """The worker's: it loads the script, or puts things in order after a call."""
    IDLE = auto()
    """The host's, for as long as there is no call."""
    ANSWERING = auto()
    """The worker's: a call with one reply is in progress."""
    STREAMING = auto()
    """The worker's: a call with a streamed reply is in progress."""
    WAITING = auto()
    """The host's: the worker has asked for something."""


_IN_CALL: Final = frozenset({"log", "call", "next", "reply"})
#: Which frames may come in which state. What is not here ends the worker.
ALLOWED: Final = {
    State.LOADING: frozenset({"log", "ready", "report"}),
    State.IDLE: frozenset[str](),
    State.ANSWERING: _IN_CALL,
    State.STREAMING: _IN_CALL | {"item"},
    State.WAITING: frozenset[str](),
}
#: Frames after which it is the host's turn, or another matter's. All others leave things as they are.
_AFTER: Final = {
    "ready": State.IDLE,
    "call": State.WAITING,
    "next": State.WAITING,
    "item": State.WAITING,
    "reply": State.LOADING,
}


class Turns:
    """Whose turn it is between the host and one worker."""

    def __init__(self) -> None:
        """Begin with the worker, which has been started."""
        self.state = State.LOADING
        self._in_call = State.ANSWERING

    def received(self, body: bytes) -> WorkerFrame:
        """Read a frame of the worker's; raise ``ViolationError`` for one that may not come now."""
        try:
            frame = WorkerFrame.FromString(body)
        except DecodeError:
            raise ViolationError("a frame that cannot be read") from None
        kind = frame.WhichOneof("kind")
        if kind is None or kind not in ALLOWED[self.state]:
            raise ViolationError(f"{kind or 'an empty frame'} while {self.state.name.lower()}")
        self._check_reply(frame, kind)
        if len(body) - _carried(frame, kind) > SLACK:
            raise ViolationError(f"{len(body)} bytes of {kind}")
        self.state = _AFTER.get(kind, self.state)
        return frame

    def _check_reply(self, frame: WorkerFrame, kind: str) -> None:
        if kind != "reply":
            return
        said = frame.reply.WhichOneof("kind")
        good = "done" if self.state is State.STREAMING else "payload"
        if said not in {good, "failure", "fault"}:
            raise ViolationError(f"a reply that is {said or 'empty'} while {self.state.name.lower()}")

    def request(self, request: lua_pb2.Request, *, streaming: bool) -> bytes:
        """Give the frame of a call; raise ``RuntimeError`` while one is in progress."""
        self._expect(State.IDLE)
        self._in_call = State.STREAMING if streaming else State.ANSWERING
        self.state = self._in_call
        return _encoded(lua_pb2.HostFrame(request=request))

    def result(self, result: lua_pb2.Result) -> bytes:
        """Give the frame that answers what the worker asked for."""
        self._expect(State.WAITING)
        self.state = self._in_call
        return _encoded(lua_pb2.HostFrame(result=result))

    def _expect(self, state: State) -> None:
        if self.state is not state:
            msg = f"it is not the host's turn: {self.state.name.lower()}"
            raise RuntimeError(msg)


def _carried(frame: WorkerFrame, kind: str) -> int:
    """Give the bytes of a frame that are a message of the service; they have a limit of their own."""
    return len(getattr(frame, kind).payload) if kind in {"call", "item", "reply"} else 0


def start_frames(start: lua_pb2.Start) -> tuple[bytes, bytes]:
    """Give the two frames that a worker is started with."""
    known = FileDescriptorSet()
    lua_pb2.DESCRIPTOR.CopyToProto(known.file.add())
    return known.SerializeToString(), _encoded(lua_pb2.HostFrame(start=start))


def _encoded(frame: Message) -> bytes:
    return frame.SerializeToString()
