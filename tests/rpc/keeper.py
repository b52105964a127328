"""Auth, as far as it keeps keys, for the tests of calls: the same service and core, over a real socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mesh.core.errors import PeerError
from mesh.core.keys import Key, destination_key, pair_key
from mesh.core.names import AUTH, InstanceId, KeyEpoch, ServiceName
from mesh.core.receiver import Peer
from mesh.core.signing import Signing, header_of, macs_of, read_call
from mesh.rpc.channel import MeshChannel
from mesh.rpc.connections import MAX_MESSAGE
from mesh.rpc.membership import Membership
from mesh.rpc.server import MeshServer
from mesh.rpc.signer import Signer
from mesh.rpc.targets import FixedTarget
from mesh.v1 import signer_pb2, signer_pb2_grpc
from services.auth.errors import ConflictError, RefusedError
from services.auth.signer_service import SignerServicer
from services.auth.worker import Worker

if TYPE_CHECKING:
    from tests.rpc.pair import World


class Keeper:
    """Keeps the keys of every member, and counts sequence numbers on from those that tests use themselves."""

    def __init__(self, world: World) -> None:
        """Be a member of a world."""
        self._world = world
        self._signing = Signing(self._key)
        self.asked = 0
        self.refuses: Callable[[signer_pb2.SignRequest], bool] = lambda _request: False
        self.membership = world.member(AUTH.text)
        world.members.remove(self.membership)  # those are the tests' own
        self.server = MeshServer(self.membership, "127.0.0.1:0", max_receive=MAX_MESSAGE + 4096)
        self._worker = Worker()
        self._worker.__enter__()
        servicer = SignerServicer(self, self._worker)
        signer_pb2_grpc.add_SignerServiceServicer_to_server(servicer, self.server)
        self._targets: list[FixedTarget] = []

    async def close(self) -> None:
        """Answer nobody any more."""
        for target in self._targets:
            await target.close()
        await self.server.stop(None)
        self._worker.__exit__()

    def keep(self, member: Membership) -> None:
        """Be asked by a member from now on."""
        target = FixedTarget(AUTH, f"127.0.0.1:{self.server.port}", member)
        self._targets.append(target)
        pair = pair_key(destination_key(self._world.root, self._world.domain, AUTH), member.name)
        member.sender.learn(AUTH, self._world.epoch, pair)
        member.signer = Signer(signer_pb2_grpc.SignerServiceStub(MeshChannel(member, target)))

    def sign(self, peer: Peer, request: signer_pb2.SignRequest) -> signer_pb2.SignResponse:
        """Seal, for anybody and any call of his, unless a test says no."""
        self.asked += 1
        if self.refuses(request):
            raise ConflictError("a test says no")
        try:
            if not request.HasField("new_call"):
                call = read_call(request.sealed_call)
                return signer_pb2.SignResponse(macs=self._signing.sign(peer, call, request.parts))
            header = header_of(peer, request.new_call, self._world.epoch.number, self._next(peer, request))
            sealed, seal = self._signing.seal(header)
            return signer_pb2.SignResponse(sealed_call=sealed, macs=macs_of(seal, request.parts))
        except PeerError as error:
            raise RefusedError(str(error)) from None

    def verify(self, peer: Peer, request: signer_pb2.VerifyRequest) -> signer_pb2.VerifyResponse:
        """Verify, for anybody and any call of his."""
        self.asked += 1
        try:
            return self._signing.verify(peer, request, self._world.epoch.number)
        except PeerError as error:
            raise RefusedError(str(error)) from None

    def _key(self, destination: ServiceName, epoch: KeyEpoch) -> Key | None:
        root = self._world.roots.get(epoch)
        return root and destination_key(root, self._world.domain, destination)

    def _next(self, peer: Peer, request: signer_pb2.SignRequest) -> int:
        # The sender's own count: attacks of the same test are sealed with it.
        (member,) = (one for one in self._world.members if one.instance == peer.instance)
        sequences, instance = member.sender._sequences, InstanceId(request.new_call.destination_instance)
        sequences[instance] = sequences.get(instance, 0) + 1
        return sequences[instance]
