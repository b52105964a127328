"""``mesh policy apply`` and ``rollback``: what is to change is shown first, and only that is changed.

Auth is told which version the difference was shown against. If another operator was faster it refuses, so
nothing is overwritten that nobody has seen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from mesh.cli.completion import files
from mesh.cli.data import DataDirectory, data_option
from mesh.cli.errors import CliError, Exit
from mesh.cli.operator import PATIENCE, Operator, asked
from mesh.cli.output import output_option, show_json
from mesh.cli.policy_diff import compared, differences_data
from mesh.cli.policy_file import load_policy
from mesh.cli.policy_record import Record, fetched, listed
from mesh.cli.policy_replay import forecast
from mesh.core.difference import Difference, differences, taken_from
from mesh.core.names import OPERATOR
from mesh.core.policy import Policy
from mesh.v1 import auth_pb2


@dataclass(frozen=True, slots=True)
class _Wish:
    dry_run: bool
    cut_operator: bool
    yes: bool
    output: str
    #: The version that a rollback goes back to.
    restores: int | None = None

    @property
    def asks(self) -> bool:
        """Whether there is somebody to ask."""
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        return self.output != "json" and not self.yes and terminal

    @property
    def forecasts(self) -> bool:
        """Whether calls of the last day are judged first: not if a rollback is to be quick."""
        return self.output != "json" and (self.dry_run or self.restores is None or not self.yes)


_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only show what would change.")
_cut_operator = click.option(
    "--cut-operator", is_flag=True, help="Even if that takes permissions from mesh.operator."
)


@click.command()
@click.argument("file", shell_complete=files)
@_dry_run
@_cut_operator
@_yes
@output_option
@data_option
def apply(file: str, dry_run: bool, cut_operator: bool, yes: bool, output: str, data: Path) -> None:
    """Put the policy in FILE (YAML or JSON; - for standard input) in force, everywhere within a second.

    Shows first which calls are granted otherwise, and what would have become of those of the last day; on a
    terminal it asks. A policy that says what the one in force says changes nothing.
    """
    policy = load_policy(file)
    record = fetched(DataDirectory(data))
    guard = policy.version_guard
    if guard is not None and guard <= record.version:
        raise CliError(
            f"{file}: policy.version: {guard} is not newer than {record.version}, which is in force: "
            "get that one first, or leave the version out",
            Exit.REFUSED,
        )
    _put(DataDirectory(data), record, policy, _Wish(dry_run, cut_operator, yes, output))


@click.command()
@click.argument("version", type=click.IntRange(min=0), required=False)
@_dry_run
@_cut_operator
@_yes
@output_option
@data_option
def rollback(
    version: int | None, dry_run: bool, cut_operator: bool, yes: bool, output: str, data: Path
) -> None:
    """Put an earlier policy in force again: VERSION, or the one before the one in force.

    It gets a new version, for versions never go back. After a rollback, another one goes on backwards, from
    the version whose text is in force.
    """
    directory = DataDirectory(data)
    record = fetched(directory)
    wanted = _before(directory, record) if version is None else fetched(directory, version)
    wish = _Wish(dry_run, cut_operator, yes, output, restores=wanted.version)
    if output != "json":
        click.echo(f"rollback of policy {record.version} to the text of {wanted.version}")
    _put(directory, record, wanted.text, wish)


def _before(directory: DataDirectory, record: Record) -> Record:
    infos = listed(directory)
    stands = text_of(record.version, infos)
    for version in earlier(stands, infos):
        found = fetched(directory, version)
        if found.text != record.text:
            return found
    raise CliError(
        f"no other policy from before {stands} is kept but the first, which permits nothing: "
        "say which version, see mesh policy history",
        Exit.REFUSED,
    )


def text_of(version: int, infos: Iterable[auth_pb2.PolicyInfo]) -> int:
    """Give the version whose text another has: of a rollback to a rollback, the one that was applied."""
    restored = {info.version: info.restores for info in infos if info.HasField("restores")}
    while version in restored:
        version = restored[version]
    return version


def earlier(version: int, infos: Iterable[auth_pb2.PolicyInfo]) -> list[int]:
    """Give the versions before one, the newest first, without the empty policy of a new trust domain."""
    return sorted((info.version for info in infos if 0 < info.version < version), reverse=True)


def _put(directory: DataDirectory, record: Record, policy: Policy, wish: _Wish) -> None:
    if policy.version_guard is None and policy == record.text:
        _told(
            f"nothing changed: policy {record.version} says the same and stays in force",
            record.version,
            [],
            wish,
        )
        return
    found = _shown(directory, record, policy, wish)
    if wish.dry_run:
        if wish.output == "json":
            show_json({"differences": found})
        return
    if wish.asks and not click.confirm(f"replace policy {record.version}?"):
        click.echo(f"not applied: policy {record.version} stays in force")
        raise click.exceptions.Exit(Exit.FAILED)
    version = _applied(directory, record, policy, wish.restores)
    text = "" if wish.restores is None else f", with the text of {wish.restores}"
    _told(f"policy {version} is in force{text}", version, found, wish)


def _told(line: str, version: int, found: list[dict[str, object]], wish: _Wish) -> None:
    if wish.output == "json":
        told = {"version": version, "differences": found}
        show_json(told if wish.restores is None else told | {"restores": wish.restores})
    else:
        click.echo(line)


def _shown(directory: DataDirectory, record: Record, policy: Policy, wish: _Wish) -> list[dict[str, object]]:
    """Show what changes, and give it for programs; raise ``CliError`` where the operator would be cut off."""
    before = record.policy
    found = differences(before, policy)
    if wish.output != "json":
        for line in compared(before, policy, found):
            click.echo(line)
    if not wish.cut_operator:
        spare_operator(taken_from(OPERATOR.text, before, policy))
    if wish.forecasts:
        click.echo(forecast(policy, directory))
    return differences_data(before, policy, found)


def spare_operator(taken: list[Difference]) -> None:
    """Raise ``CliError`` if there is a difference that takes, or may take, a permission from the operator."""
    if taken:
        one = taken[0]
        what = ", ".join(one.methods[:3]) or "every method"
        takes = "takes" if one.sign == "-" else "may take"
        raise CliError(
            f"it {takes} {what} of {one.destination} from {OPERATOR}: use --cut-operator if that is meant",
            Exit.REFUSED,
        )


def _applied(directory: DataDirectory, record: Record, policy: Policy, restores: int | None) -> int:
    request = auth_pb2.ApplyPolicyRequest(
        document=policy.encode(), replaces=record.version, restores=restores
    )

    async def ask(operator: Operator) -> auth_pb2.ApplyPolicyResponse:
        return await operator.auth.ApplyPolicy(request, timeout=6 * PATIENCE)

    return asked(directory, ask).version
