"""Lua services for tests: a directory made from a few lines, and the other services made up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import grpc

from services.lua_host.bundle import Bundle
from services.lua_host.outside import OutgoingCall, Refused
from services.lua_host.rehearsal import Stage

PROTO = """
syntax = "proto3";
package t;
service Own {
  rpc Do(Note) returns (Note);
  rpc Stream(Note) returns (stream Note);
}
service Other {
  rpc Ask(Note) returns (Note);
  rpc Watch(Note) returns (stream Note);
}
service Vault { rpc Open(Note) returns (Note); }
message Note {
  string text = 1;
  int64 number = 2;
  repeated Note notes = 3;
  bytes blob = 4;
}
"""
MANIFEST = """
name = "own"
script = "own.lua"
protos = ["own.proto"]
serves = ["t.Own"]
allow = [{allow}]
state = "{state}"
[calls]
other = ["/t.Other/Ask", "/t.Other/Watch"]
[limits]
{limits}
"""
#: Everything that a script may be allowed.
ALL = ("string", "table", "math", "utf8", "coroutine", "load")


def write_service(
    directory: Path, script: str, *, allow: tuple[str, ...] = ALL, state: str = "fresh", **limits: object
) -> Bundle:
    """Write a service into a directory and load it."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(
        f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"
        for key, value in limits.items()
    )
    allowed = ", ".join(f'"{name}"' for name in allow)
    (directory / "service.toml").write_text(MANIFEST.format(allow=allowed, state=state, limits=lines))
    (directory / "own.proto").write_text(PROTO)
    (directory / "own.lua").write_text(script)
    return Bundle.load(directory)


async def warm(stage: Stage) -> None:
    """Wait until a service has all its workers, the spare one too, so that no call waits for one."""
    pool = stage.service._pool
    async with asyncio.timeout(20):
        while len(pool._idle) <= pool._size:  # noqa: ASYNC110  the pool tells nobody what it does
            await asyncio.sleep(0.005)


class Elsewhere:
    """The other services, made up: ``answer`` gives the replies to a call."""

    def __init__(self, answer: Callable[[OutgoingCall], list[bytes]] | None = None) -> None:
        """Take what answers; without it every call is refused."""
        self.calls: list[OutgoingCall] = []
        self._answer = answer

    def reply_with(self, answer: Callable[[OutgoingCall], list[bytes]]) -> None:
        """Answer otherwise from now on."""
        self._answer = answer

    async def call(self, call: OutgoingCall) -> AsyncGenerator[bytes]:
        """Take note of a call, and answer it."""
        self.calls.append(call)
        if self._answer is None:
            raise Refused(grpc.StatusCode.UNAVAILABLE, "nobody there")
        for payload in self._answer(call):
            yield payload
