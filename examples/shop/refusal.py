"""How the shop's services say no: a status with ``google.rpc.Status`` details, made here or passed on."""

from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "shop.example"
DETAILS = "grpc-status-details-bin"


async def refuse(
    context: grpc.aio.ServicerContext[Any, Any],
    code: grpc.StatusCode,
    reason: str,
    text: str,
    *trailing: tuple[str, str],
) -> NoReturn:
    """End the call with ``code`` and an ``ErrorInfo`` of ``reason``, and ``trailing`` metadata."""
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    status = status_pb2.Status(code=code.value[0], message=text, details=[packed])
    await context.abort(code, text, (*trailing, (DETAILS, status.SerializeToString())))


async def pass_on(context: grpc.aio.ServicerContext[Any, Any], error: grpc.aio.AioRpcError) -> NoReturn:
    """End the call as the one that it depended on ended: code, text, details and trailing metadata."""
    await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Give the domain and reason of an error's ``ErrorInfo``, such as ``mesh/POLICY_DENIED``; or nothing."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS and isinstance(value, bytes):
            info = error_details_pb2.ErrorInfo()
            if any(detail.Unpack(info) for detail in status_pb2.Status.FromString(value).details):
                return f"{info.domain}/{info.reason}"
    return ""
