"""Every name that leaves the mesh in telemetry: the semantic conventions', then the mesh's own.

RPC names are those of the OpenTelemetry semantic conventions at ``SCHEMA_URL`` (``docs/rpc/grpc.md``
there). Names that begin with ``mesh.`` are the mesh's; docs/telemetry.md says what each of them means.
"""

from __future__ import annotations

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
#: The instrumentation scope of all that the mesh tells.
SCOPE: Final = "sealmesh"

# Attributes of the conventions.
RPC_SYSTEM: Final = "rpc.system.name"
GRPC: Final = "grpc"
RPC_METHOD: Final = "rpc.method"
RPC_METHOD_ORIGINAL: Final = "rpc.method_original"
RPC_STATUS: Final = "rpc.response.status_code"
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
PEER_ADDRESS: Final = "network.peer.address"
PEER_PORT: Final = "network.peer.port"
SERVICE_NAME: Final = "service.name"
SERVICE_INSTANCE: Final = "service.instance.id"
SERVICE_NAMESPACE: Final = "service.namespace"
#: What a method, or a peer, is called that is one too many to be told apart.
OTHER: Final = "_OTHER"

# Attributes of the mesh.
SERVICE: Final = "mesh.service"
SOURCE: Final = "mesh.source"
SOURCE_INSTANCE: Final = "mesh.source.instance"
DESTINATION: Final = "mesh.destination"
DESTINATION_INSTANCE: Final = "mesh.destination.instance"
VERDICT: Final = "mesh.verdict"
RULE: Final = "mesh.rule"
REASON: Final = "mesh.reason"
CAUSE: Final = "mesh.cause"
AUDITED_RULE: Final = "mesh.audited_rule"
CALL_ID: Final = "mesh.call.id"
EPOCH: Final = "mesh.key.epoch"
SEQUENCE: Final = "mesh.sequence"
ATTEMPTS: Final = "mesh.attempts"
#: What policy has done to a call on purpose: delay or abort. Also the event of it in a call's span.
FAULT: Final = "mesh.fault"
POLICY_VERSION: Final = "mesh.policy.version"
SIDE: Final = "mesh.side"

# Values of mesh.verdict.
PERMIT: Final = "permit"
DENY: Final = "deny"
REJECT: Final = "reject"

# Values of mesh.cause where instances are left out.
UNREACHABLE: Final = "unreachable"
FAILING: Final = "failing"

# Metrics of the conventions.
SERVER_DURATION: Final = "rpc.server.call.duration"
CLIENT_DURATION: Final = "rpc.client.call.duration"

# Metrics of the mesh.
VERDICTS: Final = "mesh.verdicts"
SEALS_REJECTED: Final = "mesh.seals.rejected"
REPLAYS: Final = "mesh.replays"
RETRIES: Final = "mesh.retries"
HEDGES: Final = "mesh.hedges"
FAULTS: Final = "mesh.faults"
CALLS_OPEN: Final = "mesh.calls.open"
KEY_AGE: Final = "mesh.key.age"
CERTIFICATE_AGE: Final = "mesh.certificate.age"
CERTIFICATE_LEFT: Final = "mesh.certificate.remaining"
SLICE_AGE: Final = "mesh.slice.age"
SLICE_VERSION: Final = "mesh.slice.version"
ENDPOINTS: Final = "mesh.endpoints"
EJECTIONS: Final = "mesh.ejections"
OVERLOADS: Final = "mesh.overloads"
LIMITED: Final = "mesh.limited"
LUA_KILLS: Final = "mesh.lua.kills"

# Events in the spans of calls: an attempt that is not the first.
RETRY: Final = "mesh.retry"
HEDGE: Final = "mesh.hedge"

# Spans of the mesh, beside those of calls.
JOIN: Final = "mesh.join"
RENEW: Final = "mesh.renew"
APPLY: Final = "mesh.policy.apply"
PUSH: Final = "mesh.policy.push"
LUA_RUN: Final = "mesh.lua.run"
