"""A call as ``mesh.rpc`` tells of it, without a network."""

import grpc

from mesh.core.names import FullMethod, ServiceName
from mesh.rpc.status import Outcome
from mesh.telemetry.observer import NodeTelemetry


def called(node: NodeTelemetry) -> None:
    """Have a node call somebody, and be answered."""
    call = node.calling(ServiceName("callee"), FullMethod("/a.B/C"), ())
    call.ended(Outcome(grpc.StatusCode.OK, ""))
