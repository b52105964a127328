"""``--database``: where auth's state is kept, if not in a file. ``mesh replica``: one more auth there."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import click
from click.core import ParameterSource

from mesh.cli.audits import AUDIT_KEY
from mesh.cli.errors import CliError, Exit


def _checked(context: click.Context, option: click.Parameter, url: str | None) -> str | None:
    if url is None:
        return None
    url = url.strip()  # of a file, as a Secret is made from, the end of its line
    if not url.startswith(("postgresql://", "postgres://")):
        raise click.BadParameter("not the URL of a PostgreSQL database: postgresql://USER@HOST/NAME")
    parts = urlsplit(url)
    given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    if given and (parts.password or "password" in parse_qs(parts.query)):
        # Without the URL, which a terminal or a log may keep.
        raise click.BadParameter(
            "a password among the arguments is seen by everybody on this machine: leave it to PGPASSFILE, "
            "~/.pgpass or PGPASSWORD, or give the URL in MESH_DATABASE"
        )
    return url


database_option = click.option(
    "--database",
    envvar="MESH_DATABASE",
    metavar="URL",
    callback=_checked,
    help="An empty PostgreSQL database for the state, for several auths. [default: a file in DIR]",
)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--database",
    envvar="MESH_DATABASE",
    metavar="URL",
    callback=_checked,
    required=True,
    help="The PostgreSQL database of a mesh that there is.",
)
@click.option(
    "--kek", "kek_file", type=click.Path(path_type=Path), required=True, help="The key file of another auth."
)
def replica(directory: Path, database: str, kek_file: Path) -> None:
    """Make a data directory DIR for one more auth on the database of a mesh that there is."""
    from services.auth.errors import AuthError  # noqa: PLC0415  only where auth is to run
    from services.auth.replicating import replicate  # noqa: PLC0415

    try:
        name = replicate(directory, database, kek_file, time.time_ns() // 1_000_000)
    except AuthError as error:
        raise CliError(str(error), Exit.DATA) from None
    click.echo(f"auth {name} made in {directory}: start it as the others, and name it to all with --auths")
    click.echo(f"audit key of its log in {directory / AUDIT_KEY}: keep it on another machine")
