"""``mesh svid``: a service's certificate and key as files, kept fresh, for what is no node: an Envoy.

It joins as a node does, renews as a node does, and is called by nobody: it registers no endpoint and opens
no port. What it may do with its keys beyond the certificate, it does not: those stay in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from pathlib import Path

import click

from mesh.cli.data import DataDirectory, data_option
from mesh.cli.kinds import service
from mesh.cli.output import instant
from mesh.cli.svid_files import SvidFiles
from mesh.cli.workloads import token_for
from mesh.core.names import ServiceName
from mesh.enrol import Enrolment
from mesh.node import enrolled
from mesh.pauses import backoff

log = logging.getLogger("mesh")


@click.command()
@click.option("--service", "name", type=service, metavar="NAME", required=True, help="Whose certificate.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Directory for the files, yours alone.",
)
@click.option("--once", is_flag=True, help="Write the files and end; nobody renews them.")
@click.option("--auth", metavar="HOST:PORT", help="Auth's join port. [default: MESH_AUTH, or that of --data]")
@click.option(
    "--token-file",
    metavar="FILE",
    help="The join token; - for stdin. [default: MESH_TOKEN, MESH_TOKEN_FILE, or made with --data]",
)
@data_option
def svid(
    name: ServiceName, *, out: Path, once: bool, auth: str | None, token_file: str | None, data: Path
) -> None:
    """Keep a service's certificate in files until Ctrl-C.

    When they are there it prints one line of JSON. SIGTERM ends it, too; the files stay.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    files, directory = SvidFiles(out), DataDirectory(data)
    at = auth or os.environ.get("MESH_AUTH") or directory.addresses().join
    asyncio.run(_run(files, name, token_for(name, token_file, directory), at, once=once))


async def _run(files: SvidFiles, name: ServiceName, token: str | None, auth: str, *, once: bool) -> None:
    keeping = asyncio.ensure_future(_keep(files, name, token, auth, once=once))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, keeping.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await keeping


async def _keep(files: SvidFiles, name: ServiceName, token: str | None, auth: str, *, once: bool) -> None:
    enrolment = await enrolled(name, token, auth)
    try:
        membership = enrolment.membership
        renewed = asyncio.Event()
        membership.on_svid(renewed.set)
        files.write(membership.svid)
        ready = {"service": name.text, "instance": str(membership.instance)}
        print(json.dumps({**ready, "expires": instant(membership.svid.not_after_ms)}), flush=True)  # noqa: T201
        if not once:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(enrolment.keep())
                tasks.create_task(_follow(files, enrolment, renewed))
    finally:
        await enrolment.close()


async def _follow(files: SvidFiles, enrolment: Enrolment, renewed: asyncio.Event) -> None:
    while True:
        await renewed.wait()
        renewed.clear()
        for delay in backoff():
            try:
                files.write(enrolment.membership.svid)
                break
            except OSError as error:
                log.warning("cannot write the renewed certificate, trying on: %s", error)
            await asyncio.sleep(delay)
