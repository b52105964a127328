"""Strangers at every port: none gets anywhere, and none stops the process behind it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio

import mesh as sealmesh
from mesh.core.names import Identity, ServiceName
from mesh.rpc.membership import Membership
from mesh.v1 import auth_pb2, auth_pb2_grpc, gatekeeper_pb2, gatekeeper_pb2_grpc
from tests.e2e.echo import Echo, ask, reason, works
from tests.e2e.world import HOST, TIMEOUT, Mesh, SidecarProcess, appears

pytestmark = pytest.mark.asyncio(loop_scope="session")

_C = grpc.StatusCode
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Whatever gRPC makes of a peer that does not talk to it.
NOWHERE: Final = {_C.UNAVAILABLE, _C.INTERNAL, _C.UNKNOWN, _C.CANCELLED, _C.DEADLINE_EXCEEDED}


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Give an HTTP/2 frame (RFC 9113 section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """Give a block of literal headers without indexing (RFC 7541 section 6.2.2), each shorter than 127."""
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"), *more]
    return b"".join(b"\0" + bytes([len(k)]) + k + bytes([len(v)]) + v for k, v in fields)


GRPC: Final = ((b"te", b"trailers"), (b"content-type", b"application/grpc"))
METHODS: Final = (
    b"/",
    b"",
    b"//",
    b"x",
    b"/a/../b",
    b"/A.B/C%2FD",
    b"/A.B/C?d",
    b"http://a/A.B/C",
    b"/A.B/C\0",
    b"*",
)
#: What a stranger sends at once after connecting.
GARBAGE: Final = {
    "nothing": b"",
    "noise": os.urandom(4096),
    "zeroes": bytes(4096),
    "http/1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "half a preface": PREFACE[:10],
    "preface and noise": PREFACE + os.urandom(4096),
    "no settings": PREFACE + frame(1, 4, 1, headers(b"/a.B/C", *GRPC)),
    "frame too large": PREFACE + frame(4, 0, 0) + b"\xff\xff\xff\0\0\0\0\0\1" + bytes(70_000),
    "even stream": PREFACE + frame(4, 0, 0) + frame(1, 4, 2, headers(b"/a.B/C", *GRPC)),
    "bad hpack": PREFACE + frame(4, 0, 0) + frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff"),
    "not grpc": PREFACE + frame(4, 0, 0) + frame(1, 5, 1, headers(b"/a.B/C")),
    "continuation for ever": PREFACE + frame(4, 0, 0) + frame(1, 0, 1) + frame(9, 0, 1, b"\0\1a\1b") * 2000,
    "pings": PREFACE + frame(4, 0, 0) + frame(6, 0, 0, bytes(8)) * 2000,
    "resets": PREFACE
    + frame(4, 0, 0)
    + b"".join(
        frame(1, 4, n, headers(b"/a.B/C", *GRPC)) + frame(3, 0, n, bytes(4)) for n in range(1, 801, 2)
    ),
    "methods": PREFACE
    + frame(4, 0, 0)
    + b"".join(frame(1, 5, 2 * n + 1, headers(path, *GRPC)) for n, path in enumerate(METHODS)),
    "half a message": PREFACE
    + frame(4, 0, 0)
    + frame(1, 4, 1, headers(b"/mesh.v1.JoinService/Join", *GRPC))
    + frame(0, 1, 1, b"\0\0\0\1\0short"),
    "huge message": PREFACE
    + frame(4, 0, 0)
    + frame(1, 4, 1, headers(b"/mesh.v1.JoinService/Join", *GRPC))
    + frame(0, 0, 1, b"\0\x7f\xff\xff\xff" + bytes(1000)),
    "garbage message": PREFACE
    + frame(4, 0, 0)
    + frame(1, 4, 1, headers(b"/mesh.v1.JoinService/Join", *GRPC))
    + frame(0, 1, 1, b"\0\0\0\0\x08" + b"\xff" * 8),
}


@dataclass(frozen=True, slots=True)
class Ports:
    """Every port there is, and a node's way into the mesh."""

    mesh: Mesh
    caller: sealmesh.Node
    callee: sealmesh.Node
    front: SidecarProcess

    def plain(self) -> list[str]:
        """Those without TLS."""
        return [self.mesh.join_address, self.front.outbound]

    def mutual(self) -> list[str]:
        """Those with mTLS: auth, gatekeeper, an embedded node, a sidecar."""
        return [
            self.mesh.auth_address,
            self.mesh.gatekeeper_address,
            f"{HOST}:{self.callee.server().port}",
            f"{HOST}:{self.front.inbound_port}",
        ]

    async def serve_on(self) -> None:
        """See that everything behind every port still does its work."""
        await works(ask(self.caller.channel("callee")))
        await works(ask(self.caller.channel("front")))
        async with self.front.port() as port:
            await works(ask(port, to="callee"))
        async with self.mesh.node("callee") as new:
            await new.ready()
        for process in (self.mesh.auth, self.mesh.gatekeeper, self.front.process):
            assert process.running
            assert "Traceback" not in process.log, process.log


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ports(shared: Mesh) -> AsyncIterator[Ports]:
    """Run a node and a sidecar, each calling the other."""
    async with AsyncExitStack() as stack:
        caller = await stack.enter_async_context(shared.node("caller"))
        callee = await stack.enter_async_context(shared.node("callee"))
        callee.server().add_generic_rpc_handlers((Echo(),))
        await callee.server().start()
        app = grpc.aio.server()
        app.add_generic_rpc_handlers((Echo(),))
        port = app.add_insecure_port(f"{HOST}:0")
        await app.start()
        stack.push_async_callback(app.stop, 0)
        front = await shared.sidecar("front", "--app-port", str(port))
        stack.push_async_callback(front.process.stop)
        await appears(front.socket("callee"))
        yield Ports(shared, caller, callee, front)


