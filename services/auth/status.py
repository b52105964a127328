"""Auth's errors as gRPC statuses. What is wrong inside auth is told to its log, not to the asker."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc

from services.auth.errors import (
    AuditError,
    AuthError,
    ConflictError,
    InvalidError,
    LimitedError,
    MissingError,
    RefusedError,
)

log = logging.getLogger("mesh.auth")

_CODES: Final = {
    RefusedError: grpc.StatusCode.PERMISSION_DENIED,
    LimitedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    InvalidError: grpc.StatusCode.INVALID_ARGUMENT,
    ConflictError: grpc.StatusCode.FAILED_PRECONDITION,
    MissingError: grpc.StatusCode.NOT_FOUND,
    AuditError: grpc.StatusCode.FAILED_PRECONDITION,
}


@asynccontextmanager
async def answering(context: Any) -> AsyncIterator[None]:
    """End the call with the status of an ``AuthError`` raised within."""
    try:
        yield
    except AuthError as error:
        code = _CODES.get(type(error))
        if code is None:
            log.error("cannot answer: %s", error)  # noqa: TRY400  the line says it all
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "auth cannot answer now: see its log, then try again"
            )
        await context.abort(code, str(error))
