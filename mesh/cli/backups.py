"""``mesh backup`` and ``mesh restore``: auth's state in one file, and a data directory from it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

import click

from mesh.cli.data import DataDirectory, data_option
from mesh.cli.errors import CliError, Exit
from mesh.cli.offline import opened
from mesh.cli.operator import Operator, asked
from mesh.cli.output import instant
from mesh.v1 import keys_pb2

#: Seconds that auth may take for all that it has.
PATIENCE: Final = 300.0


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--offline", is_flag=True, help="Of the files of an auth that does not run.")
@data_option
def backup(file: Path, offline: bool, data: Path) -> None:
    """Write auth's state to FILE, which must not exist: all but KEK, audit key and operator's credential.

    It is sealed under the KEK: keep the key file, or access to the KMS, elsewhere.
    """
    with _new(file) as out:
        size = _offline(data, out) if offline else _online(DataDirectory(data), out)
    click.echo(f"backup of {size} bytes in {file}: it is restored with the key file of now, kept elsewhere")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--kek", "kek_file", type=click.Path(path_type=Path), required=True, help="The key file of that time."
)
@click.option(
    "--policy-above",
    type=click.IntRange(0, 2**53),
    default=0,
    metavar="N",
    help="A version nodes may have seen.",
)
def restore(file: Path, directory: Path, kek_file: Path, policy_above: int) -> None:
    """Make the data directory DIR, new or empty, from the backup in FILE.

    Join tokens of then are revoked, and nothing that was used since is used again.
    """
    from services.auth.errors import StartError  # noqa: PLC0415  only where auth is to run
    from services.auth.restoring import restore as restored  # noqa: PLC0415

    try:
        taken_ms = restored(file, directory, kek_file, time.time_ns() // 1_000_000, policy_above)
    except StartError as error:
        raise CliError(str(error), Exit.DATA) from None
    click.echo(f"state of {instant(taken_ms)} in {directory}: start it with mesh up --data {directory}")
    click.echo("what came later is gone: look at the policy in force, and have newer nodes join again")


def _online(data: DataDirectory, out: BinaryIO) -> int:
    async def ask(operator: Operator) -> int:
        size = 0
        async for piece in operator.keys.BackUp(keys_pb2.BackUpRequest(), timeout=PATIENCE):
            size += out.write(piece.data)
        return size

    return asked(data, ask)


def _offline(data: Path, out: BinaryIO) -> int:
    from services.auth.backup import take  # noqa: PLC0415  only where auth's own files are

    with opened(data) as (directory, now_ms):
        return _written(out, take(directory, "", now_ms))


def _written(out: BinaryIO, pieces: Iterable[bytes]) -> int:
    return sum(out.write(piece) for piece in pieces)


@contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    # All of it or nothing: half a backup is none, and nothing is written over one that is there.
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    if path.exists():
        raise CliError(f"{path} exists: name a new file")
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.link(scratch, path)
    except OSError as error:
        raise CliError(f"cannot write {path}: {(error.strerror or '').lower()}") from None
    finally:
        with suppress(OSError):
            scratch.unlink()
