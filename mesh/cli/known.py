"""Names on the command line that the policy does not know: a warning, for the order of setting up is free."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import click

from mesh.core.names import ServiceName
from mesh.core.policy import Policy


def warn_of_unknown(names: Iterable[ServiceName], policy: Policy) -> None:
    """Say on standard error which names are no services of a policy, and which one may be meant.

    A policy without services, as a new mesh has, says nothing of names.
    """
    for name in dict.fromkeys(names):
        if not policy.services or name in policy.services or name.reserved:
            continue
        near = get_close_matches(name.text, sorted(service.text for service in policy.services), 1)
        meant = f": did you mean {near[0]}?" if near else ""
        click.echo(f"warning: the policy has no service {name}{meant}", err=True)
