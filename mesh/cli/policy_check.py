"""``mesh policy check`` and ``schema``: what can be said of a policy without a mesh."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files as resources
from typing import Final

import click

from mesh.cli.completion import files
from mesh.cli.output import counted, harmless, output_option, show_json
from mesh.cli.policy_file import load_policy
from mesh.core.groups import GROUP
from mesh.core.patterns import ANY, source_patterns
from mesh.core.policy import Mode, Policy
from mesh.core.traffic_effect import without_effect
from mesh.core.zones import is_known

SCHEMA: Final = "policy.schema.json"
#: How many notes are shown of one policy.
SHOWN: Final = 20


@click.command()
@click.argument("files", nargs=-1, required=True, shell_complete=files)
@output_option
def check(files: tuple[str, ...], output: str) -> None:
    """Say whether the policy in each FILE is good, as auth would judge it. Needs no mesh."""
    found = [(file, load_policy(file)) for file in files]
    if output == "json":
        show_json([{"file": file, **_counts(policy), "notes": notes(policy)} for file, policy in found])
        return
    for file, policy in found:
        numbers = ", ".join(counted(number, what) for what, number in _counts(policy).items())
        click.echo(harmless(f"{file}: good: {numbers}"))
        said = notes(policy)
        for note in said[:SHOWN]:
            click.echo(f"  note: {note}")
        if len(said) > SHOWN:
            click.echo(f"  note: and {len(said) - SHOWN} more: see -o json")


@click.command()
def schema() -> None:
    """Show the JSON Schema of policies, for editors."""
    click.echo((resources("mesh.cli") / SCHEMA).read_text(), nl=False)


def notes(policy: Policy) -> list[str]:
    """Give what is allowed in a policy, and yet may not be meant."""
    return [
        *_unmatched(policy),
        *_unused(policy),
        *_audited(policy),
        *_zones(policy),
        *without_effect(policy),
    ]


def _counts(policy: Policy) -> dict[str, int]:
    rules = [rule for section in policy.services.values() for _, rule in section.rules("")]
    return {"services": len(policy.services), "groups": len(policy.groups.members), "rules": len(rules)}


def _principals(policy: Policy) -> Iterator[tuple[str, str]]:
    for name, section in policy.services.items():
        for at, rule in section.rules(f"services.{name}"):
            for principal in rule.principals:
                yield at, principal
    for group, members in policy.groups.members.items():
        for principal in members:
            yield f"groups.{group}", principal


def _unmatched(policy: Policy) -> Iterator[str]:
    matching = {pattern for name in policy.services for pattern in source_patterns(name.text)}
    for at, principal in _principals(policy):
        if ANY in principal and principal not in matching and principal != ANY:
            yield f"{at}: {principal!r} matches no service of this policy"


def _unused(policy: Policy) -> Iterator[str]:
    used = {principal for _, principal in _principals(policy)}
    for group in policy.groups.members:
        if GROUP + group not in used:
            yield f"groups.{group}: no rule refers to it"


def _audited(policy: Policy) -> Iterator[str]:
    names = [name.text for name in policy.services if policy.section(name).audits]
    if policy.mode is Mode.AUDIT and len(names) == len(policy.services):
        yield "mode: audit: nothing is denied anywhere"
    elif names:
        yield f"mode: audit: nothing is denied at {', '.join(names[:SHOWN])}"


def _zones(policy: Policy) -> Iterator[str]:
    for name, section in policy.services.items():
        for at, rule in section.rules(f"services.{name}"):
            for zone in rule.when.zones if rule.when else ():
                if not is_known(zone):
                    yield f"{at}: cannot be judged where, as here, the time zone {zone!r} is not known"
