"""Recorded traffic on the command line: from a file of lines, or from the running mesh.

``core.observed`` says what a line is. Here each is read by itself, so a file may be of any size; a line that
is wrong ends the command, with its number.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

import click
import grpc

from mesh.cli.data import DataDirectory
from mesh.cli.errors import CliError, Exit
from mesh.cli.kinds import moment
from mesh.cli.operator import Operator, asked
from mesh.core.document import PolicyError
from mesh.core.latency import Latency
from mesh.core.names import ServiceName
from mesh.core.observed import MAX_LINE, Gap, Observation, Seen, parse
from mesh.decisions import read_decision, read_latency, read_unrecorded
from mesh.v1 import decisions_pb2

_F = TypeVar("_F", bound=Callable[..., object])
_Found = TypeVar("_Found", Observation | Gap, Latency)

#: What stands for the running mesh where a file is wanted.
LIVE: Final = "live"
#: Seconds that gatekeeper may take for all that it has.
PATIENCE: Final = 120.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls: from a time on, before another, and to some services, or to any."""

    since_ms: int
    until_ms: int | None
    services: tuple[str, ...]

    def takes(self, seen: Seen) -> bool:
        """Whether some of the calls lie in the span of time, and are to one of the services."""
        return (
            seen.last_ms >= self.since_ms
            and (self.until_ms is None or seen.first_ms < self.until_ms)
            and (not self.services or seen.destination in self.services)
        )


def _names(_context: click.Context, _parameter: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(ServiceName(name).text for name in names)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def choosing(command: _F) -> _F:
    """Give a command the options that make a ``Wanted``, in the argument ``wanted``."""

    @wraps(command)
    def choose(**options: Any) -> object:
        since, until, services = (options.pop(name) for name in ("since", "until", "services"))
        return command(wanted=Wanted(since or 0, until, services), **options)

    for option in (
        click.option(
            "--service", "services", multiple=True, metavar="NAME", callback=_names, help="Calls to it alone."
        ),
        click.option("--until", type=moment, metavar="TIME", help="Calls before then."),
        click.option("--since", type=moment, metavar="TIME", help="From then on: 30m, 7d, or RFC 3339."),
    ):
        choose = option(choose)
    return cast(_F, choose)


def recorded(name: str, wanted: Wanted, data: DataDirectory) -> Iterable[Seen]:
    """Give what is recorded in a file, in standard input for ``-``, or in the mesh for ``live``."""
    return fetched(wanted, data) if name == LIVE else filter(wanted.takes, lines(name))


def lines(name: str) -> Iterator[Seen]:
    """Read a file line by line; raise ``CliError`` with the number of a line that is wrong."""
    with _opened(name) as file:
        number = 0
        while line := file.readline(MAX_LINE + 2):
            number += 1
            if line.strip():
                try:
                    yield parse(line.rstrip(b"\r\n"))
                except PolicyError as error:
                    raise CliError(f"{name}:{number}: {error}", Exit.REFUSED) from None


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(name).open("rb") as file:
            yield file
    except OSError as error:
        raise CliError(f"cannot read {name}: {error.strerror}") from None


def fetched(wanted: Wanted, data: DataDirectory, patience: float = PATIENCE) -> list[Seen]:
    """Ask gatekeeper, as the operator, for what is recorded."""
    return asked(data, lambda operator: listed(operator, wanted, patience))


async def listed(operator: Operator, wanted: Wanted, patience: float = PATIENCE) -> list[Seen]:
    """Ask gatekeeper for what is recorded, by an operator's stubs."""
    request = decisions_pb2.ListDecisionsRequest(
        since_ms=wanted.since_ms, until_ms=wanted.until_ms or 0, destinations=wanted.services
    )
    return [
        _seen(one)
        async for part in operator.decisions.ListDecisions(request, timeout=patience)
        for one in part.decisions
    ]


async def timed(operator: Operator, wanted: Wanted, patience: float = PATIENCE) -> list[Latency]:
    """Ask gatekeeper how long calls took; an older one does not know."""
    request = decisions_pb2.ListLatenciesRequest(since_ms=wanted.since_ms, until_ms=wanted.until_ms or 0)
    try:
        return [
            read_latency(one.latency, one.destination)
            async for part in operator.decisions.ListLatencies(request, timeout=patience)
            for one in part.latencies
        ]
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED):
            return []
        raise


def involving(found: Iterable[_Found], name: str) -> Iterator[_Found]:
    """Give what is of calls from a service or to it; all of it for an empty name."""
    for one in found:
        if name in ("", one.destination, getattr(one, "source", "")):
            yield one


def _seen(one: decisions_pb2.ListedDecision) -> Seen:
    if one.HasField("unrecorded"):
        return read_unrecorded(one.unrecorded, one.destination)
    return read_decision(one.decision, one.destination)


def told(seen: Seen) -> dict[str, Any]:
    """Give the line of what was seen, as data."""
    data: dict[str, Any] = json.loads(seen.encode())
    return data
