"""``mesh keys``: what is in force, what is next, and when; and having the next now."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import click

from mesh.cli.data import OPERATOR, DataDirectory, data_option
from mesh.cli.errors import CliError
from mesh.cli.keks import tell_rotated
from mesh.cli.offline import opened
from mesh.cli.operator import PATIENCE, Operator, asked
from mesh.cli.output import instant, output_option, show_json, show_table
from mesh.v1 import keys_pb2

#: Seconds that auth may take to seal all that it has anew.
LONG: Final = 60.0
_COLUMNS: Final = ("kind", "id", "state", "since", "next", "until", "keeper")


@click.group()
def keys() -> None:
    """Show the mesh's own keys, and rotate them early."""


@keys.command(name="list")
@output_option
@data_option
def list_(output: str, data: Path) -> None:
    """Show which keys are in force, which are next, and when the next take over. None is shown itself."""

    async def ask(operator: Operator) -> keys_pb2.ListKeysResponse:
        return await operator.keys.ListKeys(keys_pb2.ListKeysRequest(), timeout=PATIENCE)

    rows = [_row(found) for found in asked(DataDirectory(data), ask).keys]
    if output == "json":
        show_json(rows)
    else:
        show_table(_COLUMNS, [[row[column] or "-" for column in _COLUMNS] for row in rows], _COLUMNS[:3])


@keys.command()
@click.argument("kind", type=click.Choice(["epoch", "ca", "kek", "operator"]))
@click.option("--offline", is_flag=True, help="Of operator: work on the files of an auth that does not run.")
@data_option
def rotate(kind: str, offline: bool, data: Path) -> None:
    """Have the next key of a KIND now, or as soon as nobody is cut off by it."""
    if offline:
        if kind != "operator":
            raise click.UsageError("--offline is for operator: for the KEK use mesh kek rotate --offline")
        _renew_offline(data)
        click.echo(f"new credential in {data / OPERATOR}: those before it are revoked")
        return

    async def ask(operator: Operator) -> keys_pb2.RotateKeyResponse:
        request = keys_pb2.RotateKeyRequest(kind=keys_pb2.KeyKind.Value(f"KEY_KIND_{kind.upper()}"))
        return await operator.keys.RotateKey(request, timeout=LONG)

    made = asked(DataDirectory(data), ask)
    if made.credential:
        _write(data / OPERATOR, made.credential)
        click.echo(f"new credential in {data / OPERATOR}: those before it are revoked")
    elif kind == "kek":
        tell_rotated(data, made.id)
    else:
        click.echo(f"{kind} {made.id} is in force from {instant(made.begins_ms)}")


def _row(found: keys_pb2.KeyInfo) -> dict[str, str | None]:
    times = {"since": found.since_ms, "next": found.next_ms, "until": found.until_ms}
    return {
        "kind": keys_pb2.KeyKind.Name(found.kind).removeprefix("KEY_KIND_").lower(),
        "id": found.id,
        "state": keys_pb2.KeyState.Name(found.state).removeprefix("KEY_STATE_").lower().replace("_", " "),
        **{name: instant(at_ms) if at_ms else None for name, at_ms in times.items()},
        "keeper": (found.keeper or "file") if found.kind == keys_pb2.KEY_KIND_KEK else None,
    }


def _write(path: Path, credential: str) -> None:
    # Auth has written it where auth is; this is for an operator's copy elsewhere.
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(json.dumps({"token": credential}) + "\n")
        scratch.replace(path)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise CliError(f"cannot write {path}: {reason}: copy it from auth's data directory") from None


def _renew_offline(data: Path) -> None:
    from services.auth import credential  # noqa: PLC0415  only where auth's own files are

    with opened(data) as (directory, now_ms):
        credential.make_credential(directory, "", now_ms, revoke=True)
        credential.end_sessions(directory, "", now_ms)
