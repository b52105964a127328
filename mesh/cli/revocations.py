"""``mesh revoke``, ``ban``, ``unban`` and ``revoked``: who is a member no more, at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

import click

from mesh.cli.data import DataDirectory, data_option
from mesh.cli.errors import CliError, Exit
from mesh.cli.kinds import instance_of, service
from mesh.cli.known import policy_in_force, warn_of_unknown
from mesh.cli.operator import PATIENCE, Operator, asked
from mesh.cli.output import counted, instant, output_option, show_json, show_table
from mesh.core.names import INSTANCE_BYTES, InstanceId, ServiceName
from mesh.core.policy import Policy
from mesh.core.revoked import MAX_REVOKED
from mesh.v1 import gatekeeper_pb2, revocation_pb2

_Done: TypeAlias = revocation_pb2.RevokeResponse | revocation_pb2.BanResponse

_COLUMNS: Final = ("service", "instance", "state", "since", "forgotten", "by", "reason")

reason_option = click.option("--reason", default="", metavar="TEXT", help="Why, for the audit log.")
force_option = click.option("--force", is_flag=True, help="Even one of the mesh's own services.")


@click.command()
@click.argument("target", type=instance_of, metavar="SERVICE[/INSTANCE]")
@reason_option
@force_option
@output_option
@data_option
def revoke(target: tuple[ServiceName, str], reason: str, force: bool, output: str, data: Path) -> None:
    """Make an instance, or all that SERVICE has now, a member no more. New ones may join in their place.

    Of an INSTANCE that is registered the first 8 digits are enough.
    """
    name, instance = target

    async def ask(operator: Operator) -> _Done:
        raw = await _whole(operator, name, instance) if instance else b""
        request = revocation_pb2.RevokeRequest(service=name.text, instance=raw, reason=reason, force=force)
        return await operator.revocation.Revoke(request, timeout=PATIENCE)

    _end(name, ask, output, data)


async def _whole(operator: Operator, name: ServiceName, digits: str) -> bytes:
    """Give the instance of a service that begins with these digits, where they are not all of it."""
    if len(digits) == 2 * INSTANCE_BYTES:
        return InstanceId.parse(digits).raw
    listed = await operator.gatekeeper.ListNodes(gatekeeper_pb2.ListNodesRequest(), timeout=PATIENCE)
    nodes = [node.instance for node in listed.nodes if node.service == name.text]
    found = [raw for raw in nodes if raw.hex().startswith(digits)]
    if len(found) != 1:
        what = "no registered instance begins" if not found else f"{len(found)} instances begin"
        raise CliError(
            f"{what} with {name}/{digits}: give all 32 digits, as mesh token list has them",
            Exit.REFUSED,
        )
    return found[0]


@click.command()
@click.argument("name", type=service, metavar="SERVICE")
@reason_option
@force_option
@output_option
@data_option
def ban(name: ServiceName, reason: str, force: bool, output: str, data: Path) -> None:
    """Revoke all that SERVICE has, and let none join as it until it is unbanned."""

    async def ask(operator: Operator) -> _Done:
        request = revocation_pb2.BanRequest(service=name.text, reason=reason, force=force)
        return await operator.revocation.Ban(request, timeout=PATIENCE)

    then = f"{name} is banned: none can join as it until mesh unban {name}"
    _end(name, ask, output, data, then)


@click.command()
@click.argument("name", type=service, metavar="SERVICE")
@reason_option
@data_option
def unban(name: ServiceName, reason: str, data: Path) -> None:
    """Let SERVICE join again, with new tokens. What was revoked stays so."""

    async def ask(operator: Operator) -> revocation_pb2.UnbanResponse:
        request = revocation_pb2.UnbanRequest(service=name.text, reason=reason)
        return await operator.revocation.Unban(request, timeout=PATIENCE)

    asked(DataDirectory(data), ask)
    click.echo(f"{name} can join again: make tokens with mesh token create {name}")


@click.command()
@output_option
@data_option
def revoked(output: str, data: Path) -> None:
    """List what is banned, and what is revoked and not forgotten yet."""

    async def ask(operator: Operator) -> revocation_pb2.ListRevokedResponse:
        return await operator.revocation.ListRevoked(revocation_pb2.ListRevokedRequest(), timeout=PATIENCE)

    rows = [_row(found) for found in asked(DataDirectory(data), ask).revocations]
    if output == "json":
        show_json(rows)
    else:
        show_table(_COLUMNS, [[row[column] or "-" for column in _COLUMNS] for row in rows], _COLUMNS[:3])


def _end(
    name: ServiceName,
    ask: Callable[[Operator], Awaitable[_Done]],
    output: str,
    data: Path,
    then: str = "",
) -> None:
    """Have auth end members of a service, show what it ended and what holds then, warn if none knows it."""

    async def both(operator: Operator) -> tuple[_Done, Policy | None]:
        return await ask(operator), await policy_in_force(operator)

    done, policy = asked(DataDirectory(data), both)
    _show(name, done, output)
    if then and output != "json":
        click.echo(then)
    if policy is not None:
        warn_of_unknown((name,), policy)


def _show(name: ServiceName, done: _Done, output: str) -> None:
    ids, tokens = [str(InstanceId(raw)) for raw in done.instances], done.tokens
    if output == "json":
        show_json({"service": name.text, "instances": ids, "tokens": tokens, "untold": done.untold})
        return
    for instance in ids:
        click.echo(f"revoked {name}/{instance}")
    if ids or tokens:
        instances, unused = counted(len(ids), "instances"), counted(tokens, "unused tokens")
        click.echo(f"{instances} and {unused} of {name} revoked")
    elif not done.untold:
        click.echo(f"nothing to revoke: {name} has no instance and no unused token left")
    if done.untold:
        click.echo(
            f"{done.untold} more revoked at auth, but nodes are told of {MAX_REVOKED} at most: "
            f"withdraw {name} in the policy until its certificates have ended"
        )


def _row(found: revocation_pb2.RevocationInfo) -> dict[str, str | None]:
    return {
        "service": found.service,
        "instance": str(InstanceId(found.instance)) if found.instance else None,
        "state": "revoked" if found.instance else "banned",
        "since": instant(found.at_ms),
        "forgotten": instant(found.until_ms) if found.until_ms else None,
        "by": found.by,
        "reason": found.reason or None,
    }
