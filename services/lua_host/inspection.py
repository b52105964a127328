"""What is wrong with a script, without running it: compiled and looked through in a jail of its own."""

from __future__ import annotations

from typing import Final

from mesh.v1 import lua_pb2
from services.lua_host.bundle import Bundle
from services.lua_host.problems import Problem
from services.lua_host.protocol import SLACK
from services.lua_host.service import MAX_PROBLEMS, start_of
from services.lua_host.turns import LOAD
from services.lua_host.worker import Cell, NotJailedError, Worker, ignore

#: What it takes to look through the largest script, in bytes.
_MEMORY: Final = 128 * 1024 * 1024
_PROBE_MEMORY: Final = 8 * 1024 * 1024


async def inspect(bundle: Bundle, *, jailed: bool = True) -> tuple[list[Problem], list[str]]:
    """Give a script's problems by line, and the methods that it says in so many words to handle.

    Raises ``NotJailedError``, ``WorkerGoneError`` and ``ViolationError``.
    """
    manifest = bundle.manifest
    cell = Cell(max(manifest.limits.memory, _MEMORY), manifest.limits.message, jailed=jailed)
    worker = await Worker.spawn(cell, ignore)
    try:
        said = await worker.load(start_of(bundle, check_only=True), LOAD)
    finally:
        await worker.close()
    problems = said.problems if isinstance(said, lua_pb2.Report) else []
    told = [Problem(manifest.script, one.line, one.text) for one in problems[:MAX_PROBLEMS]]
    return told, list(said.handles)


async def jail_lacks() -> str:
    """Say what keeps workers from being jailed on this machine; nothing if they can be."""
    try:
        worker = await Worker.spawn(Cell(_PROBE_MEMORY, SLACK), ignore)
    except (NotJailedError, OSError, RuntimeError) as error:
        return str(error)
    await worker.close()
    return ""