async def throw(address: str, sent: bytes, tls: ssl.SSLContext | None = None) -> None:
    """Connect, send, and read until the other end has had enough or has nothing more to say."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
    try:
        writer.write(sent)
        if tls is None:
            writer.write_eof()
        async with asyncio.timeout(2):
            while await reader.read(65536):
                pass
    except (OSError, TimeoutError):
        pass
    finally:
        writer.transport.abort()


def client(membership: Membership, directory: Mesh) -> ssl.SSLContext:
    """Give the TLS of a member, who then talks nonsense inside."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    both = directory.root / "member.pem"
    both.write_bytes(membership.svid.key_pem + membership.svid.chain_pem)
    context.load_cert_chain(both)
    both.unlink()
    return context


async def test_garbage_at_every_port(ports: Ports) -> None:
    """Noise and broken HTTP/2, in the open and inside a member's TLS, stop nothing."""
    tls = client(ports.caller.membership, ports.mesh)
    plain, mutual = ports.plain(), ports.mutual()
    open_ = [throw(address, sent) for sent in GARBAGE.values() for address in (*plain, *mutual)]
    inside = [throw(address, sent, tls) for sent in GARBAGE.values() for address in mutual]
    await asyncio.gather(*open_, *inside)
    await ports.serve_on()


async def test_connections_that_say_nothing(ports: Ports) -> None:
    """A hundred connections left open at each port keep nobody else out."""
    with Silence() as open_:
        for address in (*ports.plain(), *ports.mutual()):
            for _ in range(100):
                open_(address)
        await ports.serve_on()


class Silence:
    """Sockets that stay open for the length of a block."""

    def __enter__(self) -> Callable[[str], None]:
        """Give what opens one."""
        self._open: list[socket.socket] = []

        def connect(address: str) -> None:
            host, port = address.split(":")
            self._open.append(socket.create_connection((host, int(port))))

        return connect

    def __exit__(self, *_: object) -> None:
        """Close all."""
        for one in self._open:
            one.close()


async def test_a_client_without_a_certificate_gets_nowhere(ports: Ports) -> None:
    """An ordinary gRPC client, with TLS or without, reaches no method behind mTLS."""
    svid = ports.caller.membership.svid
    domain = ports.caller.identity.domain
    for address, name in zip(
        ports.mutual(), ("mesh.auth", "mesh.gatekeeper", "callee", "front"), strict=True
    ):
        override = ("grpc.ssl_target_name_override", Identity(domain, ServiceName(name)).dns)
        trusting = grpc.ssl_channel_credentials(svid.bundle_pem)
        for channel in (
            grpc.aio.insecure_channel(address),
            grpc.aio.secure_channel(address, trusting, (override,)),
        ):
            async with channel:
                for method in (
                    "/mesh.v1.NodeService/Hello",
                    "/test.v1.Echo/Unary",
                    "/mesh.v1.AuthService/Renew",
                ):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await raw(channel, method)
                    assert caught.value.code() in NOWHERE


async def raw(channel: grpc.aio.Channel, method: str, metadata: Any = ()) -> bytes:
    """Make a call with nothing in it."""
    call: Any = channel.unary_unary(method)
    reply: bytes = await call(b"", metadata=metadata, timeout=TIMEOUT)
    return reply


