"""``mesh completion``: what a shell has to read so that it completes commands, options, files and services.

Nothing is asked of the mesh for it, and nothing waits: names of services are those of ``policy.yaml`` in the
directory where one is, and those that recorded decisions of the data directory have.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from mesh.core.names import ServiceName

#: The shells that there is something for, and the variable by which they ask.
SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_MESH_COMPLETE"
#: Where names stand: a policy has them below ``services``, and a table of decisions in two columns.
POLICY: Final = Path("policy.yaml")
_DECISIONS: Final = "decisions.db"
_LARGEST: Final = 1 << 20
#: Seconds for decisions, and after how many steps of the database that is looked at.
_SECONDS: Final = 0.5
_STEPS: Final = 1000
_SERVICES: Final = re.compile(r"^services:[^\S\n]*\n((?:[ #\t].*\n|\n)*)", re.MULTILINE)
_KEY: Final = re.compile(r"^( +)['\"]?([a-z0-9.-]+)['\"]?:", re.MULTILINE)

if TYPE_CHECKING:
    _Kind = click.ParamType[ServiceName]  # older ones of click are no generics
else:
    _Kind = click.ParamType


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options, services and files: see docs/cli.md."""
    kind = get_completion_class(shell)
    if kind is None:
        raise AssertionError  # click has all three
    click.echo(kind(click.get_current_context().find_root().command, {}, "mesh", VARIABLE).source())


class ServiceKind(_Kind):
    """The name of a service."""

    name = "service"

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> ServiceName:
        """Parse it."""
        if isinstance(value, ServiceName):
            return value
        try:
            return ServiceName(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    def shell_complete(
        self, ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Give the names that are known here and begin so."""
        return completed(ctx, _param, incomplete)


def completed(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Give the names of services that are known here and begin so."""
    data = ctx.params.get("data") or os.environ.get("MESH_DATA") or "mesh-data"
    known = {*_of_policy(POLICY), *_of_decisions(Path(data) / _DECISIONS)}
    return [CompletionItem(name) for name in sorted(known) if name.startswith(incomplete) and _is_one(name)]


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Have the shell give its files: for what is opened by the command, which says what is wrong with it."""
    return [CompletionItem(incomplete, type="file")]


def _is_one(name: str) -> bool:
    # A shell acts on what it is given, and what was read is not checked.
    try:
        ServiceName(name)
    except ValueError:
        return False
    return True


def _of_policy(path: Path) -> Iterator[str]:
    # Not parsed: it may be half written, and a shell waits.
    text = ""
    with suppress(OSError, UnicodeDecodeError):
        if path.is_file() and path.stat().st_size <= _LARGEST:
            text = path.read_text(encoding="utf-8") + "\n"
    section = _SERVICES.search(text)
    keys = _KEY.findall(section[1]) if section else []
    yield from (name for indent, name in keys if indent == keys[0][0])


def _of_decisions(path: Path) -> Iterator[str]:
    # Whatever is there under that name: nothing is waited for, and nothing takes long.
    if not path.is_file():
        return
    there, end = f"{path.absolute().as_uri()}?mode=ro", monotonic() + _SECONDS
    with suppress(sqlite3.Error), closing(sqlite3.connect(there, _SECONDS, uri=True)) as database:
        database.set_progress_handler(lambda: monotonic() > end, _STEPS)
        names = "SELECT destination FROM decision UNION SELECT source FROM decision WHERE source <> ''"
        yield from (str(name) for (name,) in database.execute(names))
