"""Names on the command line that the policy does not know: a warning, for the order of setting up is free."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import click
import grpc

from mesh.cli.operator import PATIENCE, Operator
from mesh.core.names import ServiceName
from mesh.core.policy import Policy
from mesh.v1 import auth_pb2


async def policy_in_force(operator: Operator) -> Policy | None:
    """Give the policy of record; without one, or if it does not come in time, there is nothing to compare."""
    try:
        found = await operator.auth.GetPolicy(auth_pb2.GetPolicyRequest(), timeout=PATIENCE)
        return Policy.parse(found.policy.document)
    except (grpc.aio.AioRpcError, ValueError):
        return None


def warn_of_unknown(names: Iterable[ServiceName], policy: Policy) -> None:
    """Say on standard error which names are no services of a policy, and which one may be meant.

    A policy without services, as a new mesh has, says nothing of names.
    """
    for name in dict.fromkeys(names):
        if not policy.services or name in policy.services or name.reserved:
            continue
        click.echo(f"warning: the policy has no service {name}{meant(name, policy)}", err=True)


def meant(name: ServiceName, policy: Policy) -> str:
    """Ask whether the service of a policy with the nearest name is meant; empty if none is near."""
    near = get_close_matches(name.text, sorted(service.text for service in policy.services), 1)
    return f": did you mean {near[0]}?" if near else ""
