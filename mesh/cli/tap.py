"""``mesh tap``: calls to a service while they end, one a line, by the word of its nodes.

Who, what, verdict, why, status, how long: there is nothing of metadata or messages in it. That it began is in
the audit log. What was over what nodes and gatekeeper tell is counted, and said.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mesh.cli.data import DataDirectory, data_option
from mesh.cli.kinds import full_method, service
from mesh.cli.operator import operator
from mesh.cli.output import counted, harmless, wide_option
from mesh.cli.stat import seconds
from mesh.core.names import INSTANCE_BYTES, FullMethod, InstanceId, ServiceName
from mesh.core.observed import VERDICTS
from mesh.taps import REJECT
from mesh.v1 import tap_pb2


@dataclass(frozen=True, slots=True)
class Tapped:
    """A call, and the instance that told of it."""

    destination: str
    instance: bytes
    call: tap_pb2.TappedCall


@click.command()
@click.argument("name", type=service, metavar="SERVICE")
@click.option("--from", "source", type=service, metavar="NAME", help="Calls from it alone.")
@click.option("--to", type=service, metavar="NAME", help="Calls from SERVICE to it, not those to SERVICE.")
@click.option("--method", type=full_method, metavar="METHOD", help="As /package.Service/Method.")
@click.option("--verdict", type=click.Choice([*VERDICTS, REJECT]), help="Only calls with this one.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="End after so many calls.")
@wide_option
@data_option
def tap(
    name: ServiceName,
    source: ServiceName | None,
    to: ServiceName | None,
    method: FullMethod | None,
    verdict: str | None,
    limit: int | None,
    output: str,
    data: Path,
) -> None:
    """Show calls to SERVICE as they end, until Ctrl-C: who called what, the verdict, the status, how long."""
    if to and source:
        raise click.UsageError("--from and --to exclude each other: with --to, calls are from SERVICE")
    caller, destination = (name, to) if to else (source, name)
    wanted = tap_pb2.TapFilter(
        source=caller.text if caller else "", method=method.text if method else "", verdict=verdict or ""
    )
    request = tap_pb2.TapRequest(destination=destination.text, filter=wanted)
    asyncio.run(_show(request, limit, output, DataDirectory(data)))


async def _show(request: tap_pb2.TapRequest, limit: int | None, output: str, data: DataDirectory) -> None:
    number = 0
    async for one in _calls(request, data):
        click.echo(json.dumps(as_data(one)) if output == "json" else as_line(one, wide=output == "wide"))
        number += 1
        if number == limit:
            return


async def _calls(request: tap_pb2.TapRequest, data: DataDirectory) -> AsyncIterator[Tapped]:
    async with operator(data) as connected:
        call, began = connected.taps.Tap(request), False
        try:
            async for part in call:
                if not began:
                    began = True
                    _say_begun(request.destination, part.nodes)
                if part.dropped:
                    click.echo(f"and {counted(part.dropped, 'calls')} more, too many to be told", err=True)
                for one in part.calls:
                    yield Tapped(request.destination, part.instance, one)
        finally:
            call.cancel()
    click.echo("the tap has ended: start it again to see more", err=True)


def _say_begun(destination: str, nodes: int) -> None:
    if nodes:
        click.echo(f"tapping {counted(nodes, 'instances')} of {destination}: Ctrl-C to end", err=True)
    else:
        click.echo(
            f"warning: no instance of {destination} is there to tell of its calls: see mesh status", err=True
        )


def as_data(one: Tapped) -> dict[str, Any]:
    """Give a call as it is shown in JSON."""
    call = one.call
    return {
        "time": _time(call.at_ms),
        "source": call.source or None,
        "source_instance": _instance(call.source_instance) or None,
        "destination": one.destination,
        "destination_instance": _instance(one.instance),
        "method": call.method,
        "verdict": call.verdict,
        "rule": call.rule or None,
        "reason": call.reason or None,
        "status": call.status or None,
        "seconds": call.duration_us / 1e6 if call.status else None,
        "call_id": call.call_id,
        "key_epoch": call.key_epoch or None,
        "sequence": call.sequence if call.key_epoch else None,
    }


def as_line(one: Tapped, *, wide: bool = False) -> str:
    """Give a call as a line for people."""
    call, told = one.call, as_data(one)
    source, destination = call.source or "somebody unverified", one.destination
    if wide:
        source = f"{source}/{told['source_instance']}" if told["source_instance"] else source
        destination = f"{destination}/{told['destination_instance']}"
    words = [told["time"], source, "->", destination, call.method, call.verdict]
    words += [call.status, seconds(told["seconds"])] if call.status else []
    words += [f"rule={call.rule}"] if call.rule else []
    words += [f"reason={call.reason}"] if call.reason else []
    words += [f"id={call.call_id}"] if wide or call.reason or call.verdict in ("deny", REJECT) else []
    words += [f"epoch={call.key_epoch} sequence={call.sequence}"] if wide and call.key_epoch else []
    return harmless(" ".join(words))


def _instance(raw: bytes) -> str:
    return str(InstanceId(raw)) if len(raw) == INSTANCE_BYTES else ""


def _time(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03}Z"
