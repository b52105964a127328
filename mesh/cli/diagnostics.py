"""``mesh diagnostics``: what a bug report needs, in one file, without a secret in it.

Each part is what another command shows, so that whoever sends it can see beforehand what is in it: names
of services, addresses, the policy, denials. There are no tokens, keys or certificates, no values of
environment variables, and nothing of what applications send.
"""

from __future__ import annotations

import json
import os
import platform
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import click
import grpc

from mesh.cli.audit_filter import as_data
from mesh.cli.audit_source import Place, ask
from mesh.cli.check import looked
from mesh.cli.data import DataDirectory, data_option
from mesh.cli.edges import as_json as edge_as_json
from mesh.cli.edges import edges_of
from mesh.cli.errors import CliError, told
from mesh.cli.operator import Operator, asked
from mesh.cli.policy_record import fetched as policy_of
from mesh.cli.recorded import Wanted
from mesh.cli.recorded import fetched as decisions_of
from mesh.cli.status import as_data as status_as_data
from mesh.cli.status import ask as ask_status
from mesh.core.errors import MeshError

#: Denials that are told, the newest.
DENIALS: Final = 200
_PACKAGES: Final = (
    "sealmesh",
    "grpcio",
    "protobuf",
    "cryptography",
    "sqlalchemy",
    "opentelemetry-api",
    "click",
)
#: Environment variables whose names are told: that they are set is half of many answers.
_PREFIXES: Final = ("MESH_", "OTEL_", "GRPC_")


@click.command()
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="mesh-diagnostics.zip",
    show_default=True,
    help="The file to write; it must not be there yet.",
)
@data_option
def diagnostics(out: Path, data: Path) -> None:
    """Write what a bug report needs into a zip file, without secrets.

    What cannot be had is left out, and the file says why.
    """
    directory = DataDirectory(data)
    directory.credential()
    bundle = _bundle(directory)
    try:
        # For the owner alone: it tells who calls whom.
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CliError(f"{out} is there already: remove it, or name another with --out") from None
    with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in bundle.items():
            packed.writestr(name, json.dumps(content, indent=2) + "\n")
    click.echo(f"{out}: {', '.join(bundle)}: look through it before you send it")


def _bundle(data: DataDirectory) -> Mapping[str, Any]:
    parts: dict[str, Callable[[], Any]] = {
        "status.json": lambda: status_as_data(*asked(data, ask_status)),
        "check.json": lambda: [{**asdict(one), "state": one.state.name.lower()} for one in looked(data)],
        "policy.json": lambda: _policy(data),
        "edges.json": lambda: [
            edge_as_json(one) for one in edges_of(decisions_of(Wanted(0, None, ()), data))
        ],
        "denials.json": lambda: asked(data, _denials),
    }
    bundle: dict[str, Any] = {"versions.json": _versions()}
    for name, make in parts.items():
        try:
            bundle[name] = make()
        except (CliError, MeshError, OSError, ValueError, grpc.aio.AioRpcError) as error:
            bundle[name] = {"missing": told(error).message}
    return bundle


def _versions() -> Mapping[str, Any]:
    packages = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "packages": packages,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "set in the environment": sorted(name for name in os.environ if name.startswith(_PREFIXES)),
    }


def _policy(data: DataDirectory) -> Mapping[str, Any]:
    record = policy_of(data)
    return {"version": record.version, "policy": json.loads(record.document or b"null")}


async def _denials(operator: Operator) -> list[dict[str, object]]:
    entries, _, _ = (await ask(operator, "denials", Place())).entries(Place())
    return [as_data("denials", number, entry) for number, entry in entries[-DENIALS:]]
