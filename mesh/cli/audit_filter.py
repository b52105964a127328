"""Which entries ``mesh audit query`` and ``tail`` show, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, Final, TypeVar, cast

import click

from mesh.cli.kinds import call_id, moment
from mesh.cli.output import harmless, instant
from mesh.core.audit import Entry, Kind, Verdict

_F = TypeVar("_F", bound=Callable[..., object])

COLUMNS: Final = (
    "time",
    "kind",
    "event",
    "verdict",
    "service",
    "method",
    "rule",
    "by",
    "count",
    "id",
    "detail",
)
#: What of it is shown whole, however narrow the terminal is.
WHOLE: Final = ("time", "event", "verdict", "service", "by", "id")
_KINDS: Final = click.Choice([kind.value for kind in Kind])
_VERDICTS: Final = click.Choice([verdict.value for verdict in Verdict])
#: How much of an instance is shown as the id of an entry.
_SHORT: Final = 8


@dataclass(frozen=True, slots=True)
class Filter:
    """What an entry has to be to be shown. An empty condition is none.

    That an operator's command began is shown only where its kind is asked for.
    """

    since_ms: int = 0
    until_ms: int = 2**63
    kinds: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    verdict: str = ""
    alarms: bool = False

    def takes(self, entry: Entry) -> bool:
        """Whether an entry is shown. A service is whom it is about, and by whose word."""
        about = {entry.service, entry.by.partition("/")[0]}
        return (
            max(entry.at_ms, entry.until_ms) >= self.since_ms
            and entry.at_ms < self.until_ms
            and (entry.kind in self.kinds if self.kinds else entry.kind is not Kind.SESSION)
            and (not self.services or not about.isdisjoint(self.services))
            and (not self.methods or entry.method in self.methods)
            and (not self.ids or entry.call_id in self.ids)
            and self.verdict in ("", entry.verdict)
            and (entry.alarm or not self.alarms)
        )


def filters(command: _F) -> _F:
    """Give a command the options that make a ``Filter``, in the argument ``chosen``."""

    @wraps(command)
    def choose(**options: Any) -> object:
        chosen = Filter(
            options.pop("since") or 0,
            options.pop("until") or 2**63,
            frozenset(options.pop("kind")),
            frozenset(options.pop("service")),
            frozenset(options.pop("method")),
            frozenset(options.pop("id_")),
            options.pop("verdict") or "",
            options.pop("alarms"),
        )
        return command(chosen=chosen, **options)

    for option in reversed(
        (
            click.option("--since", type=moment, metavar="TIME", help="From then on: 15m, or RFC 3339."),
            click.option("--until", type=moment, metavar="TIME", help="Before then."),
            click.option("--kind", multiple=True, type=_KINDS, help="What it is about."),
            click.option("--service", multiple=True, metavar="NAME", help="About it, or by its word."),
            click.option("--method", multiple=True, metavar="METHOD", help="The full method."),
            click.option(
                "--id",
                "id_",
                multiple=True,
                type=call_id,
                metavar="ID",
                help="The id that the caller was told.",
            ),
            click.option("--verdict", type=_VERDICTS, help="How it ended."),
            click.option("--alarms", is_flag=True, help="Alarms alone."),
        )
    ):
        choose = option(choose)
    return cast(_F, choose)


def as_data(log: str, sequence: int, entry: Entry) -> dict[str, object]:
    """Give an entry as it is shown in JSON: what does not apply is left out."""
    told: dict[str, object] = {"log": log, "seq": sequence, "time": instant(entry.at_ms)}
    for one in fields(Entry):
        value = getattr(entry, one.name)
        if value != one.default or one.name == "verdict":
            told[one.name] = value
    return told


def as_rows(shown: Iterable[dict[str, object]]) -> list[Sequence[str]]:
    """Give entries as rows of ``COLUMNS``, in letters that do nothing to a terminal."""
    told = ({**entry, "id": _id(entry)} for entry in shown)
    return [[harmless(str(entry.get(column, "-"))) for column in COLUMNS] for entry in told]


def _id(entry: dict[str, object]) -> str:
    """Tell an entry from others like it: by its call, else its token, else the instance that it is about."""
    instance = str(entry.get("instance", "-"))
    return str(entry.get("call_id") or entry.get("token_id") or instance[:_SHORT])
