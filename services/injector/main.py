"""The process of the injector: options in, HTTPS out, until SIGTERM.

Its certificate is its own and kept in a Secret, or, with ``--certificate-dir``, what somebody else (such as
cert-manager) puts there and renews. A new one is taken up without a restart.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import uvicorn

from mesh.inject.documents import load_settings
from mesh.inject.errors import RefusedError
from mesh.inject.settings import Settings
from mesh.telemetry import logs
from services.injector.certificate import Certificate
from services.injector.cluster import Cluster, ClusterError, Lightkube, Names
from services.injector.room import Patient
from services.injector.upkeep import certify, keep, spread
from services.injector.webhook import webhook

log = logging.getLogger("mesh.injector")

_NAMES: Final = Names()
#: Seconds that reviews in progress have at the end.
GRACE: Final = 5
#: The exit status of bad arguments, as the command's.
USAGE: Final = 2


class Tls:
    """The server's TLS, to which certificates are given while it serves."""

    def __init__(self) -> None:
        """Begin without a certificate."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._held: tuple[bytes, bytes] | None = None

    @property
    def ready(self) -> bool:
        """Whether there is a certificate."""
        return self._held is not None

    def take(self, chain: bytes, key: bytes) -> None:
        """Use a certificate and key (PEM) from now on; raise ``ClusterError`` if they do not go together."""
        if self._held == (chain, key):
            return
        # The ssl module reads from files alone; these are gone before anybody else can look.
        with tempfile.TemporaryDirectory(prefix="mesh-tls-") as directory:
            for name, content in (("chain", chain), ("key", key)):
                path = Path(directory, name)
                path.touch(0o600)
                path.write_bytes(content)
            try:
                self.context.load_cert_chain(Path(directory, "chain"), Path(directory, "key"))
            except ssl.SSLError as error:
                msg = f"the certificate cannot be used: {error.reason}"
                raise ClusterError(msg) from None
        self._held = chain, key


class Server(uvicorn.Server):
    """A server that SIGTERM and SIGINT end in order, and not by the signal once more."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear signals for the length of the block."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


@click.command()
@click.option("--settings", "path", required=True, type=click.Path(path_type=Path), help="Of all sidecars.")
@click.option("--listen", default="0.0.0.0:9443", show_default=True, help="Where the API server calls.")
@click.option("--name", required=True, help="Name by which the API server calls: SERVICE.NAMESPACE.svc.")
@click.option("--namespace", required=True, help="The mesh's own namespace.")
@click.option(
    "--webhook", "webhook_name", default=_NAMES.webhook, show_default=True, help="What it is called."
)
@click.option("--secret", default=_NAMES.secret, show_default=True, help="Where the certificate is kept.")
@click.option("--certificate-dir", type=click.Path(path_type=Path), help="tls.crt and tls.key of others.")
def main(
    path: Path,
    listen: str,
    name: str,
    namespace: str,
    webhook_name: str,
    secret: str,
    certificate_dir: Path | None,
) -> None:
    """Put a sidecar beside each pod of the namespaces that ask for it."""
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        logs.set_up()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  for whoever started this
        sys.exit(USAGE)
    try:
        settings = load_settings(path.read_text(encoding="utf-8"))
    except (OSError, RefusedError, UnicodeDecodeError) as error:
        print(f"error: cannot read {path}: {error}", file=sys.stderr)  # noqa: T201  for whoever started this
        sys.exit(USAGE)
    cluster = Lightkube(namespace, Names(secret, webhook_name, settings.join_config_map))
    asyncio.run(_run(settings, cluster, listen, name, namespace, certificate_dir))


async def _run(
    settings: Settings,
    cluster: Cluster,
    listen: str,
    name: str,
    namespace: str,
    certificate_dir: Path | None,
) -> None:
    tls = Tls()

    async def take_certificate() -> None:
        found = _read(certificate_dir) if certificate_dir else await certify(cluster, name)
        tls.take(found.chain, found.key)

    server = Server(_config(settings, listen, tls))
    async with asyncio.TaskGroup() as tasks:
        keeping = (
            tasks.create_task(keep(take_certificate)),
            tasks.create_task(keep(lambda: spread(cluster, namespace))),
        )
        await server.serve()
        for task in keeping:
            task.cancel()


def _config(settings: Settings, listen: str, tls: Tls) -> uvicorn.Config:
    host, _, port = listen.rpartition(":")
    options: dict[str, Any] = {"host": host.strip("[]"), "port": int(port), "log_config": None}
    options |= {"http": Patient, "ws": "none"}
    app = webhook(settings, lambda: tls.ready)
    config = uvicorn.Config(
        app, access_log=False, server_header=False, timeout_graceful_shutdown=GRACE, lifespan="off", **options
    )
    config.load()
    config.ssl = tls.context
    return config


def _read(directory: Path) -> Certificate:
    try:
        return Certificate((directory / "tls.crt").read_bytes(), (directory / "tls.key").read_bytes(), b"")
    except OSError as error:
        msg = f"no certificate in {directory}: {error.strerror}"
        raise ClusterError(msg) from None
