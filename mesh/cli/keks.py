"""``mesh kek``: the key under which auth's secrets are sealed at rest."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from mesh.cli.data import DataDirectory, data_option
from mesh.cli.errors import CliError, Exit
from mesh.cli.offline import opened
from mesh.cli.operator import Operator, asked
from mesh.v1 import keys_pb2

#: Seconds that auth may take to seal all that it has anew, and a KMS to answer.
PATIENCE: Final = 60.0

#: Stands in the data directory of an auth that may not be alone (``services.auth.location``).
LOCATION: Final = "database.json"

kms_option = click.option(
    "--kms", "keeper", metavar="KMS", help="Have it kept by a KMS: aws: and a key id, ARN or alias."
)


@click.group()
def kek() -> None:
    """Make and rotate the key under which auth's secrets are sealed at rest."""


@kek.command()
@click.argument("file", type=click.Path(path_type=Path))
@kms_option
def new(file: Path, keeper: str | None) -> None:
    """Make a key file, to make a trust domain with."""
    from services.auth.errors import StartError  # noqa: PLC0415  only where auth's own files are
    from services.auth.founding import new_kek  # noqa: PLC0415

    try:
        new_kek(file, keeper or "")
    except StartError as error:
        raise CliError(str(error), Exit.FAILED) from None
    click.echo(f"KEK made in {file}: make a trust domain with mesh init --kek {file}")


@kek.command()
@kms_option
@click.option("--file", "in_file", is_flag=True, help="Have it kept by its file, no longer by a KMS.")
@click.option("--offline", is_flag=True, help="Work on the files of an auth that does not run.")
@data_option
def rotate(keeper: str | None, in_file: bool, offline: bool, data: Path) -> None:
    """Seal everything anew under a new key, and destroy the old one.

    Killed at any point, it leaves the one or the other in force: run it again.
    """
    if keeper is not None and in_file:
        raise click.UsageError("--kms and --file exclude each other")
    keeper = "" if in_file else keeper
    made = _offline(data, keeper) if offline else _online(DataDirectory(data), keeper)
    tell_rotated(data, made)


def tell_rotated(data: Path, made: str) -> None:
    """Say that the KEK with this id is in force, and what an operator has to do about it."""
    click.echo(f"KEK {made} is in force: take a new copy of the key file, and a new backup")
    if (data / LOCATION).exists():
        click.echo(f"other auths answer nothing until each has {data / 'kek'} as its kek.next (mode 0600)")


def _online(data: DataDirectory, keeper: str | None) -> str:
    async def ask(operator: Operator) -> str:
        request = keys_pb2.RotateKeyRequest(kind=keys_pb2.KEY_KIND_KEK, keeper=keeper)
        return (await operator.keys.RotateKey(request, timeout=PATIENCE)).id

    return asked(data, ask)


def _offline(data: Path, keeper: str | None) -> str:
    from services.auth.rekey import rotate_kek  # noqa: PLC0415  only where auth's own files are

    with opened(data) as (directory, now_ms):
        return rotate_kek(directory, keeper, "", now_ms)
