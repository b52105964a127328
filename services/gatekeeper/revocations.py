"""What auth says of revoked instances and banned services, put in force: at this server, then at all nodes.

Revoked instances are only ever added to (``mesh.core.revoked``). Names of banned services stay here, where
single questions about calls of theirs are answered; nodes are told of instances alone.
"""

from __future__ import annotations

import logging
from typing import Final

from mesh.core.names import InstanceId
from mesh.rpc.membership import Membership
from mesh.rpc.server import MeshServer
from mesh.v1 import revocation_pb2
from services.gatekeeper.watchers import Watchers

log: Final = logging.getLogger("mesh.gatekeeper")


class Revocations:
    """Takes auth's word on who is a member no more."""

    def __init__(self, membership: Membership, watchers: Watchers, server: MeshServer) -> None:
        """Take who we are, who tells the nodes, and where they call."""
        self._membership, self._watchers, self._server = membership, watchers, server

    def take(self, told: revocation_pb2.Revocations) -> None:
        """Put all that auth says in force; what it says no more of ends by itself, or is no ban any more."""
        before = self._watchers.revoked
        instances = {InstanceId(one.instance): one.until_ms for one in told.instances}
        revoked = before.joined(instances, self._membership.clock.now_ms())
        if revoked is not before:
            log.info("%d instances are revoked", len(revoked))
            # First what would let them in again: their own streams end, and no call of theirs begins.
            self._membership.revoke(revoked)
            self._server.recheck()
        self._watchers.revoke(revoked, frozenset(told.banned))
