"""The worker process: one Lua state, in the jail, and the pipe between it and the host's socket.

Lua gets one Python function, of bytes to bytes. It runs the loop, protobuf and the script; nothing here reads
what is sent. After the jail is closed nothing may be imported, opened or printed, so whatever goes wrong ends
the process at once, with a status that says which of a few things it was.

All that is imported here is imported by every worker: nothing that can be done without.
"""

from __future__ import annotations

import ctypes
import gc
import io
import os
import time
from collections.abc import Sequence

from lupa.lua54 import LuaRuntime  # and not from lupa, which would look for it with re

from services.lua_host.jail.layers import MissingLayerError, enter, layers

#: How the process ends: the host closed the socket; a layer is missing; Lua returned; something is broken.
CLOSED, MISSING, RETURNED, BROKEN = 0, 3, 4, 5
#: How a worker begins.
GREETING = b"mesh-lua/1 "
#: What a frame holds besides messages of the service.
SLACK = 64 * 1024

_SOCKET = 0
_HEADER = 4
_READ_AHEAD = 64 * 1024
_ENDING = (1, 2, 15)  # SIGHUP, SIGINT, SIGTERM: Python's own module of them is a big import


def main(memory: int, message: int, parent: int, *, jailed: bool) -> None:
    """Be a worker; never return. Bytes that its Lua and one message may take, the host's process id."""
    serve(_sources(), memory, message, parent, jailed=jailed)


def serve(sources: Sequence[bytes], memory: int, message: int, parent: int, *, jailed: bool) -> None:
    """Jail this process, say so, and run the first source, with the function and the rest of them."""
    try:
        pipe = Pipe(2 * message + SLACK)
        lua = _lua(memory)
        if jailed:
            _enter(pipe, memory, message, parent)
        pipe.send(GREETING + (b"jailed" if jailed else b"unsafe"))
        lua.execute(sources[0], pipe.turn, *sources[1:], name=b"=mesh/main.lua", mode="t")
    except BaseException:  # noqa: BLE001  there is nowhere to print it
        os._exit(BROKEN)
    os._exit(RETURNED)


def _enter(pipe: Pipe, memory: int, message: int, parent: int) -> None:
    # In the jail no handler of signals runs. What is here stays, and nothing that is done there makes cycles.
    # Nor is a signal ignored because whoever started the host did (nohup).
    libc = ctypes.CDLL(None)
    for number in _ENDING:
        libc.signal(number, None)
    gc.disable()
    gc.freeze()
    try:
        enter(layers(memory, message, parent))
    except MissingLayerError as missing:
        pipe.send(GREETING + f"missing {missing}".encode())
        os._exit(MISSING)


def _sources() -> list[bytes]:
    # The loop, then the name and the source of every module beside it.
    folder = os.path.join(os.path.dirname(os.path.dirname(__file__)), "lua")  # noqa: PTH118, PTH120  a big import
    modules = {}
    for name in sorted(os.listdir(folder)):  # noqa: PTH208  as above
        if name.endswith(".lua"):
            with open(f"{folder}/{name}", "rb") as file:  # noqa: PTH123  as above
                modules[name.removesuffix(".lua").encode()] = file.read()
    main = modules.pop(b"main")
    return [main, *(text for module in modules.items() for text in module)]


def _lua(memory: int) -> LuaRuntime:
    if memory <= 0:
        raise ValueError("memory has to be limited")
    return LuaRuntime(
        encoding=None,
        register_eval=False,
        register_builtins=False,
        attribute_handlers=(_deny, _deny),
        max_memory=memory,
    )


def _deny(*_: object) -> None:
    # Lua has been handed a function to call. Whoever wants its attributes wants out.
    os._exit(BROKEN)


class Pipe:
    """Frames on the socket: a 4-byte big-endian length, and that many bytes. Its end is the process's end."""

    __slots__ = ("_limit", "_reader")

    def __init__(self, limit: int) -> None:
        """Take the length of the longest frame."""
        self._limit = limit
        self._reader = io.BufferedReader(io.FileIO(_SOCKET, closefd=False), _READ_AHEAD)

    def turn(self, *said: object) -> bytes:
        """Do what Lua asks: ``""`` the time in ns, ``"!…"`` send, ``"?…"`` send and wait, ``"?"`` wait."""
        try:
            (text,) = said
            if type(text) is bytes:
                if not text:
                    return time.monotonic_ns().to_bytes(8)
                kind, body = text[:1], memoryview(text)[1:]
                if kind == b"!":
                    self.send(body)
                    return b""
                if kind == b"?":
                    if body:
                        self.send(body)
                    return self._receive()
        except BaseException:  # noqa: BLE001, S110  an error of Python's is nothing for Lua to have
            pass
        os._exit(BROKEN)

    def send(self, body: bytes | memoryview) -> None:
        """Send a frame."""
        if len(body) > self._limit:
            os._exit(BROKEN)
        left = memoryview(b"".join((len(body).to_bytes(_HEADER), body)))
        while left:
            left = left[os.write(_SOCKET, left) :]

    def _receive(self) -> bytes:
        header = self._reader.read(_HEADER)
        length = int.from_bytes(header)
        if len(header) < _HEADER:
            os._exit(CLOSED)
        if length > self._limit:
            os._exit(BROKEN)
        body = self._reader.read(length)
        if len(body) < length:
            os._exit(CLOSED)
        return body
