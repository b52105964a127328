"""``mesh policy explain``: the rule that decides a call, or the nearest one and the smallest change."""

from __future__ import annotations

import time as clock
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from mesh.cli.cases import instant_ms
from mesh.cli.completion import files
from mesh.cli.data import DataDirectory, data_option
from mesh.cli.kinds import service
from mesh.cli.known import warn_of_unknown
from mesh.cli.output import output_option, show_json
from mesh.cli.policy_file import load_policy
from mesh.cli.policy_record import fetched
from mesh.cli.proposal import path, proposal
from mesh.core.condition import Call
from mesh.core.explain import Explanation
from mesh.core.explain import explain as explained
from mesh.core.metadata import Entries, checked_entries
from mesh.core.names import FullMethod, ServiceName
from mesh.core.nearest import unjudged
from mesh.core.patterns import method_patterns
from mesh.core.policy import Policy
from mesh.core.rules import Placed


@click.command()
@click.argument("source", metavar="FROM", type=service)
@click.argument("destination", metavar="TO", type=service)
@click.argument("method")
@click.option(
    "--policy", metavar="FILE", shell_complete=files, help="The policy in FILE instead of the one in force."
)
@click.option("-m", "--metadata", metavar="KEY=VALUE", multiple=True, help="Sent with the call; repeatable.")
@click.option("--time", help="When, such as 2027-01-04T12:00:00Z; now unless said.")
@output_option
@data_option
def explain(
    source: ServiceName,
    destination: ServiceName,
    method: str,
    policy: str | None,
    metadata: tuple[str, ...],
    time: str | None,
    output: str,
    data: Path,
) -> None:
    """Say which rule decides a call of FROM to TO's METHOD, or what the smallest change is to permit it."""
    try:
        now_ms = instant_ms(time) if time else int(clock.time() * 1000)
        call = Call(source.text, destination.text, FullMethod(method).text, _entries(metadata), now_ms)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if destination.reserved:
        raise click.UsageError(f"no policy decides about calls to {destination}: the code does")
    judged = load_policy(policy) if policy else fetched(DataDirectory(data)).policy
    warn_of_unknown((source, destination), judged)
    found = explained(judged, call)
    if output == "json":
        show_json(_data(call, found))
        return
    for line in as_lines(judged, call, found):
        click.echo(line)
    if not time and _asks_the_time(judged, call, found):
        now = datetime.fromtimestamp(now_ms // 1000, UTC)
        click.echo(f"judged at {now:%Y-%m-%dT%H:%M:%SZ}: use --time for another")


def _asks_the_time(policy: Policy, call: Call, found: Explanation) -> bool:
    section = policy.section(ServiceName(call.destination))
    sources, methods = section.groups.patterns(call.source), method_patterns(call.method)
    shown = [found.nearest.rule] if found.nearest else []
    speaking = [
        rule
        for _, rule in section.rules("")
        if rule.speaks_of(sources) and not set(rule.paths).isdisjoint(methods)
    ]
    return any(rule.when is not None and rule.when.timed for rule in (*shown, *speaking))


def _entries(metadata: tuple[str, ...]) -> Entries:
    pairs = []
    for item in metadata:
        key, equals, value = item.partition("=")
        if not equals:
            msg = f"{item!a:.80} is not KEY=VALUE"
            raise ValueError(msg)
        pairs.append((key, value))
    return checked_entries(pairs)


def as_lines(policy: Policy, call: Call, found: Explanation) -> Iterator[str]:
    """Say what came of it, line by line."""
    yield f"{call.source} -> {call.destination} {call.method}: {found.verdict.word}: {found.verdict.why}"
    if found.deciding:
        yield f"decided by {placed(found.deciding)}"
        yield from (f"  {line}" for line in _shown(found.deciding.rule.principals, found.deciding))
        yield from _doubt(found, found.deciding, call)
    for one in found.denying:
        if one is not found.deciding:
            yield f"also speaks against it: {placed(one)}"
            yield from _doubt(found, one, call)
    if found.nearest:
        yield f"nearest: {placed(found.nearest)}"
        yield from (f"  {lack.text}" for lack in found.lacks)
    if found.changes:
        yield "smallest change:"
        yield from (f"  {line}" for line in proposal(policy, found.changes))
    elif found.broken:
        yield f"no change is proposed: first correct the condition of {', '.join(map(placed, found.broken))}"
    elif not found.verdict.permitted:
        yield "no single change permits it: the rules that deny it would have to be written anew"


def _doubt(found: Explanation, one: Placed, call: Call) -> Iterator[str]:
    why = unjudged(one.rule, call) if one in found.denying else ""
    if why:
        yield f"  {why}: so it denies"


def _shown(principals: tuple[str, ...], one: Placed) -> Iterator[str]:
    yield f"principals: {', '.join(principals)}"
    yield f"paths: {', '.join(one.rule.paths)}"
    for header in one.rule.headers:
        yield f"header {header.key}: {' or '.join(header.values)}"
    if one.rule.when:
        yield f"when: {one.rule.when.text}"


def placed(one: Placed) -> str:
    """Name a rule and the place where it stands."""
    return f"rule {one.rule.name!r} at {path(one.place)}"


def _data(call: Call, found: Explanation) -> dict[str, object]:
    return {
        "source": call.source,
        "destination": call.destination,
        "method": call.method,
        "verdict": found.verdict.word,
        "why": found.verdict.why,
        "rule": found.deciding and {"name": found.deciding.rule.name, "place": path(found.deciding.place)},
        "denying": [{"name": one.rule.name, "place": path(one.place)} for one in found.denying],
        "nearest": found.nearest and {"name": found.nearest.rule.name, "place": path(found.nearest.place)},
        "lacks": [lack.text for lack in found.lacks],
        "changes": [
            {
                "action": change.action,
                "place": path(change.place),
                "value": change.value,
                "drops": change.drops,
            }
            for change in found.changes
        ],
        "broken": [{"name": one.rule.name, "place": path(one.place)} for one in found.broken],
    }
