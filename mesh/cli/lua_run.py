"""``mesh lua run``: Lua services in the mesh, each in a jail of its own, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mesh.cli.bundles import includes_option, jail_told, loaded, unsafe_option
from mesh.cli.data import DataDirectory, data_option
from mesh.cli.errors import CliError, Exit
from mesh.cli.workloads import token_for
from mesh.core.names import ServiceName
from mesh.descriptors import allow_many
from mesh.telemetry import logs
from mesh.telemetry.sdk import configured
from services.lua_host.limits import Number, cap

if TYPE_CHECKING:
    from services.lua_host.member import Member, Settings


def _cap(text: str) -> tuple[str, Number]:
    try:
        return cap(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument(
    "directories", nargs=-1, required=True, metavar="DIR...", type=click.Path(file_okay=False, path_type=Path)
)
@click.option(
    "--listen", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT", help="For other nodes."
)
@click.option("--advertise-port", type=click.IntRange(1, 65535), help="Port that others are told instead.")
@click.option("--auth", metavar="HOST:PORT", help="Auth's join port. [default: MESH_AUTH, or that of --data]")
@click.option(
    "--token-file",
    metavar="FILE",
    help="The join tokens, one a line in the order of the DIRs; - for stdin. "
    "[default: MESH_TOKEN, MESH_TOKEN_FILE, or made with --data]",
)
@click.option(
    "--cap",
    "caps",
    multiple=True,
    metavar="LIMIT=VALUE",
    callback=lambda _context, _option, values: dict(map(_cap, values)),
    help="The most that any of them gets of a limit, such as memory=64MiB; may be repeated.",
)
@includes_option
@unsafe_option
@data_option
def run(
    directories: tuple[Path, ...],
    *,
    listen: str,
    advertise_port: int | None,
    auth: str | None,
    token_file: str | None,
    caps: dict[str, Number],
    includes: tuple[Path, ...],
    unsafe_no_jail: bool,
    data: Path,
) -> None:
    """Run Lua services until Ctrl-C.

    Where each is found is a line of JSON on stdout. SIGTERM ends them, too.
    """
    from services.lua_host.host import NoneLeftError  # noqa: PLC0415  nobody else pays for it
    from services.lua_host.member import Settings  # noqa: PLC0415

    if len(directories) > 1 and (advertise_port is not None or not listen.endswith(":0")):
        raise click.UsageError("several services have a port each: give --listen HOST:0, no --advertise-port")
    logs.set_up()
    bundles = [loaded(path, includes).within(caps) for path in directories]
    directory = DataDirectory(data)
    at = auth or os.environ.get("MESH_AUTH") or directory.addresses().join
    tokens = _tokens([bundle.manifest.name for bundle in bundles], token_file, directory)
    only = bundles[0].manifest.name.text if len(bundles) == 1 else None
    with configured(only) as telemetry, jail_told(directories[0], unsafe=unsafe_no_jail):
        settings = [
            Settings(bundle, token, at, listen, advertise_port, not unsafe_no_jail, telemetry)
            for bundle, token in zip(bundles, tokens, strict=True)
        ]
        try:
            asyncio.run(_run(settings))
        except NoneLeftError as error:
            raise CliError(str(error)) from None


def _tokens(names: Sequence[ServiceName], file: str | None, data: DataDirectory) -> list[str | None]:
    if len(names) == 1:
        return [token_for(names[0], file, data)]
    if file is None:
        if os.environ.get("MESH_TOKEN") or os.environ.get("MESH_TOKEN_FILE"):
            raise CliError(
                "one token is not enough for several services: give --token-file with a line each", Exit.USAGE
            )
        return [token_for(name, None, data) for name in names]
    lines = (sys.stdin.read() if file == "-" else _read(file)).split()
    if len(lines) != len(names):
        raise CliError(f"{len(lines)} tokens for {len(names)} services: give one a line, in their order")
    return list(lines)


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not ASCII"
        raise CliError(f"cannot read the tokens from {file}: {why}") from None


async def _run(settings: Sequence[Settings]) -> None:
    from services.lua_host.host import host  # noqa: PLC0415

    allow_many()
    hosting = asyncio.ensure_future(host(settings, _ready))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, hosting.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await hosting


def _ready(member: Member) -> None:
    ready = {"service": member.service.name, "instance": str(member.node.instance), "port": member.port}
    print(json.dumps(ready), flush=True)  # noqa: T201  what others read of it
