"""``mesh policy suggest``: the least policy that permits what was recorded, with how often each was seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import yaml

from mesh.cli.completion import files
from mesh.cli.data import DataDirectory, data_option
from mesh.cli.output import show_json
from mesh.cli.policy_observed import when
from mesh.cli.policy_record import fetched, named
from mesh.cli.recorded import LIVE, Wanted, choosing, recorded
from mesh.core.policy import Policy
from mesh.core.reach import check_reach
from mesh.core.suggest import Suggested, Suggesting, Suggestion, Use


@click.command()
@click.argument("observed", metavar="[RECORDED]", default=LIVE, shell_complete=files)
@choosing
@click.option(
    "--base", metavar="POLICY", help="Hold it against a file or version. [default for live: the one in force]"
)
@click.option("--include-denied", is_flag=True, help="Permit what was denied as well.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="How to show it; json has no remarks.",
)
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), help="Write it there.")
@data_option
def suggest(
    observed: str,
    wanted: Wanted,
    base: str | None,
    include_denied: bool,
    output: str,
    file: Path | None,
    data: Path,
) -> None:
    """Suggest the least policy that permits the recorded calls and no other, to be read and applied.

    RECORDED is a file of lines, - for standard input, or live for what the running mesh recorded, as it is
    unless said.
    """
    directory = DataDirectory(data)
    suggesting = Suggesting(_base(base, observed, directory), include_denied=include_denied)
    for seen in recorded(observed, wanted, directory):
        suggesting.take(seen)
    suggestion = suggesting.suggestion()
    check_reach(Policy.parse(suggestion.document()))
    if output == "json" and not file:
        show_json(json.loads(suggestion.document()))
        return
    held = suggesting.held
    text = suggestion.document().decode() if output == "json" else "\n".join(written(suggestion, held=held))
    if file:
        file.write_text(f"{text}\n")
    else:
        click.echo(text)


def _base(name: str | None, observed: str, directory: DataDirectory) -> Policy | None:
    if name:
        return named(name, directory)
    return fetched(directory).policy if observed == LIVE else None


def written(suggestion: Suggestion, *, held: bool = True) -> Iterator[str]:
    """Give a suggestion as lines of YAML, with remarks."""
    yield f"# Suggested by mesh policy suggest for {_seen(suggestion.use)}: these callers and methods, and no"
    yield "# other, whatever their metadata and the time. Headers, conditions and deny rules are not made up:"
    yield "# put back those that are needed. Who calls a service is that service's word: read it first."
    if not held:
        yield "# Not held against a policy, --base: that calls came by a rule with headers or condition is"
        yield "# only remarked if metadata was recorded that the policy looked at."
    yield "services:" if suggestion.services else "services: {}"
    for service, rules in suggestion.services.items():
        for use in filter(None, (suggestion.unrecorded.get(service),)):
            yield f"  # to {service}, {_seen(use)}, were not recorded: too many were different"
        if not rules:
            yield f"  {_plain(service)}: {{}}"
            continue
        yield f"  {_plain(service)}:"
        yield "    allow:"
        for rule in rules:
            yield from _rule(rule)
    if suggestion.unused:
        yield "# Allow rules of the policy that this was held against, and that none of these calls came by:"
        yield from (f"#   {one}" for one in suggestion.unused)


def _rule(rule: Suggested) -> Iterator[str]:
    yield from (f"      # {note}" for note in rule.notes)
    yield "      - principals:"
    yield from (f"          - {_plain(name)}  # {_seen(use)}" for name, use in rule.principals.items())
    yield "        paths:"
    yield from (f"          - {_plain(path)}  # {_seen(use)}" for path, use in rule.paths.items())


def _plain(text: str) -> str:
    # In quotes where YAML would read something else, such as null.
    quoted: str = yaml.safe_dump(text, width=10_000)
    return quoted.removesuffix("\n...\n").rstrip("\n")


def _seen(use: Use) -> str:
    if not use.count:
        return "no calls"
    return when(use)
