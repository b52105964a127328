"""JoinService: the one service outside the seal, on a port of its own. Protected by the join secret."""

from typing import Any, Final

import grpc

from mesh.core.errors import PeerError
from mesh.core.join import read_request
from mesh.v1 import auth_pb2, auth_pb2_grpc
from services.auth.authority import Authority
from services.auth.status import answering
from services.auth.vouching import Vouching
from services.auth.worker import Gathering, Worker

#: Requests that may wait for the one thread. More than this is no crowd but a flood, and would only time out.
MAX_WAITING: Final = 1000
#: Requests answered in one go: enough to share the disk, few enough that the first does not wait long.
AT_ONCE: Final = 16


class JoinServicer(auth_pb2_grpc.JoinServiceServicer):
    """Answers requests to join."""

    def __init__(self, authority: Authority, worker: Worker, vouching: Vouching | None = None) -> None:
        """Take what decides, the thread that it decides in, and what vouches for nodes without a token."""
        self._vouching = vouching
        self._joins = Gathering(worker, authority.join, AT_ONCE)
        self._waiting = 0

    async def Join(self, request: auth_pb2.JoinRequest, context: Any) -> auth_pb2.JoinResponse:  # noqa: N802
        """Give an identity for a proven request."""
        try:
            asked = read_request(request)
        except PeerError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a request to join: {error}")
        if self._waiting >= MAX_WAITING:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "too many join at once: try again")
        self._waiting += 1
        try:
            async with answering(context):
                if asked.sealed_proof and self._vouching is not None:
                    await self._vouching.vouch(asked)
                return await self._joins.do(asked)
        finally:
            self._waiting -= 1
