"""Auth as the holder of keys: who may have what sealed and verified. How that is done is ``core.signing``'s.

It belongs to ``authority``'s one thread. A node asks for its own calls alone; for a call that it makes, its
policy of record has to let it call the destination at that moment, as with keys when they are handed out.
"""

from collections.abc import Callable
from typing import Final

from mesh.core.errors import Cause, PeerError
from mesh.core.keys import Key
from mesh.core.names import InstanceId, KeyEpoch, ServiceName, instance_id, service_name
from mesh.core.receiver import Peer
from mesh.core.signing import Signing, header_of, macs_of, read_call
from mesh.v1 import signer_pb2
from services.auth.auditor import Auditor
from services.auth.errors import ConflictError, InvalidError, MissingError, RefusedError
from services.auth.members import Members
from services.auth.policies import Policies
from services.auth.revoking import Revoking
from services.auth.roots import Roots
from services.auth.sequences import Sequences

_OWN_KEYS: Final = "this instance has keys of its own: only one that joined without them is sealed for"
_REFUSED: Final = "no such service may be called from here"
_NOT_YOURS: Final = "this is no call of yours, or its keys are over"


class Signatory:
    """Seals and verifies for nodes whose keys auth keeps."""

    def __init__(
        self,
        members: Members,
        roots: Roots,
        policies: Policies,
        revoking: Revoking,
        auditor: Auditor,
        sequences: Sequences,
        now_ms: Callable[[], int],
    ) -> None:
        """Take who is a member, keys, who may call whom, who is banned, where refusals go, and the rest."""
        self._members, self._roots, self._policies, self._revoking = members, roots, policies, revoking
        self._auditor, self._sequences, self._now = auditor, sequences, now_ms
        self._signing = Signing(self._key)

    def sign(self, peer: Peer, request: signer_pb2.SignRequest) -> signer_pb2.SignResponse:
        """Seal a new call, or more of one; raise ``AuthError``."""
        now_ms = self._check(peer)
        try:
            if request.HasField("new_call"):
                return self._new(peer, request, now_ms)
            call = read_call(request.sealed_call)
            if not request.parts.reply:
                self._check_callable(peer, call.header.destination, now_ms)
            return signer_pb2.SignResponse(macs=self._signing.sign(peer, call, request.parts))
        except PeerError as error:
            raise _told(error) from None

    def verify(self, peer: Peer, request: signer_pb2.VerifyRequest) -> signer_pb2.VerifyResponse:
        """Say which macs are right; raise ``AuthError``."""
        now_ms = self._check(peer)
        try:
            return self._signing.verify(peer, request, self._roots.current(now_ms).number)
        except PeerError as error:
            raise _told(error) from None

    def _new(self, peer: Peer, request: signer_pb2.SignRequest, now_ms: int) -> signer_pb2.SignResponse:
        if request.parts.reply:
            raise InvalidError("a reply is its destination's to have sealed, not that of who makes the call")
        destination, instance = _target(request.new_call)
        self._check_callable(peer, destination, now_ms)
        if not self._members.has(Peer(destination, instance), now_ms):
            raise MissingError(f"no such instance of {destination}, or no longer")
        sequence = self._sequences.next(peer.instance, instance, now_ms)
        header = header_of(peer, request.new_call, self._roots.current(now_ms).number, sequence)
        sealed, seal = self._signing.seal(header)
        return signer_pb2.SignResponse(sealed_call=sealed, macs=macs_of(seal, request.parts))

    def _check(self, peer: Peer) -> int:
        now_ms = self._now()
        if not self._members.check(peer).remote_keys:
            raise ConflictError(_OWN_KEYS)
        return now_ms

    def _check_callable(self, peer: Peer, destination: ServiceName, now_ms: int) -> None:
        # The mesh's own services are called under keys that such nodes do have.
        permitted = destination in self._policies.permitted(peer.service) and not destination.reserved
        if not permitted or self._revoking.is_banned(destination):
            self._auditor.names_refused(peer, 1, now_ms, "/mesh.v1.SignerService/Sign")
            raise RefusedError(_REFUSED)

    def _key(self, destination: ServiceName, epoch: KeyEpoch) -> Key | None:
        return self._roots.destination_key(destination, epoch, self._now())


def _target(call: signer_pb2.NewCall) -> tuple[ServiceName, InstanceId]:
    try:
        return service_name(call.destination), instance_id(call.destination_instance)
    except ValueError as error:
        raise InvalidError(str(error)) from None


def _told(error: PeerError) -> RefusedError | InvalidError:
    refused = error.cause in (Cause.WRONG_PEER, Cause.BAD_MAC, Cause.UNKNOWN_EPOCH)
    return RefusedError(_NOT_YOURS) if refused else InvalidError(f"cannot seal this: {error}")
