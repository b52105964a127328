"""``mesh describe SERVICE``: shows what is known of a service (``dossier``), for people or for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from mesh.cli.data import DataDirectory
from mesh.cli.dossier import Dossier, as_data, gather
from mesh.cli.edges import show as show_edges
from mesh.cli.errors import CliError, Exit
from mesh.cli.known import meant
from mesh.cli.operator import asked
from mesh.cli.output import harmless, show_json, show_table
from mesh.core.names import ServiceName

#: Names that are listed before the rest is counted: JSON has them all.
NAMES: Final = 20
_INSTANCES: Final = ("instance", "address", "state", "joined", "age", "policy", "last seen")
_DENIALS: Final = ("time", "caller", "by", "method", "count", "why", "id")


def describe_service(name: ServiceName, output: str, data: DataDirectory) -> None:
    """Show what is known of a service; raise ``CliError`` for one of which nothing is."""
    found = asked(data, lambda operator: gather(operator, name))
    if not found.known and found.nodes is not None:
        near = meant(name, found.policy) if found.policy else ""
        raise CliError(f"nothing is known of a service {name}{near}: mesh status lists who is there")
    told = as_data(found)
    if output == "json":
        show_json(told)
    else:
        _show(found, told)
    if found.nodes is None:
        raise CliError(
            "gatekeeper does not answer: auth does, so see the output of mesh up", Exit.UNREACHABLE
        )


def _show(found: Dossier, told: dict[str, Any]) -> None:
    for line in heads(found, told):
        click.echo(harmless(line))
    for title, columns, rows in (
        ("instances", _INSTANCES, _instances(told)),
        ("last denials", _DENIALS, [_denial(one) for one in told["denials"]]),
    ):
        if rows:
            click.echo(f"\n{title}")
            show_table(columns, rows)
    if found.edges:
        click.echo("\ncalls of the last hour")
        show_edges(found.edges)


def heads(found: Dossier, told: dict[str, Any]) -> Iterator[str]:
    """Say line by line what is no table: policy, ban, rules, and what there is none of."""
    yield f"{'service':<14}{found.name}"
    yield f"{'policy':<14}{_policy(found, told)}"
    if ban := told["banned"]:
        yield f"{'banned':<14}since {ban['since']} by {ban['by']}: {ban['reason'] or 'no reason given'}"
    if not found.name.reserved:
        yield f"{'callers':<14}{_some(told['callers'])}"
        yield from _rules(told["rules"])
    calls = [f"{one['service']} ({', '.join(one['rules']) or 'in audit'})" for one in told["calls"]]
    yield f"{'may call':<14}{_some(calls)}"
    if found.nodes is not None and not found.nodes:
        yield f"{'instances':<14}none registered"
    if not found.denials:
        yield f"{'denials':<14}none lately"
    if found.edges is not None and not found.edges:
        yield f"{'last hour':<14}no calls recorded"


def _policy(found: Dossier, told: dict[str, Any]) -> str:
    if found.name.reserved:
        return "no policy decides about calls to it: the code does"
    if found.policy is None:
        return "none in force: everything is denied"
    if not found.listed:
        return f"version {found.version}, which does not have it: nobody can call it"
    return f"version {found.version}, mode {told['rules'].get('mode', 'enforce')}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMES
    return (", ".join(names[:NAMES]) or "none") + (f" and {more} more: see -o json" if more > 0 else "")


def _rules(rules: dict[str, Any]) -> Iterator[str]:
    for effect in ("allow", "deny"):
        for rule in rules.get(effect, ()):
            who, what = (", ".join(rule[part]) for part in ("principals", "paths"))
            yield f"  {effect} {rule['name']!r}: {who} -> {what}"
            for header in rule.get("headers", ()):
                yield f"    header {header['key']}: {' or '.join(header['values'])}"
            if "when" in rule:
                yield f"    when: {rule['when']}"
            if "mode" in rule:
                yield f"    mode: {rule['mode']}"


def _instances(told: dict[str, Any]) -> list[Sequence[str]]:
    version = told["policy"]["version"]
    rows: list[Sequence[str]] = [
        (
            one["instance"],
            one["address"] or "only calls",
            "registered",
            one["joined"] or "-",
            _age(one["age_seconds"]),
            f"{one['policy_version']}{'' if one['policy_version'] == version else ', not the newest'}",
            f"{one['last_seen_seconds']:.1f} s ago",
        )
        for one in told["instances"] or ()
    ]
    for one in told["revoked"]:
        why = f"revoked {one['since']} by {one['by']}: {one['reason'] or 'no reason given'}"
        rows.append((one["instance"], "-", why, one["joined"] or "-", "-", "-", "-"))
    return rows


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _denial(one: dict[str, Any]) -> Sequence[str]:
    why = one.get("detail") or (f"rule {one['rule']!r}" if one.get("rule") else "no rule allowed it")
    caller = one.get("service") or "unverified"
    by = one.get("by", "-").partition("/")[0]
    count = str(one.get("count", 1))
    return one["time"], caller, by, one.get("method", "-"), count, why, one.get("call_id", "-")