def member_channel(ports: Ports, address: str, name: str) -> grpc.aio.Channel:
    """Give a channel of a member who shows its certificate, and seals nothing."""
    override = (
        "grpc.ssl_target_name_override",
        Identity(ports.caller.identity.domain, ServiceName(name)).dns,
    )
    return grpc.aio.secure_channel(address, ports.caller.membership.svid.channel_credentials(), (override,))


async def test_a_member_without_a_seal_gets_nowhere(ports: Ports) -> None:
    """With a certificate and no seal every method but Hello is refused, with one reason for all."""
    for address, name in zip(
        ports.mutual(), ("mesh.auth", "mesh.gatekeeper", "callee", "front"), strict=True
    ):
        async with member_channel(ports, address, name) as channel:
            await raw(channel, "/mesh.v1.NodeService/Hello")
            for method in (
                "/test.v1.Echo/Unary",
                "/mesh.v1.AuthService/Renew",
                "/mesh.v1.OperatorService/CreateToken",
                "/mesh.v1.JoinService/Join",
                "/mesh.v1.GatekeeperService/Watch",
                "/no.Such/Method",
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await raw(channel, method)
                assert reason(caught.value) == "SEAL_REJECTED"


async def test_each_service_is_at_its_own_port_alone(ports: Ports) -> None:
    """The join port serves Join and nothing else; the mTLS port of auth does not serve Join."""
    async with grpc.aio.insecure_channel(ports.mesh.join_address) as channel:
        for method in (
            "/mesh.v1.AuthService/Renew",
            "/mesh.v1.AuthService/GetPairKeys",
            "/mesh.v1.OperatorService/CreateToken",
            "/mesh.v1.NodeService/Hello",
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw(channel, method)
            assert caught.value.code() is _C.UNIMPLEMENTED
    sealed = auth_pb2_grpc.JoinServiceStub(ports.caller.channel("mesh.auth"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sealed.Join(auth_pb2.JoinRequest(), timeout=TIMEOUT)
    assert caught.value.code() in {_C.PERMISSION_DENIED, _C.UNIMPLEMENTED}


async def test_operator_calls_are_the_operators_alone(ports: Ports) -> None:
    """A node that seals an operator's call as itself is denied it, each of them, and so is a gatekeeper's."""
    auth = ports.caller.channel("mesh.auth")
    operator = auth_pb2_grpc.OperatorServiceStub(auth)
    gatekeeper = gatekeeper_pb2_grpc.GatekeeperServiceStub(ports.caller.channel("mesh.gatekeeper"))
    before = await ports.mesh.policy()
    for call in (
        lambda: operator.CreateToken(auth_pb2.CreateTokenRequest(service="x"), timeout=TIMEOUT),
        lambda: operator.ListTokens(auth_pb2.ListTokensRequest(), timeout=TIMEOUT),
        lambda: operator.RevokeToken(auth_pb2.RevokeTokenRequest(id="0" * 16), timeout=TIMEOUT),
        lambda: operator.ApplyPolicy(
            auth_pb2.ApplyPolicyRequest(document=b'{"services": {}}'), timeout=TIMEOUT
        ),
        lambda: operator.GetPolicy(auth_pb2.GetPolicyRequest(), timeout=TIMEOUT),
        lambda: operator.GetAuthStatus(auth_pb2.GetAuthStatusRequest(), timeout=TIMEOUT),
        lambda: gatekeeper.ListNodes(gatekeeper_pb2.ListNodesRequest(), timeout=TIMEOUT),
        lambda: auth_pb2_grpc.AuthServiceStub(auth).WatchPolicy(auth_pb2.WatchPolicyRequest()).read(),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call()
        assert reason(caught.value) == "POLICY_DENIED"
    assert await ports.mesh.policy() == before


async def test_mesh_metadata_from_an_application_is_refused(ports: Ports) -> None:
    """Nobody can put words into the mesh's mouth: ``mesh-*`` is refused from both kinds of applications."""
    async with ports.front.port() as port:
        for entry in (("mesh-peer", "spiffe://shop.example/other"), ("mesh-call-bin", b"x"), ("mesh-x", "y")):
            metadata = (("mesh-to", "callee"), entry)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw(port, "/test.v1.Echo/Unary", metadata)
            assert reason(caught.value) == "BAD_REQUEST"
        bad: tuple[Any, ...] = ((), (("mesh-to", "callee"),) * 2, (("mesh-to", "callee,callee"),))
        for metadata in bad:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw(port, "/test.v1.Echo/Unary", metadata)
            assert reason(caught.value) == "BAD_REQUEST"
        assert await ask(port, "Peer", to="callee")() == b"spiffe://shop.example/front"
