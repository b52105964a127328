"""``mesh policy apply`` and ``rollback``: what is to change is shown first, and only that is changed.

Auth is told which version the difference was shown against. If another operator was faster it refuses, so
nothing is overwritten that nobody has seen.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from mesh.cli.data import DataDirectory, data_option
from mesh.cli.errors import CliError, Exit
from mesh.cli.operator import PATIENCE, Operator, asked
from mesh.cli.output import output_option, show_json
from mesh.cli.policy_diff import compared, difference_data
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


_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only show what would change.")
_cut_operator = click.option(
    "--cut-operator", is_flag=True, help="Even if that takes permissions from mesh.operator."
)


@click.command()
@click.argument("file")
@_dry_run
@_cut_operator
@_yes
@output_option
@data_option
def apply(file: str, dry_run: bool, cut_operator: bool, yes: bool, output: str, data: Path) -> None:
    """Put the policy in FILE (YAML or JSON; - for standard input) in force, everywhere within a second.

    Shows first which calls are granted otherwise, and on a terminal what would have become of those of the
    last day, and asks.
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

    It gets a new version, for versions never go back.
    """
    directory = DataDirectory(data)
    record = fetched(directory)
    wanted = _before(directory, record) if version is None else version
    document = json.loads(fetched(directory, wanted).document)
    document.pop("version", None)
    _put(directory, record, Policy.parse(json.dumps(document)), _Wish(dry_run, cut_operator, yes, output))


def _before(directory: DataDirectory, record: Record) -> int:
    earlier = [info.version for info in listed(directory) if info.version < record.version]
    if not earlier:
        raise CliError("no earlier policy is kept: see mesh policy history", Exit.REFUSED)
    return max(earlier)


def _put(directory: DataDirectory, record: Record, policy: Policy, wish: _Wish) -> None:
    before = record.policy
    found = differences(before, policy)
    as_text = wish.output != "json"
    if as_text:
        for line in compared(before, policy):
            click.echo(line)
    if not wish.cut_operator:
        spare_operator(taken_from(OPERATOR.text, before, policy))
    asking = as_text and not wish.yes and sys.stdin.isatty() and sys.stdout.isatty()
    if asking or (as_text and wish.dry_run):
        click.echo(forecast(policy, directory))
    if wish.dry_run:
        if not as_text:
            show_json({"differences": [difference_data(one) for one in found]})
        return
    if asking:
        click.confirm(f"replace policy {record.version}?", abort=True)
    version = _applied(directory, record, policy)
    if as_text:
        click.echo(f"policy {version} is in force")
    else:
        show_json({"version": version, "differences": [difference_data(one) for one in found]})


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


def _applied(directory: DataDirectory, record: Record, policy: Policy) -> int:
    request = auth_pb2.ApplyPolicyRequest(document=policy.encode(), replaces=record.version)

    async def ask(operator: Operator) -> auth_pb2.ApplyPolicyResponse:
        return await operator.auth.ApplyPolicy(request, timeout=6 * PATIENCE)

    return asked(directory, ask).version
