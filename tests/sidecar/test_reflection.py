"""gRPC's reflection is a method like any other: it passes if policy allows, and tells nobody else a thing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.rpc.app import Echo
from tests.rpc.pair import World
from tests.sidecar.beside import Beside

INFO = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
#: ``list_services: "*"``, and the answer that names ``test.v1.Echo``.
LIST = b"\x3a\x01*"
LISTED = b"\x12\x03\x3a\x01*\x32\x10\x0a\x0e\x0a\x0ctest.v1.Echo"
RULES = b'{"allow":[{"principals":["caller"],"paths":["/grpc.reflection.v1.ServerReflection/*"]}]}'
OTHERS = b'{"allow":[{"principals":["caller"],"paths":["/test.v1.Echo/*"]}]}'


class Reflecting(Echo):
    """Tells what it serves."""

    asked = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Serve reflection as well."""
        if details.method == INFO:
            return grpc.stream_stream_rpc_method_handler(self.info)
        return super().service(details)

    async def info(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        """Answer each question."""
        async for request in requests:
            self.asked += 1
            assert request == LIST
            yield LISTED


@pytest.mark.parametrize("way", ["socket", "port"])
async def test_reflection_passes_if_policy_allows(tmp_path: Any, way: str) -> None:
    """Question after question, in one stream."""
    app = Reflecting()
    beside = Beside(World(), tmp_path, app)
    await beside.start()
    try:
        beside.callee.know({}, RULES)
        metadata = () if way == "socket" else (("mesh-to", "callee"),)
        call: Any = beside.channel(way).stream_stream(INFO)(metadata=metadata)
        for _ in range(3):
            await call.write(LIST)
            assert await call.read() == LISTED
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
        beside.callee.know({}, OTHERS)
        denied: Any = beside.channel(way).stream_stream(INFO)(iter([LIST]), metadata=metadata)
        assert await denied.code() is grpc.StatusCode.PERMISSION_DENIED
        assert app.asked == 3
    finally:
        await beside.close()
