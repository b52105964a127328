"""The directory of a Lua service on the command line: how it is named, read and told about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click

from mesh.cli.errors import CliError, Exit
from services.lua_host.bundle import Bundle, BundleError
from services.lua_host.problems import Problem

_PATH: Final = click.Path(file_okay=False, path_type=Path)
_ENGINE: Final = ("lupa", "grpc_tools")

directory_argument = click.argument("directory", metavar="DIR", type=_PATH)
includes_option = click.option(
    "-I",
    "--include",
    "includes",
    multiple=True,
    type=_PATH,
    help="Where else protos may be, besides DIR; may be repeated.",
)
unsafe_option = click.option(
    "--unsafe-no-jail",
    is_flag=True,
    help="For development where the kernel has no jail: the script's process can do what this one can.",
)


def loaded(directory: Path, includes: tuple[Path, ...] = ()) -> Bundle:
    """Read a service; raise ``CliError`` with the first thing that is wrong."""
    need_engine()
    try:
        return Bundle.load(directory, includes)
    except BundleError as error:
        first, *others = error.problems
        more = f" (and {len(others)} more: see mesh lua check {directory})" if others else ""
        raise CliError(f"{placed(directory, first)}{more}", Exit.REFUSED) from None


def need_engine() -> None:
    """Raise ``CliError`` where what runs Lua is not installed."""
    if any(find_spec(name) is None for name in _ENGINE):
        raise CliError("Lua is not installed here: pip install 'sealmesh[lua]'")


def placed(directory: Path, problem: Problem) -> str:
    """Give a problem with its file as seen from here."""
    return str(Problem(str(directory / problem.file), problem.line, problem.text))


@contextmanager
def jail_told(directory: Path, *, unsafe: bool) -> Iterator[None]:
    """Say loudly that there is no jail, if so; raise ``CliError`` for what may come of starting a worker."""
    from services.lua_host.protocol import ViolationError  # noqa: PLC0415  not needed by most commands
    from services.lua_host.wire import WorkerGoneError  # noqa: PLC0415
    from services.lua_host.worker import NotJailedError, UnfitError  # noqa: PLC0415

    if unsafe:
        click.echo("WARNING: NO JAIL: whoever wrote the script owns this process", err=True)
    try:
        yield
    except NotJailedError as error:
        raise CliError(f"{error}: see docs/lua.md for what the jail needs") from None
    except UnfitError as error:
        what, _, _traceback = str(error).partition("\\n")
        raise CliError(f"{directory / what}", Exit.REFUSED) from None
    except (WorkerGoneError, ViolationError) as error:
        raise CliError(f"{directory}: the script's worker was lost: {error}") from None
