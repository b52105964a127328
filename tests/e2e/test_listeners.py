"""All that listens in a running mesh, by the kernel: each is mTLS, loopback, or a socket of mode 0600.

Two are in plaintext and not for this host alone, by design: auth's join port, where the join secret protects
what is said, and a sidecar's health port, which a kubelet asks and which is there only if it is asked for.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from mesh.cli.ports import Ports
from tests.e2e.process import Process
from tests.e2e.world import HOST, Mesh, appears

pytestmark = pytest.mark.asyncio(loop_scope="session")

LISTENING, ACCEPTING = "0A", 0x10000


@dataclass(frozen=True)
class Listener:
    """What a process listens on: an address and port, or a path."""

    address: str
    port: int = 0

    @property
    def loopback(self) -> bool:
        """Whether this host alone can connect."""
        address = ipaddress.ip_address(self.address)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback

    @property
    def mutual(self) -> bool:
        """Whether it speaks TLS, and only with who shows a certificate of the mesh's."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        try:
            with (
                socket.create_connection((HOST, self.port), timeout=5) as plain,
                context.wrap_socket(plain) as line,
            ):
                # What a server says first comes to whom it takes; gRPC hangs up on others without an alert.
                return line.recv(1) == b""
        except OSError:  # no TLS
            return False


def listeners(process: Process) -> Iterator[Listener]:
    """Give all sockets on which a process listens."""
    proc = Path(f"/proc/{process.process.pid}")
    inodes = set()
    for descriptor in (proc / "fd").iterdir():
        found = re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink()))
        inodes |= {found[1]} if found else set()
    for family in ("tcp", "tcp6"):
        for line in (proc / "net" / family).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                host, _, port = fields[1].partition(":")
                words = struct.pack(f"={len(host) // 8}I", *(int(word, 16) for word in _words(host)))
                yield Listener(str(ipaddress.ip_address(words)), int(port, 16))
    for line in (proc / "net" / "unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if int(fields[3], 16) & ACCEPTING and fields[6] in inodes:
            yield Listener(fields[7])


def _words(host: str) -> list[str]:
    return [host[at : at + 8] for at in range(0, len(host), 8)]


async def test_nothing_listens_that_is_open_to_all(shared: Mesh) -> None:
    """Each listener of auth, gatekeeper and two sidecars is named here, and is what it has to be."""
    app = grpc.aio.server()
    port = app.add_insecure_port(f"{HOST}:0")
    await app.start()
    health = Ports(0, 0, 0).chosen(HOST).join
    front = await shared.sidecar("front", "--listen", "0.0.0.0:0")
    back = await shared.sidecar(
        "back", "--app-port", str(port), "--listen", "0.0.0.0:0", "--health", f"{HOST}:{health}"
    )
    await appears(front.socket("callee"))
    by_design = {shared.ports.join, health}
    mutual: dict[str, set[int]] = {}
    for process in (shared.auth, shared.gatekeeper, front.process, back.process):
        for one in listeners(process):
            if not one.port:
                found = os.lstat(one.address)
                assert stat.S_ISSOCK(found.st_mode), one
                assert stat.S_IMODE(found.st_mode) == 0o600, one
            elif one.mutual:
                mutual.setdefault(process.name, set()).add(one.port)
            elif one.port not in by_design:
                assert one.loopback, f"{process.name} listens in plaintext: {one}"
                assert process in (front.process, back.process), f"{process.name}: {one}"
    assert mutual == {
        "auth": {shared.ports.auth},
        "gatekeeper": {shared.ports.gatekeeper},
        "sidecar-back": {back.inbound_port},
    }
    assert {Path(one.address) for one in listeners(front.process) if not one.port} == {
        front.socket(name) for name in ("callee", "back", "inventory")
    }
    for sidecar in (front, back):
        await sidecar.process.stop()
    await app.stop(None)
