"""The policy of record and those before it, as auth keeps them; ``mesh policy get`` and ``history``."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import click

from mesh.cli.data import DataDirectory, data_option
from mesh.cli.operator import PATIENCE, Operator, asked
from mesh.cli.output import instant, output_option, show_json, show_table
from mesh.cli.policy_file import load_policy, write_policy
from mesh.core.policy import Policy
from mesh.v1 import auth_pb2


@dataclass(frozen=True, slots=True)
class Record:
    """A version of the policy, as auth keeps it."""

    version: int
    document: bytes

    @property
    def policy(self) -> Policy:
        """The policy; auth has checked that it is one."""
        return Policy.parse(self.document)

    @property
    def text(self) -> Policy:
        """The policy without its own guard: equal for versions that say the same."""
        return replace(self.policy, version_guard=None)


def fetched(data: DataDirectory, version: int | None = None) -> Record:
    """Ask auth, as the operator, for the policy of record, or an earlier version."""

    async def ask(operator: Operator) -> auth_pb2.GetPolicyResponse:
        request = auth_pb2.GetPolicyRequest(version=version)
        return await operator.auth.GetPolicy(request, timeout=6 * PATIENCE)

    found = asked(data, ask).policy
    return Record(found.version, found.document)


def listed(data: DataDirectory) -> list[auth_pb2.PolicyInfo]:
    """Ask auth, as the operator, which policies it keeps, newest first."""

    async def ask(operator: Operator) -> auth_pb2.ListPoliciesResponse:
        return await operator.auth.ListPolicies(auth_pb2.ListPoliciesRequest(), timeout=6 * PATIENCE)

    return list(asked(data, ask).policies)


def named(name: str, data: DataDirectory) -> Policy:
    """Give the policy in a file, or the version of record that a number names."""
    return fetched(data, int(name)).policy if _is_version(name) else load_policy(name)


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 19  # noqa: PLR2004  fits 63 bits


@click.command()
@click.option("--version", type=click.IntRange(min=0), help="An earlier one, see mesh policy history.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="How to show it.",
)
@data_option
def get(version: int | None, output: str, data: Path) -> None:
    """Show the policy in force, or an earlier one, so that it can be changed and applied again."""
    found = fetched(DataDirectory(data), version)
    if output == "json":
        show_json({"version": found.version, "policy": json.loads(found.document)})
    else:
        click.echo(f"# version {found.version}\n{write_policy(found.document)}", nl=False)


@click.command()
@output_option
@data_option
def history(output: str, data: Path) -> None:
    """List the policies that auth keeps, newest first. The first one is in force.

    FROM is the version whose text a rollback has put in force again.
    """
    found = listed(DataDirectory(data))
    if output == "json":
        show_json(
            [
                {
                    "version": info.version,
                    "applied": instant(info.applied_ms),
                    "operator": info.instance,
                    "bytes": info.size,
                    "restores": info.restores if info.HasField("restores") else None,
                }
                for info in found
            ]
        )
        return
    show_table(("VERSION", "FROM", "APPLIED", "OPERATOR", "BYTES"), [_row(info) for info in found])


def _row(info: auth_pb2.PolicyInfo) -> list[str]:
    restores = str(info.restores) if info.HasField("restores") else "-"
    return [str(info.version), restores, instant(info.applied_ms), info.instance or "-", str(info.size)]
