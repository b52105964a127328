"""A ``grpc.aio.Server`` for generated servicers: mTLS outside, every call admitted before it is dispatched.

The ``listener`` lasts, and its certificate rolls. ``Hello`` is the one method answered without a seal.
Handlers are coroutines or async generators; synchronous ones are refused, because they would stop the loop
that everything else runs on.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import grpc

from mesh.core.names import FullMethod
from mesh.rpc.admission import Admission
from mesh.rpc.connections import MAX_MESSAGE, MAX_METADATA, SLACK
from mesh.rpc.inbound import Inbound
from mesh.rpc.listener import Listener
from mesh.rpc.membership import Membership
from mesh.rpc.open_calls import OpenCalls
from mesh.v1 import wire_pb2

HELLO: Final = "/mesh.v1.NodeService/Hello"
_KINDS: Final = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
#: How protoc ends the names of modules with servicers, whose own methods answer UNIMPLEMENTED.
_GENERATED: Final = "_pb2_grpc"
#: A sidecar serves every method there is, so what is remembered of them has a bound.
_MAX_METHODS: Final = 4096
_OPTIONS: Final = (
    ("grpc.max_concurrent_streams", 1000),
    ("grpc.max_metadata_size", MAX_METADATA),
    ("grpc.max_send_message_length", -1),
)


class MeshServer(grpc.aio.Server):
    """Serves sealed calls to one node. ``max_receive``: largest request an application takes; -1: any."""

    def __init__(
        self,
        membership: Membership,
        address: str,
        *,
        max_receive: int = MAX_MESSAGE,
        limits: Mapping[str, int] = MappingProxyType({}),
        options: Sequence[tuple[str, int]] = (),
        on_serving: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """Make a server that will listen on ``host:port`` (port 0: any). Raises ``OSError`` if it is in use.

        ``limits`` is the largest request of methods, by full name, that take more or less than
        ``max_receive``; ``options`` are the transport's. ``on_serving`` is told when calls begin and when
        they are no longer welcome.
        """
        self._membership, self._max_receive, self._limits = membership, max_receive, limits
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self.open_calls = OpenCalls()
        self._judging: asyncio.Task[None] | None = None
        self._on_serving = on_serving
        self.serving = False
        largest = (max_receive, *limits.values())
        limit = max(largest) + SLACK if min(largest) >= 0 else -1
        sizes = ("grpc.max_receive_message_length", limit)
        self._listener = Listener(membership, address, _Dispatch(self), (*_OPTIONS, *options, sizes))
        self.port = self._listener.port

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Take handlers, as generated code gives them."""
        self._handlers.extend(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Take a service's handlers; raise ``ValueError`` for a synchronous one."""
        for method, handler in method_handlers.items():
            _check(f"/{service_name}/{method}", handler)

    def add_insecure_port(self, address: str) -> int:
        """Refuse: a node never listens without TLS."""
        msg = f"not on {address}: a node listens with mTLS only, on the address given to mesh.join"
        raise RuntimeError(msg)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:  # noqa: ARG002
        """Refuse: the node's certificate is the mesh's."""
        return self.add_insecure_port(address)

    async def start(self) -> None:
        """Begin to take calls."""
        await self._listener.start()
        self._judging = asyncio.create_task(self.open_calls.keep())
        self.serving = True
        self._on_serving(True)

    async def stop(self, grace: float | None) -> None:
        """Take no more calls; give those in progress ``grace`` seconds."""
        self.serving = False
        self._on_serving(False)
        await self._listener.stop(grace)
        if self._judging is not None:
            self._judging.cancel()
            await asyncio.wait((self._judging,))

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  gRPC's own
        """Wait until the server has stopped; True if the time-out came first."""
        return await self._listener.wait_for_termination(timeout)

    def recheck(self) -> None:
        """Have every call in progress judged again, under the policy now in force; end those it forbids."""
        self.open_calls.recall()

    def find(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Give the handler that admits calls to a method, then dispatches them to the application's."""
        known = self._methods.get(details.method)
        if known is None:
            known, served = self._wrap(details)
            if served and len(self._methods) < _MAX_METHODS:
                self._methods[details.method] = known
        return known

    def _wrap(self, details: grpc.HandlerCallDetails) -> tuple[grpc.RpcMethodHandler[Any, Any], bool]:
        found = (handler.service(details) for handler in self._handlers)
        handler = next((one for one in found if one is not None), None)
        if handler is not None:
            _check(details.method, handler)
        limit = self._limits.get(details.method, self._max_receive)
        warden = self._listener.warden
        alone = handler is not None and not handler.request_streaming
        admission = Admission(self._membership, details.method, warden, alone)
        inbound = Inbound(
            self._membership, details.method, admission, handler, limit, self.open_calls, warden
        )
        if handler is not None and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(inbound.stream), True
        return grpc.stream_unary_rpc_method_handler(inbound.unary), handler is not None

    async def hello(self, _request: bytes, _context: Any) -> bytes:
        """Say who this is."""
        answer = wire_pb2.HelloResponse(
            instance=self._membership.instance.raw, service=self._membership.name.text
        )
        return answer.SerializeToString()


class _Dispatch(grpc.GenericRpcHandler):
    def __init__(self, server: MeshServer) -> None:
        self._server = server
        self._hello: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(server.hello)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        if handler_call_details.method == HELLO:
            return self._hello
        return self._server.find(handler_call_details)


def _check(method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> None:
    behaviour = next(found for kind in _KINDS if (found := getattr(handler, kind, None)))
    while isinstance(behaviour, partial):
        behaviour = behaviour.func
    behaviour = inspect.unwrap(behaviour)
    call = behaviour if inspect.isroutine(behaviour) else type(behaviour).__call__
    if call.__module__.endswith(_GENERATED):
        return  # a method that the application has left out: it says so at once, and stops nothing
    if not (inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)):
        msg = f"the handler of {FullMethod(method)} is synchronous: write it with async def"
        raise ValueError(msg)
