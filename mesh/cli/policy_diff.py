"""``mesh policy diff``: which callers, services and methods a change of the policy concerns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import click

from mesh.cli.completion import files
from mesh.cli.data import DataDirectory, data_option
from mesh.cli.output import output_option, show_json
from mesh.cli.policy_record import fetched, named
from mesh.core.difference import Difference, differences
from mesh.core.grants import Grant, Scope
from mesh.core.modes import Switched, in_modes_of, switched
from mesh.core.patterns import ANY
from mesh.core.policy import Policy
from mesh.core.traffic_turns import Turn, turns

#: How many lines are shown, and how many names or methods in one.
LINES: Final = 200
SHOWN: Final = 6
#: How many characters are shown of a condition.
WIDTH: Final = 400

_SWITCHED: Final = (
    "enforce => audit: what is denied is only recorded, but for deny rules with mode: enforce",
    "audit => enforce: what was only recorded is denied, but for deny rules with mode: audit",
)
_OTHERWISE: Final = "but not as before"
_SCOPES: Final = {
    Scope.WIDER: "wider than before",
    Scope.NARROWER: "narrower than before",
    Scope.SAME: "as wide as before",
    Scope.UNKNOWN: f"{_OTHERWISE} (if wider or narrower is not known)",
}


@click.command()
@click.argument("old", shell_complete=files)
@click.argument("new", required=False, shell_complete=files)
@output_option
@data_option
def diff(old: str, new: str | None, output: str, data: Path) -> None:
    """Say which calls the policy NEW grants otherwise than OLD, and how they are made otherwise.

    Each is a file, or the number of a version that auth keeps; one alone is compared with the one in force.
    """
    directory = DataDirectory(data)
    before = named(old, directory) if new else fetched(directory).policy
    after = named(new or old, directory)
    if output == "json":
        show_json(differences_data(before, after, differences(before, after)))
        return
    for line in compared(before, after, differences(before, after)):
        click.echo(line)


def compared(old: Policy, new: Policy, found: list[Difference]) -> Iterator[str]:
    """Give lines for people: services, modes, what is granted or made otherwise, how much."""
    for name in sorted(new.services.keys() - old.services.keys()):
        yield f"+ service {name}"
    for name in sorted(old.services.keys() - new.services.keys()):
        yield f"- service {name}"
    modes = switched(old, new)
    if any(modes):
        yield from _modes(modes, len(new.services))
        found = differences(in_modes_of(new, old), new)
    for one in found[:LINES]:
        yield shown(one)
        yield from _terms(one)
    if len(found) > LINES:
        yield f"  and {len(found) - LINES} more: see mesh policy diff -o json"
    for turn in turns(old, new)[:LINES]:
        yield turn.text
    yield _summary([*_signs(modes), *(one.sign for one in found)])


def _modes(modes: Switched, every: int) -> Iterator[str]:
    for sign, names, what in zip("+-", modes, _SWITCHED, strict=True):
        if names:
            whose = "every service" if len(names) == every > 1 else _listed(names, len(names))
            yield f"{sign} mode of {whose}: {what}"


def _signs(modes: Switched) -> list[str]:
    return [sign for sign, names in zip("+-", modes, strict=True) if names]


def shown(one: Difference) -> str:
    """Give the line of a difference, for people."""
    sources = _listed((name if name != ANY else "all others" for name in one.sources), len(one.sources))
    methods = _listed((name if name != ANY else "all others" for name in one.methods), len(one.methods))
    grants = f"{one.before} => {one.after}"
    if one.sign == "?":
        grants = f"{one.after}, or not all"
    elif one.before is one.after:
        grants = f"{one.after}, {_SCOPES[one.scope] if one.before is Grant.CONDITION else _OTHERWISE}"
    return (
        f"{one.sign} {sources or 'every caller'} -> {one.destination} {methods or 'every method'}: {grants}"
    )


def _terms(one: Difference) -> Iterator[str]:
    for sign, terms in (("-", one.lost), ("+", one.gained)):
        yield from (f"    {sign} {term[:WIDTH]}{'...' * (len(term) > WIDTH)}" for term in terms[:SHOWN])
        if len(terms) > SHOWN:
            yield f"    {sign} and {len(terms) - SHOWN} more"


def _listed(names: Iterable[str], count: int) -> str:
    shown = ", ".join(name for name, _ in zip(names, range(SHOWN), strict=False))
    return shown + (f" and {count - SHOWN} more" if count > SHOWN else "")


def _summary(signs: list[str]) -> str:
    if not signs:
        return "no call is granted otherwise"
    told = (("+", "more"), ("-", "less"), ("~", "otherwise"), ("?", "not compared"))
    return "granted " + ", ".join(f"{what}: {signs.count(sign)}" for sign, what in told if sign in signs)


def differences_data(old: Policy, new: Policy, found: Iterable[Difference]) -> list[dict[str, object]]:
    """Give for programs what is granted otherwise, and what is done otherwise with calls."""
    made = ({"sign": "~", "traffic": turn.part, **_turn_data(turn)} for turn in turns(old, new))
    return [*map(difference_data, found), *made]


def _turn_data(turn: Turn) -> dict[str, object]:
    return {"destination": turn.destination, "before": turn.before, "after": turn.after}


def difference_data(one: Difference) -> dict[str, object]:
    """Give a difference for programs."""
    return {
        "sign": one.sign,
        "sources": one.sources or [ANY],
        "every_source": not one.sources,
        "destination": one.destination,
        "methods": one.methods or [ANY],
        "every_method": not one.methods,
        "before": one.before,
        "after": one.after,
        "scope": one.scope,
        "lost": one.lost,
        "gained": one.gained,
    }
