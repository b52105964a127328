"""KeyService: the mesh's own keys. Sealed, for the operator identity alone (``core.builtin``)."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from mesh.core.receiver import Peer
from mesh.rpc.context import peer
from mesh.v1 import keys_pb2, keys_pb2_grpc
from services.auth.authority import Authority
from services.auth.errors import InvalidError
from services.auth.status import answering
from services.auth.worker import Worker


class KeyServicer(keys_pb2_grpc.KeyServiceServicer):
    """Answers operators about keys."""

    def __init__(self, authority: Authority, worker: Worker) -> None:
        """Take what decides, and the thread that it decides in."""
        self._authority, self._worker = authority, worker

    async def ListKeys(  # noqa: N802
        self, _request: keys_pb2.ListKeysRequest, context: Any
    ) -> keys_pb2.ListKeysResponse:
        """Tell what is in force, what is next, and when."""
        async with answering(context):
            return await self._worker.do(self._list, peer(context))

    async def RotateKey(  # noqa: N802
        self, request: keys_pb2.RotateKeyRequest, context: Any
    ) -> keys_pb2.RotateKeyResponse:
        """Put a new key in the place of one in force."""
        async with answering(context):
            return await self._worker.do(self._rotate, request, peer(context))

    async def BackUp(  # noqa: N802
        self, _request: keys_pb2.BackUpRequest, context: Any
    ) -> AsyncIterator[keys_pb2.BackUpResponse]:
        """Give the bytes of a backup, as of now."""
        async with answering(context):
            pieces = await self._worker.do(self._back_up, peer(context))
        while True:
            async with answering(context):
                piece = await self._worker.do(next, pieces, b"")
            if not piece:
                return
            yield keys_pb2.BackUpResponse(data=piece)

    def _back_up(self, by: Peer) -> Iterator[bytes]:
        self._authority.check_known(by)
        return self._authority.keys.back_up(by)

    def _list(self, by: Peer) -> keys_pb2.ListKeysResponse:
        self._authority.check_known(by)
        return self._authority.keys.list()

    def _rotate(self, request: keys_pb2.RotateKeyRequest, by: Peer) -> keys_pb2.RotateKeyResponse:
        self._authority.check_known(by)
        if request.kind == keys_pb2.KEY_KIND_KEK:
            keeper = request.keeper if request.HasField("keeper") else None
            return self._authority.keys.rotate_kek(keeper, by)
        rotate = {
            keys_pb2.KEY_KIND_CA: self._authority.keys.rotate_ca,
            keys_pb2.KEY_KIND_EPOCH: self._authority.keys.rotate_epoch,
            keys_pb2.KEY_KIND_OPERATOR: self._authority.keys.rotate_operator,
        }.get(request.kind)
        if rotate is None:
            raise InvalidError("no such kind of key: see mesh keys list")
        return rotate(by)
