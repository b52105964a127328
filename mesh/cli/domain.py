"""``mesh init`` and ``mesh up``: a trust domain, and the mesh that runs on it."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from pathlib import Path

import click

from mesh.cli.audits import AUDIT_KEY
from mesh.cli.data import data_option
from mesh.cli.databases import database_option
from mesh.cli.errors import CliError, Exit
from mesh.cli.keks import kms_option
from mesh.cli.kinds import domain
from mesh.cli.ports import Ports
from mesh.cli.supervisor import ChildFailedError, Supervisor
from mesh.core.names import TrustDomain
from mesh.telemetry import logs


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--trust-domain", type=domain, metavar="NAME", required=True, help="Its name, such as shop.example."
)
@click.option(
    "--unless-made",
    is_flag=True,
    help="Do nothing if DIR is a trust domain already, add one to a database's.",
)
@kms_option
@click.option(
    "--kek",
    "kek_file",
    type=click.Path(path_type=Path),
    help="A key file that there is. [default: a new one]",
)
@database_option
def init(
    directory: Path,
    trust_domain: TrustDomain,
    keeper: str | None,
    kek_file: Path | None,
    database: str | None,
    *,
    unless_made: bool,
) -> None:
    """Make a trust domain in DIR.

    That is its certificate authority, keys, operator's credential and database.
    """
    # Needed by this command alone, and only where auth is to run.
    from services.auth import sharing  # noqa: PLC0415
    from services.auth.errors import AuthError  # noqa: PLC0415
    from services.auth.founding import found  # noqa: PLC0415
    from services.auth.kek import given  # noqa: PLC0415

    if keeper and kek_file:
        raise click.UsageError("--kms and --kek exclude each other: a key file says who keeps it")
    now_ms, added = time.time_ns() // 1_000_000, None
    try:
        kek = given(kek_file) if kek_file else b""
        if unless_made and sharing.is_made(directory):
            sharing.refresh(directory, trust_domain, database or "", kek)
            click.echo(f"{directory} is a trust domain already: nothing to make")
            return
        if unless_made and database and kek:
            added = sharing.found_or_add(directory, trust_domain, now_ms, database, kek)
        else:
            found(directory, trust_domain, now_ms, keeper or "", database=database or "", kek=kek)
    except AuthError as error:
        raise CliError(str(error), Exit.DATA) from None
    if added:
        click.echo(f"auth {added} made in {directory}, for the mesh that the database holds")
    else:
        click.echo(
            f"trust domain {trust_domain} made in {directory}: start it with mesh up --data {directory}"
        )
    click.echo(f"audit key in {directory / AUDIT_KEY}: keep it on another machine")


_port = click.IntRange(0, 65535)


@click.command()
@data_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--advertise", help="Host that nodes are told, if it is not the one listened on.")
@click.option("--port-base", type=click.IntRange(0, 65533), help="First of three ports in a row; 0: any.")
@click.option("--join-port", type=_port, help="Where nodes join. [default: 7700; 0: any]")
@click.option("--auth-port", type=_port, help="Where auth takes sealed calls. [default: 7701; 0: any]")
@click.option("--gatekeeper-port", type=_port, help="Where gatekeeper does. [default: 7702; 0: any]")
@click.option("--ext-authz", metavar="HOST:PORT", help="Where gatekeeper answers envoys. [default: nowhere]")
def up(
    data: Path,
    host: str,
    advertise: str | None,
    port_base: int | None,
    join_port: int | None,
    auth_port: int | None,
    gatekeeper_port: int | None,
    ext_authz: str | None,
) -> None:
    """Run auth and gatekeeper until Ctrl-C.

    Each is a process of its own, and started again if it ends. SIGTERM and SIGHUP end them, too.
    """
    base = Ports() if port_base is None else Ports.from_base(port_base)
    ports = Ports(
        base.join if join_port is None else join_port,
        base.auth if auth_port is None else auth_port,
        base.gatekeeper if gatekeeper_port is None else gatekeeper_port,
    )
    logs.set_up()
    try:
        more = ("--ext-authz", ext_authz) if ext_authz else ()
        asyncio.run(_up(Supervisor(data, ports, host=host, advertise=advertise, gatekeeper_options=more)))
    except ChildFailedError as error:
        # The child's own line is on stderr already: one is enough.
        sys.exit(error.exit_code)


async def _up(supervisor: Supervisor) -> None:
    task = asyncio.current_task()
    if task is None:
        raise AssertionError
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        async with supervisor as mesh:
            at = mesh.addresses
            click.echo(f"mesh is up: join {at.join}, auth {at.auth}, gatekeeper {at.gatekeeper}")
            await mesh.wait()
    except asyncio.CancelledError:
        logging.getLogger("mesh.up").info("ended")
