"""JoinService: the one service outside the seal, on a port of its own. Protected by the join secret.

A refusal is answered at a multiple of ``EVEN_SECONDS`` after the request came, so that what it took auth to
find out (whether there is such a token, whose alarm had to be written) is not told by the time. Who is
refused too often is not heard for a while (``guesses``); that is told at once, for it says nothing of tokens.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import grpc

from mesh.core.errors import PeerError
from mesh.core.join import JoinAsked, read_request
from mesh.rpc.warden import Warden
from mesh.v1 import auth_pb2, auth_pb2_grpc
from services.auth.authority import Authority
from services.auth.errors import LimitedError, RefusedError
from services.auth.failpoints import reach
from services.auth.guesses import Guesses, source_of
from services.auth.status import answering
from services.auth.vouching import Vouching
from services.auth.worker import Gathering, Worker

#: Requests that may wait for the one thread. More than this is no crowd but a flood, and would only time out.
MAX_WAITING: Final = 1000
#: Requests answered in one go: enough to share the disk, few enough that the first does not wait long.
AT_ONCE: Final = 16
#: Longer than to judge a request, and to write an alarm, takes on a machine that is not overrun.
EVEN_SECONDS: Final = 0.05
LIMITED: Final = "too many joins from your address were refused: wait a minute, then try again"


class _Asked(NamedTuple):
    join: JoinAsked
    source: str
    at: float


class JoinServicer(auth_pb2_grpc.JoinServiceServicer):
    """Answers requests to join."""

    def __init__(self, authority: Authority, worker: Worker, vouching: Vouching | None = None) -> None:
        """Take what decides, the thread that it decides in, and what vouches for nodes without a token."""
        self._authority, self._guesses, self._vouching = authority, Guesses(), vouching
        self._worker, self._joins = worker, Gathering(worker, self._answer, AT_ONCE)
        self._waiting = self._unheard = 0
        self.warden = Warden()
        self._telling = False

    async def Join(self, request: auth_pb2.JoinRequest, context: Any) -> auth_pb2.JoinResponse:  # noqa: N802
        """Give an identity for a proven request."""
        try:
            join = read_request(request)
        except PeerError as error:
            self.warden.refused(context.peer())
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a request to join: {error}")
        self.warden.heard(context.peer())
        asked = _Asked(join, source_of(context.peer()), asyncio.get_running_loop().time())
        async with answering(context):
            if not self._may_try(asked):
                await self._not_heard()
                raise LimitedError(LIMITED)
            if self._waiting >= MAX_WAITING:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "too many join at once: try again")
            try:
                response = await self._queued(asked)
            except RefusedError:
                await _evenly_after(asked.at)
                raise
            self.warden.took(context.peer())
            return response

    async def _queued(self, asked: _Asked) -> auth_pb2.JoinResponse:
        self._waiting += 1
        try:
            if asked.join.sealed_proof and self._vouching is not None:
                await self._vouched(self._vouching, asked)
            return await self._joins.do(asked)
        finally:
            self._waiting -= 1

    async def _vouched(self, vouching: Vouching, asked: _Asked) -> None:
        try:
            await vouching.vouch(asked.join)
        except RefusedError:
            self._guesses.refused(asked.source, asked.join.token_id, asked.at)
            raise

    async def _not_heard(self) -> None:
        # One of those who come at once waits for the log, with the number of all.
        self._unheard += 1
        if self._telling:
            return
        self._telling = True
        try:
            while count := self._unheard:
                self._unheard = 0
                await self._worker.do(self._authority.auditor.not_heard, count)
        finally:
            self._telling = False

    def _may_try(self, asked: _Asked) -> bool:
        return self._guesses.may_try(asked.source, asked.join.token_id, asked.at)

    def _answer(self, asked: Sequence[_Asked]) -> list[auth_pb2.JoinResponse | Exception]:
        # Once more: many may have come at once, before the first of them was refused.
        heard = [one for one in asked if self._may_try(one)]
        answers = self._authority.join([one.join for one in heard]) if heard else []
        if len(heard) < len(asked):
            self._authority.auditor.not_heard(len(asked) - len(heard))
        for one, answer in zip(heard, answers, strict=True):
            if isinstance(answer, RefusedError):
                self._guesses.refused(one.source, one.join.token_id, one.at)
        reach("answered")
        left = dict(zip(map(id, heard), answers, strict=True))
        return [left.get(id(one), LimitedError(LIMITED)) for one in asked]


async def _evenly_after(began: float) -> None:
    passed = asyncio.get_running_loop().time() - began
    await asyncio.sleep(math.ceil(passed / EVEN_SECONDS) * EVEN_SECONDS - passed)
