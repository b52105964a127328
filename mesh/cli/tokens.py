"""``mesh token``: join tokens."""

from __future__ import annotations

from pathlib import Path

import click

from mesh.cli.data import DataDirectory, data_option
from mesh.cli.kinds import duration, service
from mesh.cli.known import policy_in_force, warn_of_unknown
from mesh.cli.operator import PATIENCE, Operator, asked
from mesh.cli.output import instant, output_option, show_json, show_table
from mesh.core.names import InstanceId, ServiceName
from mesh.core.policy import Policy
from mesh.joining import KEYS, LOCAL, REMOTE
from mesh.v1 import auth_pb2


@click.group()
def token() -> None:
    """Make, list and revoke join tokens."""


@token.command()
@click.argument("name", type=service, metavar="SERVICE")
@click.option(
    "--ttl",
    type=duration,
    metavar="DURATION",
    default="60s",
    show_default=True,
    help="How long it can be used.",
)
@click.option(
    "--keys",
    type=click.Choice(KEYS),
    default=LOCAL,
    show_default=True,
    help="Where the keys of what joins with it are: there, or with auth alone.",
)
@output_option
@data_option
def create(name: ServiceName, ttl: int, keys: str, output: str, data: Path) -> None:
    """Make a token with which one instance of SERVICE can join, once. It is shown only here."""

    async def ask(operator: Operator) -> tuple[auth_pb2.CreateTokenResponse, Policy | None]:
        request = auth_pb2.CreateTokenRequest(service=name.text, ttl_seconds=ttl, remote_keys=keys == REMOTE)
        made = await operator.auth.CreateToken(request, timeout=PATIENCE)
        return made, await policy_in_force(operator)

    made, policy = asked(DataDirectory(data), ask)
    if output == "json":
        show_json({"token": made.token, "expires": instant(made.expires_ms)})
    else:
        click.echo(made.token)
    if policy is not None:
        warn_of_unknown((name,), policy)


@token.command(name="list")
@output_option
@data_option
def list_(output: str, data: Path) -> None:
    """List tokens, without their secrets."""

    async def ask(operator: Operator) -> auth_pb2.ListTokensResponse:
        return await operator.auth.ListTokens(auth_pb2.ListTokensRequest(), timeout=PATIENCE)

    rows = [_row(found) for found in asked(DataDirectory(data), ask).tokens]
    if output == "json":
        show_json(rows)
    else:
        columns = ("id", "service", "state", "keys", "created", "expires", "instance")
        show_table(columns, [[row[column] or "-" for column in columns] for row in rows], columns[:3])


@token.command()
@click.argument("id_", metavar="ID")
@data_option
def revoke(id_: str, data: Path) -> None:
    """Make the unused token with this ID useless."""

    async def ask(operator: Operator) -> object:
        return await operator.auth.RevokeToken(auth_pb2.RevokeTokenRequest(id=id_), timeout=PATIENCE)

    asked(DataDirectory(data), ask)


def _row(found: auth_pb2.TokenInfo) -> dict[str, str | None]:
    return {
        "id": found.id,
        "service": found.service,
        "state": auth_pb2.TokenState.Name(found.state).removeprefix("TOKEN_STATE_").lower(),
        "keys": REMOTE if found.remote_keys else LOCAL,
        "created": instant(found.created_ms),
        "expires": instant(found.expires_ms),
        "instance": str(InstanceId(found.instance)) if found.instance else None,
    }
