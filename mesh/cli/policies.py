"""``mesh policy``: the policy of record, and the tools around policy files.

``policy_check`` and the modules beside it work on files alone; what is here talks to auth.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from mesh.cli.data import DataDirectory, data_option
from mesh.cli.operator import PATIENCE, Operator, asked
from mesh.cli.output import output_option, show_json
from mesh.cli.policy_check import check, schema
from mesh.cli.policy_diff import diff
from mesh.cli.policy_explain import explain
from mesh.cli.policy_file import read_policy, write_policy
from mesh.cli.policy_test import test
from mesh.v1 import auth_pb2


@click.group()
def policy() -> None:
    """Check, test, explain, apply and show the policy."""


for _command in (check, schema, test, explain, diff):
    policy.add_command(_command)


@policy.command()
@click.argument("file")
@output_option
@data_option
def apply(file: str, output: str, data: Path) -> None:
    """Put the policy in FILE (YAML or JSON; - for standard input) in force, everywhere within a second."""
    document = read_policy(file)

    async def ask(operator: Operator) -> auth_pb2.ApplyPolicyResponse:
        return await operator.auth.ApplyPolicy(
            auth_pb2.ApplyPolicyRequest(document=document), timeout=6 * PATIENCE
        )

    version = asked(DataDirectory(data), ask).version
    if output == "json":
        show_json({"version": version})
    else:
        click.echo(f"policy {version} is in force")


@policy.command()
@click.option(
    "-o",
    "--output",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="How to show it.",
)
@data_option
def get(output: str, data: Path) -> None:
    """Show the policy in force, so that it can be changed and applied again."""

    async def ask(operator: Operator) -> auth_pb2.GetPolicyResponse:
        return await operator.auth.GetPolicy(auth_pb2.GetPolicyRequest(), timeout=6 * PATIENCE)

    found = asked(DataDirectory(data), ask).policy
    if output == "json":
        show_json({"version": found.version, "policy": json.loads(found.document)})
    else:
        click.echo(f"# version {found.version}\n{write_policy(found.document)}", nl=False)
