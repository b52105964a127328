"""Sealmesh: a zero-trust mesh for gRPC services.

For applications::

    async with mesh.join("orders") as node:
        stub = InventoryStub(node.channel("inventory"))     # a grpc.aio.Channel
        server = node.server()                               # a grpc.aio.Server

The map: ``mesh.core`` is the protocol, pure; ``mesh.rpc`` puts it around ``grpc.aio``; ``mesh.enrol`` and
``mesh.slices`` keep identity and policy in force; ``mesh.node`` is their sum. ``mesh.v1`` is generated from
``protos/``; ``mesh.cli`` is the command. The services behind it are in ``services/``, the sidecar in
``sidecar/``.
"""

from mesh.core.errors import Denied, MeshError, PeerError
from mesh.core.receiver import Peer
from mesh.enrol import JoinError
from mesh.node import Node, join
from mesh.rpc.context import peer

__all__ = ["Denied", "JoinError", "MeshError", "Node", "Peer", "PeerError", "join", "peer"]
