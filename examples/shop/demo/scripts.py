"""Attacks by a service whose script was written by an enemy, from inside its jail.

Each is stopped only if the service's next call, answered by the same or another worker, goes well.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import grpc

from examples.shop.demo.attack import TIMEOUT, Attack, Seen, Stop, seen
from examples.shop.v1 import gremlin_pb2, gremlin_pb2_grpc

if TYPE_CHECKING:
    from examples.shop.demo.stage import Stage

_C = grpc.StatusCode


async def _play(stage: Stage, trick: str, logged: str) -> Seen:
    """Have gremlin try a trick and then nothing; see what its host told its operator meanwhile."""
    stub = gremlin_pb2_grpc.GremlinStub(stage.orders.channel("gremlin"))
    before = len(stage.lua_log.read_text())
    played = await seen(stub.Try(gremlin_pb2.TryRequest(trick=trick), timeout=TIMEOUT))
    after = await seen(stub.Try(gremlin_pb2.TryRequest(trick="nothing"), timeout=TIMEOUT))
    if getattr(after.result, "loot", None) != "nothing":
        return Seen(_C.OK, result=f"the call after it came to {after} {after.details}")
    try:
        async with asyncio.timeout(TIMEOUT):
            while logged not in stage.lua_log.read_text()[before:]:  # noqa: ASYNC110  a file tells nobody
                await asyncio.sleep(0.01)
    except TimeoutError:
        return Seen(_C.UNKNOWN, details=f"{played}, but for another reason than {logged!r}")
    return played


def _trick(trick: str, name: str, code: grpc.StatusCode, words: str, logged: str) -> Attack:
    run = partial(_play, trick=trick, logged=logged)
    return Attack(name, run, Stop("gremlin's host", code, words), jailed=True)


_ENDED = "took longer than it may"


SCRIPTS = (
    _trick("spin", "computes for ever", _C.DEADLINE_EXCEEDED, "ends the worker", _ENDED),
    _trick("swallow", "the same, catching every error", _C.DEADLINE_EXCEEDED, "ends the worker", _ENDED),
    _trick("pattern", "a pattern that takes for ever", _C.DEADLINE_EXCEEDED, "ends the worker", _ENDED),
    _trick("bomb", "takes all memory", _C.RESOURCE_EXHAUSTED, "16 MiB are all there is", "not enough memory"),
    _trick("file", "opens a file", _C.UNKNOWN, "there is no io", "global 'io'"),
    _trick(
        "bytecode", "loads bytecode", _C.UNKNOWN, "text is all that is loaded", "attempt to call a nil value"
    ),
    _trick("poison", "changes string.format for later calls", _C.UNKNOWN, "it is frozen", "string is frozen"),
    _trick(
        "stock",
        "calls what its manifest does not name",
        _C.UNKNOWN,
        "not granted",
        "the manifest does not let",
    ),
    _trick(
        "charge",
        "calls what only its manifest names",
        _C.UNKNOWN,
        "the policy does not",
        "no service of this name",
    ),
    _trick(
        "lie", "answers with another type", _C.UNKNOWN, "names the wrong field", "loot: has to be a string"
    ),
)
