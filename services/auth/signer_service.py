"""SignerService: auth seals for nodes whose keys it keeps. Sealed, for any node (``core.builtin``)."""

from typing import Any, Protocol

from mesh.core.receiver import Peer
from mesh.rpc.context import peer
from mesh.v1 import signer_pb2, signer_pb2_grpc
from services.auth.status import answering
from services.auth.worker import BATCH, Turns, Worker


class Seals(Protocol):
    """What seals and verifies for whom the seal has proved: ``Signatory``."""

    def sign(self, peer: Peer, request: signer_pb2.SignRequest) -> signer_pb2.SignResponse:
        """Seal."""

    def verify(self, peer: Peer, request: signer_pb2.VerifyRequest) -> signer_pb2.VerifyResponse:
        """Verify."""


class SignerServicer(signer_pb2_grpc.SignerServiceServicer):
    """Answers nodes."""

    def __init__(self, seals: Seals, worker: Worker) -> None:
        """Take what decides, and the thread that it decides in."""
        self._seals, self._turns = seals, Turns(worker, BATCH)

    async def Sign(  # noqa: N802
        self, request: signer_pb2.SignRequest, context: Any
    ) -> signer_pb2.SignResponse:
        """Seal a call of the caller's, or more of one."""
        async with answering(context):
            asker = peer(context)
            return await self._turns.do(asker, self._seals.sign, asker, request)

    async def Verify(  # noqa: N802
        self, request: signer_pb2.VerifyRequest, context: Any
    ) -> signer_pb2.VerifyResponse:
        """Say which macs are right."""
        async with answering(context):
            asker = peer(context)
            return await self._turns.do(asker, self._seals.verify, asker, request)
