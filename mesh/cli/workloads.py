"""``mesh sidecar`` and ``mesh run``: an application's way into the mesh.

The token is the first of ``--token-file``, ``MESH_TOKEN`` and ``MESH_TOKEN_FILE`` that is there. Without any,
in a pod Kubernetes vouches instead, and where the operator's credential is at hand, one is made on the spot.
The address of auth is ``--auth``, ``MESH_AUTH``, or that of the mesh that runs on ``--data``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mesh.cli.data import OPERATOR, DataDirectory, data_option
from mesh.cli.errors import CliError, Exit
from mesh.cli.kinds import service
from mesh.cli.known import policy_in_force, warn_of_unknown
from mesh.cli.operator import PATIENCE, Operator, asked
from mesh.core.names import ServiceName
from mesh.enrol import JOIN_KEY_FILE
from mesh.joining import KEYS
from mesh.telemetry import logs
from mesh.telemetry.sdk import configured
from mesh.v1 import auth_pb2
from sidecar.run import run as run_both
from sidecar.serve import serve
from sidecar.sidecar import Settings

_F = TypeVar("_F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--service", type=service, metavar="NAME", required=True, help="Who it is in the mesh."),
    click.option("--app-port", type=click.IntRange(1, 65535), help="Loopback port at which the app serves."),
    click.option("--app", metavar="ADDRESS", help="The same as host:port or unix:/path."),
    click.option(
        "--listen", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT", help="For other nodes."
    ),
    click.option(
        "--advertise-port", type=click.IntRange(1, 65535), help="Port that others are told instead."
    ),
    click.option(
        "--run-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where the destinations' sockets go.",
    ),
    click.option(
        "--outbound-port",
        type=click.IntRange(0, 65535),
        default=0,
        show_default="any",
        help="Loopback port for calls that name their destination in mesh-to.",
    ),
    click.option("--health", metavar="HOST:PORT", help="Where to serve grpc.health.v1, in plaintext."),
    click.option(
        "--app-health/--no-app-health",
        default=True,
        show_default=True,
        help="Ask the app for its health, and have no calls come while it is not well.",
    ),
    click.option(
        "--auth", metavar="HOST:PORT", help="Auth's join port. [default: MESH_AUTH, or that of --data]"
    ),
    click.option(
        "--token-file",
        metavar="FILE",
        help="The join token; - for stdin. [default: MESH_TOKEN, MESH_TOKEN_FILE, or made with --data]",
    ),
    click.option(
        "--keys",
        type=click.Choice(KEYS),
        help="With it, or with auth, which then seals for it. [default: MESH_KEYS, or as the token says]",
    ),
    data_option,
)


def _sidecar_options(command: _F) -> _F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@_sidecar_options
def sidecar(**options: Any) -> None:
    """Run a sidecar until Ctrl-C.

    Where it is found is one line of JSON on stdout. SIGTERM ends it, too.
    """
    with configured(options["service"].text) as telemetry:
        asyncio.run(serve(_settings(telemetry=telemetry, **options)))


@click.command(context_settings={"allow_interspersed_args": False})
@_sidecar_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def run(command: tuple[str, ...], **options: Any) -> None:
    """Run CMD beside a sidecar of its own.

    CMD finds MESH_RUN_DIR and MESH_OUTBOUND in its environment. Its exit status is that of this command.
    """
    with configured(options["service"].text) as telemetry:
        status = asyncio.run(_run(_settings(telemetry=telemetry, **options), command))
    sys.exit(status)


async def _run(settings: Settings, command: tuple[str, ...]) -> int:
    try:
        return await run_both(settings, command)
    except FileNotFoundError:
        raise CliError(f"no such command: {command[0]}: check the name and the PATH", Exit.USAGE) from None


def _settings(
    *,
    service: ServiceName,
    app_port: int | None,
    app: str | None,
    auth: str | None,
    token_file: str | None,
    data: Path,
    **rest: Any,
) -> Settings:
    if app_port is not None and app is not None:
        raise click.UsageError("--app and --app-port are the same thing: give one")
    logs.set_up()
    directory = DataDirectory(data)
    return Settings(
        service=service.text,
        token=token_for(service, token_file, directory),
        auth=auth or os.environ.get("MESH_AUTH") or directory.addresses().join,
        app=f"127.0.0.1:{app_port}" if app_port is not None else app,
        **rest,
    )


def token_for(service: ServiceName, token_file: str | None, data: DataDirectory) -> str | None:
    """Give a service's join token; ``None`` if ``mesh.join`` finds it by itself. Raises ``CliError``."""
    if token_file == "-":  # noqa: S105  standard input
        return sys.stdin.readline()
    if token_file is not None:
        try:
            return Path(token_file).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not ASCII"
            raise CliError(f"cannot read the token from {token_file}: {why}") from None
    if any(os.environ.get(name) for name in ("MESH_TOKEN", "MESH_TOKEN_FILE", JOIN_KEY_FILE)):
        return None  # mesh.join takes them from there
    if not (data.path / OPERATOR).exists():
        raise CliError(
            f"no join token: give --token-file or MESH_TOKEN, made with mesh token create {service}",
            Exit.USAGE,
        )

    async def ask(operator: Operator) -> str:
        request = auth_pb2.CreateTokenRequest(service=service.text)
        policy = await policy_in_force(operator)
        if policy is not None:
            warn_of_unknown((service,), policy)
        return (await operator.auth.CreateToken(request, timeout=PATIENCE)).token

    return asked(data, ask)
