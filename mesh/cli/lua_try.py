"""``mesh lua check`` and ``mesh lua test``: a service without a mesh.

``check`` looks at a script in a jail and runs nothing of it; ``test`` runs it in the jail that it will serve
in, and makes up the rest of the world.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NoReturn

import click

from mesh.cli.bundles import (
    directory_argument,
    includes_option,
    jail_told,
    loaded,
    need_engine,
    placed,
    unsafe_option,
)
from mesh.cli.errors import Exit
from services.lua_host.bundle import Bundle, BundleError, read_inside
from services.lua_host.cases import FILE, MAX_CASES, Case, read_cases
from services.lua_host.plain import plain
from services.lua_host.problems import Problem, ProblemsError

_HANDLE: Final = re.compile(rb"\bmesh\s*\.\s*handle\b")


@click.command()
@directory_argument
@includes_option
@unsafe_option
def check(directory: Path, *, includes: tuple[Path, ...], unsafe_no_jail: bool) -> None:
    """Tell everything that is wrong with a service, without running it."""
    need_engine()
    try:
        bundle = Bundle.load(directory, includes)
    except BundleError as error:
        _refuse(directory, error.problems, "note: the script is looked at once these are put right")
    with jail_told(directory, unsafe=unsafe_no_jail):
        problems, notes = asyncio.run(_looked_at(bundle, jailed=not unsafe_no_jail))
    if (directory / FILE).exists():
        try:
            _cases(directory, bundle)
        except ProblemsError as error:
            problems += error.problems
    if problems:
        _refuse(directory, problems, *notes)
    for note in notes:
        click.echo(note, err=True)
    click.echo(f"ok: {bundle.manifest.name}")


async def _looked_at(bundle: Bundle, *, jailed: bool) -> tuple[list[Problem], list[str]]:
    from services.lua_host.inspection import inspect  # noqa: PLC0415  other commands need no worker

    problems, handles = await inspect(bundle, jailed=jailed)
    missing = _missing(bundle, handles)
    if problems and not handles:  # it does not even compile
        return problems, []
    # A name that the script makes up while it runs is not seen.
    if len(_HANDLE.findall(bundle.script)) > len(handles):
        return problems, [f"note: perhaps nothing handles {name}" for name in missing]
    script = bundle.manifest.script
    return [
        *problems,
        *(Problem(script, 0, f"nothing handles {name}: add mesh.handle") for name in missing),
    ], []


def _missing(bundle: Bundle, handles: Iterable[str]) -> list[str]:
    served = [
        rpc.name.text for rpc in bundle.protos.methods.values() if rpc.service in bundle.manifest.serves
    ]
    return [name for name in served if not {name, name.rpartition("/")[2]} & set(handles)]


@click.command()
@directory_argument
@includes_option
@unsafe_option
def test(directory: Path, *, includes: tuple[Path, ...], unsafe_no_jail: bool) -> None:
    """Call a service as its tests.yaml says, in its jail, and tell what comes of it."""
    bundle = loaded(directory, includes)
    try:
        cases = _cases(directory, bundle)
    except ProblemsError as error:
        _refuse(directory, error.problems)
    with jail_told(directory, unsafe=unsafe_no_jail):
        failed = asyncio.run(_tried(bundle, cases, jailed=not unsafe_no_jail))
    click.echo(f"{len(cases) - failed} passed, {failed} failed")
    if failed:
        click.echo(f"note: mesh lua check {directory} may know why", err=True)
    sys.exit(Exit.FAILED if failed else 0)


async def _tried(bundle: Bundle, cases: tuple[Case, ...], *, jailed: bool) -> int:
    from services.lua_host.trial import try_cases  # noqa: PLC0415  other commands need no worker

    failed = 0
    async for verdict in try_cases(bundle, cases, jailed=jailed):
        click.echo(plain(f"{'FAIL' if verdict.wrong else 'ok'}  {verdict.case.name}"))
        failed += bool(verdict.wrong)
        for line in verdict.wrong:
            click.echo(f"      {plain(line)}")
        for line in verdict.logs if verdict.wrong else ():
            # A log line is one line; here is room for the traceback in it.
            click.echo(f"      log: {line}".replace("\\n", "\n           ").replace("\\t", "  "))
    return failed


def _cases(directory: Path, bundle: Bundle) -> tuple[Case, ...]:
    return read_cases(read_inside(directory, FILE, MAX_CASES), bundle)


def _refuse(directory: Path, problems: Iterable[Problem], *notes: str) -> NoReturn:
    for problem in sorted(problems):
        click.echo(placed(directory, problem))
    for note in notes:
        click.echo(note, err=True)
    sys.exit(Exit.REFUSED)
