"""What an Envoy asks, read into what policy judges; verdicts, written as Envoy takes them. Pure.

The caller is the URI SAN that Envoy verified in the certificate of its own client (``source.principal``),
which has to be exactly one service of this trust domain. A header is never believed about it:
``x-forwarded-client-cert`` and ``mesh-peer`` are what the client says, unless the proxy is configured to
drop them, which cannot be seen here.

Read is a gRPC call and nothing else: POST, a content type of gRPC, headers that gRPC can send. The path is
judged as it came; what is no method is denied by the matcher, a query string with it. Whatever cannot be
read is ``UnfitError`` and denied like any other call.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import grpc

from mesh.core.metadata import PEER, PREFIX, Entries, application_entries, sendable
from mesh.core.names import Identity
from mesh.extauthz.v1 import check_pb2
from mesh.rpc.status import Outcome
from services.gatekeeper.judging import MAX_HEADERS

#: "gRPC over HTTP2", Content-Type: with a subtype or without. application/grpc-web is another protocol.
_GRPC: Final = re.compile(rb"application/grpc(?:[+;].*)?")
_HTTP: Final = {
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}
_OVERWRITE: Final = check_pb2.HEADER_APPEND_ACTION_OVERWRITE_IF_EXISTS_OR_ADD


class UnfitError(ValueError):
    """A request that no rule can be asked about; the message says why, to operators."""


@dataclass(frozen=True, slots=True)
class Question:
    """A call to be judged, and the headers that only the mesh may set and the client has set."""

    caller: Identity
    method: str
    entries: Entries
    forged: tuple[str, ...]


def read(request: check_pb2.CheckRequest, asking: Identity) -> Question:
    """Read a question about a call to the service that asks; raise ``UnfitError``."""
    attributes = request.attributes
    http = attributes.request.http
    if attributes.destination.principal not in ("", asking.uri):
        raise UnfitError("the proxy shows its clients another certificate than gatekeeper")
    caller = _caller(attributes.source.principal, asking)
    headers = _headers(http)
    if http.method != "POST" or not _is_grpc(headers):
        raise UnfitError("not a call of grpc")
    entries = application_entries(headers)
    if not sendable(entries):
        raise UnfitError("headers that grpc cannot send")
    forged = sorted({key for key, _ in headers if key.startswith(PREFIX) and key != PEER})
    return Question(caller, http.path, entries, tuple(forged))


def told(request: check_pb2.CheckRequest, asking: Identity) -> str:
    """Say whom the proxy names as the caller, for a record: a service of ours by its name alone."""
    principal = request.attributes.source.principal
    # What is no URI must not look like a name: it may be a DNS name of some certificate.
    text = principal if "://" in principal else f"no uri: {principal}"
    return text.removeprefix(f"spiffe://{asking.domain}/")


def permitted(question: Question) -> check_pb2.CheckResponse:
    """Forward the call, with the verified caller in the place of whatever the client said of itself."""
    # Envoy removes after it sets, so the key that is set must not be among those removed.
    changes = check_pb2.OkHttpResponse(
        headers=[_header(PEER, question.caller.uri)], headers_to_remove=question.forged
    )
    return check_pb2.CheckResponse(status=check_pb2.Status(), ok_response=changes)


def refused(outcome: Outcome) -> check_pb2.CheckResponse:
    """Refuse the call, so that a gRPC client gets code, text and details as from a node."""
    # HTTP/2 carries binary metadata as base64 without padding ("gRPC over HTTP2", Custom-Metadata).
    details = [
        _header(key, base64.b64encode(value).decode().rstrip("="))
        for key, value in outcome.trailing
        if isinstance(value, bytes)
    ]
    reply = check_pb2.DeniedHttpResponse(
        status=check_pb2.HttpStatus(code=_HTTP[outcome.code]), headers=details, body=outcome.details
    )
    status = check_pb2.Status(code=outcome.code.value[0], message=outcome.details)
    return check_pb2.CheckResponse(status=status, denied_response=reply)


def _caller(principal: str, asking: Identity) -> Identity:
    try:
        caller = Identity.parse(principal)
    except ValueError:
        raise UnfitError("the proxy verified no caller with an identity of this mesh") from None
    if caller.domain != asking.domain:
        raise UnfitError("the caller is of another trust domain")
    return caller


def _headers(http: check_pb2.HttpRequest) -> Entries:
    if len(http.header_map.headers) + len(http.headers) > MAX_HEADERS:
        raise UnfitError("more headers than a call can have")
    if http.HasField("header_map"):
        pairs = [(one.key, one.raw_value or one.value.encode()) for one in http.header_map.headers]
    else:
        pairs = [(key, value.encode()) for key, value in http.headers.items()]
        # Joined by Envoy or sent so? As one value it could slip past a rule that either of two would meet.
        if any(b"," in value for _, value in application_entries(pairs) if isinstance(value, bytes)):
            raise UnfitError("a header with a comma: set encode_raw_headers in envoy's filter")
    return tuple((key, value) for key, value in pairs if not key.startswith(":"))


def _is_grpc(headers: Entries) -> bool:
    found = [value for key, value in headers if key == "content-type" and isinstance(value, bytes)]
    return len(found) == 1 and _GRPC.fullmatch(found[0]) is not None


def _header(key: str, value: str) -> check_pb2.HeaderValueOption:
    return check_pb2.HeaderValueOption(
        header=check_pb2.HeaderValue(key=key, value=value), append_action=_OVERWRITE
    )
