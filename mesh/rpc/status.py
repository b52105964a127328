"""The mesh's own errors as gRPC statuses with ``google.rpc.Status`` details, and back.

Every reason has one code, one text and says what to do. A caller learns the reason and a correlation id;
the true cause stays with the node that found it (``Membership.rejected``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from mesh.core.errors import Reason
from mesh.core.metadata import Entries, Value

DETAILS: Final = "grpc-status-details-bin"
DOMAIN: Final = "mesh"

_C = grpc.StatusCode
CODES: Final = {
    Reason.SEAL_REJECTED: _C.UNAUTHENTICATED,
    Reason.STALE_PEER: _C.UNAVAILABLE,
    Reason.POLICY_DENIED: _C.PERMISSION_DENIED,
    Reason.NAME_UNAVAILABLE: _C.NOT_FOUND,
    Reason.NOT_READY: _C.UNAVAILABLE,
    Reason.BAD_REQUEST: _C.INVALID_ARGUMENT,
    Reason.REVOKED: _C.PERMISSION_DENIED,
    Reason.PEER_REVOKED: _C.UNAVAILABLE,
    Reason.OVERLOADED: _C.RESOURCE_EXHAUSTED,
    Reason.RATE_LIMITED: _C.RESOURCE_EXHAUSTED,
    Reason.UNSEALED: _C.INTERNAL,
    Reason.FAULT: _C.UNAVAILABLE,
}
TEXTS: Final = {
    Reason.SEAL_REJECTED: "the seal of this call was rejected: ask the destination's operator about the id",
    Reason.STALE_PEER: "the destination restarted or rolled its keys: try again",
    Reason.POLICY_DENIED: "policy does not let this service make this call: ask for a rule that allows it",
    Reason.NAME_UNAVAILABLE: "no service of this name may be called from here: check the name and the policy",
    Reason.NOT_READY: "the mesh is not ready for this call: try again",
    Reason.BAD_REQUEST: "the mesh cannot carry this call",
    Reason.REVOKED: "this caller was revoked: it has to join again, with a new token",
    Reason.PEER_REVOKED: "the instance that this call went to was revoked: try again at another",
    Reason.OVERLOADED: "too many calls of this node are open there: make fewer at once, or try later",
    Reason.RATE_LIMITED: "this caller makes more calls than the destination takes: make fewer, or try later",
    Reason.UNSEALED: "the reply did not carry its seal and was not believed",
    Reason.FAULT: "a fault on purpose: the policy ends some of these calls, and this one was never made",
}
#: What a node may say without a seal, because it had to refuse before it could trust the call.
UNSEALED_REASONS: Final = frozenset({Reason.SEAL_REJECTED, Reason.STALE_PEER, Reason.NOT_READY})
_ID = re.compile(r"[0-9a-f]{16}")
_REASONS: Final = frozenset(Reason)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended, as its application sees it."""

    code: grpc.StatusCode
    details: str
    initial: Entries = ()
    trailing: Entries = ()
    pushback: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the status is OK."""
        return self.code is _C.OK

    def error(self) -> grpc.aio.AioRpcError:
        """Give the exception that gRPC's users catch."""
        return grpc.aio.AioRpcError(
            self.code,
            grpc.aio.Metadata(*self.initial),
            grpc.aio.Metadata(*self.trailing),
            details=self.details,
        )


class CallFailedError(Exception):
    """A call ended before it reached the wire, or its reply was not believed."""

    def __init__(self, outcome: Outcome) -> None:
        """Take what the application is told."""
        super().__init__(outcome.details)
        self.outcome = outcome


def mesh_outcome(
    reason: Reason,
    detail: str = "",
    call_id: str = "",
    retry_after: float = 0.0,
    code: grpc.StatusCode | None = None,
) -> Outcome:
    """Give the status of a reason, with ``detail`` (for people) and correlation id where there are any.

    ``retry_after``: in how many seconds it is worth trying again, where that is known. ``code``: another
    than the reason has, where policy says which.
    """
    text = TEXTS[reason] + (f" ({detail})" if detail else "") + (f" [id {call_id}]" if call_id else "")
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    if call_id:
        info.metadata["call_id"] = call_id
    details: list[Message] = [info]
    if retry_after:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(math.ceil(retry_after * 1e9))
        details.append(retry)
    code = code or CODES[reason]
    status = status_pb2.Status(code=code.value[0], message=text)
    for one in details:
        status.details.add().Pack(one)
    return Outcome(code, text, trailing=((DETAILS, status.SerializeToString()),))


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Give ``<domain>/<reason>`` of an error's ``ErrorInfo``, such as ``mesh/POLICY_DENIED``; or nothing."""
    info = _info(error.trailing_metadata() or ())
    return f"{info.domain}/{info.reason}" if info else ""


def mesh_info(trailing: Iterable[tuple[str, Value]]) -> tuple[str, str]:
    """Give the reason and the call id of an error in the mesh's name; nothing for what is none of its own."""
    info = _info(trailing)
    if info is None or info.domain != DOMAIN or info.reason not in _REASONS:
        return "", ""
    call_id = info.metadata.get("call_id", "")
    return info.reason, call_id if _ID.fullmatch(call_id) else ""


def _info(trailing: Iterable[tuple[str, Value]]) -> error_details_pb2.ErrorInfo | None:
    info = error_details_pb2.ErrorInfo()
    for key, value in trailing:
        if key == DETAILS and isinstance(value, bytes):
            try:
                if any(detail.Unpack(info) for detail in status_pb2.Status.FromString(value).details):
                    return info
            except DecodeError:
                return None
    return None


def unsealed_reason(trailing: Entries) -> tuple[Reason, str] | None:
    """Read the reason and id of an unsealed mesh error; ``None`` if it is not one that may go unsealed."""
    for key, value in trailing:
        if key == DETAILS and isinstance(value, bytes):
            return _reason(value)
    return None


def _reason(value: bytes) -> tuple[Reason, str] | None:
    info = error_details_pb2.ErrorInfo()
    try:
        status = status_pb2.Status.FromString(value)
        if len(status.details) != 1 or not status.details[0].Unpack(info):
            return None
        reason = Reason(info.reason)
    except (DecodeError, ValueError):
        return None
    call_id = info.metadata.get("call_id", "")
    if info.domain != DOMAIN or reason not in UNSEALED_REASONS:
        return None
    return reason, call_id if _ID.fullmatch(call_id) else ""
