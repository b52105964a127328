"""Figures as one document for machines, and that document as tables for people.

The tables are made from the document alone, so the two cannot differ. A dash is what was not measured; the
last lines say why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

from bench.direct import CLIENT_PROXY, PLACES
from bench.figures import Sample, Summary, added_cpu, added_latency
from bench.rounds import Load, Rounds

DIRECT: Final = "direct"
EMBEDDED: Final = "embedded"
SIDECAR: Final = "sidecar"
ENVOY: Final = "Envoy pair"
VARIANTS: Final = (DIRECT, EMBEDDED, SIDECAR, ENVOY)

#: When memory is looked at, beside halfway through a load of very many calls at once.
IDLE: Final = "idle"
AFTER: Final = "after all loads"
CROWD: Final = 256

_MICRO: Final = 1e6
#: MB by variant and place.
_Held: TypeAlias = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Target:
    """One row of what the design promises, and what was measured; ``None`` if nothing was."""

    what: str
    must: str
    aim: str
    measured: float | None
    unit: str = ""


def loads(rounds: Rounds, asked: Sequence[Load]) -> dict[str, Any]:
    """Give everything that was measured with traffic, by load and variant."""
    return {load.name: _load(load, rounds.samples[load.name]) for load in asked}


def targets(
    measured: Mapping[str, Any],
    memory: Mapping[str, _Held],
    decisions: Mapping[str, float],
    joins: Mapping[str, float],
) -> list[Target]:
    """Give the rows of the design's table that a bench can fill, and what belongs beside them."""

    def ratio(what: str, load: str, key: str, must: str, aim: str) -> Iterator[Target]:
        for name in (EMBEDDED, SIDECAR):
            found = _variant_of(measured, load, name).get("of_envoy", {}).get(key)
            bounds = (must, aim) if name == EMBEDDED else ("", "")
            yield Target(f"{name} adds, of what Envoy's pair adds: {what}", *bounds, found)

    def throughput(what: str, load: str, name: str, must: str = "", aim: str = "") -> Target:
        rate, base = (_variant_of(measured, load, one).get("calls_per_second") for one in (name, DIRECT))
        share = 100 * rate / base if rate and base else None
        return Target(f"{what}, {name}, of direct's throughput", must, aim, share, " %")

    micro = _micro(decisions)
    sidecars = memory.get(AFTER, {}).get(SIDECAR, {})
    return [
        *ratio("CPU, one call at a time", "one", "cpu", "≤ 0.5", "≤ 0.25"),
        *ratio("CPU, many at once", "many", "cpu", "≤ 0.5", "≤ 0.25"),
        *ratio("latency, one call at a time", "one", "latency", "≤ 0.25", "≤ 0.1"),
        throughput("1 MiB messages", "large", EMBEDDED, "≥ 60 %", "≥ 85 %"),
        throughput("- the same", "large", SIDECAR),
        throughput("- in a stream", "large stream", EMBEDDED),
        throughput("- in a stream", "large stream", SIDECAR),
        throughput("100 B messages in a stream", "stream", EMBEDDED),
        throughput("- the same", "stream", SIDECAR),
        Target("decision, 1,000 services, 10,000 rules", "≤ 5 µs", "≤ 1 µs", micro.get("permitted"), " µs"),
        Target("- the same, denied", "", "", micro.get("denied"), " µs"),
        Target("- permitted by a condition in CEL", "", "", micro.get("conditional"), " µs"),
        Target("- the same, of metadata alone", "", "", micro.get("looked_at"), " µs"),
        Target("- unseen caller, all rules at one service", "", "", micro.get("unseen"), " µs"),
        Target("joins per second, SQLite, one auth process", "≥ 100", "≥ 400", joins.get("per_second")),
        Target("sidecar, resident", "≤ 80 MB", "≤ 50 MB", sidecars.get(CLIENT_PROXY), " MB"),
    ]


def _variant_of(measured: Mapping[str, Any], load: str, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = measured.get(load, {}).get("variants", {}).get(name, {})
    return found


def _load(load: Load, samples: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    direct, envoy = samples.get(DIRECT), samples.get(ENVOY)
    variants = {name: _variant(taken, direct, envoy) for name, taken in samples.items()}
    return {**asdict(load), "variants": variants}


def _variant(
    taken: Sequence[Sample], direct: Sequence[Sample] | None, envoy: Sequence[Sample] | None
) -> dict[str, Any]:
    summary = Summary.of(taken)
    adds: dict[str, Any] = {}
    of_envoy: dict[str, float | None] = {}
    for what, added in (("cpu", added_cpu), ("latency", added_latency)):
        if direct and taken is not direct:
            mine = added(taken, direct)
            adds[f"{what}_us"] = _micro(asdict(mine))
            of_envoy[what] = mine.against(added(envoy, direct)) if envoy else None
    return {
        "latency_us": _micro(asdict(summary.latency)),
        "calls_per_second": summary.calls_per_second,
        "resident_mb": {place: held / 1e6 for place, held in summary.resident.items()},
        "cpu_us": _micro({"all": summary.cpu_total, **summary.cpu}),
        "adds": adds,
        "of_envoy": of_envoy,
        "rounds": [_round(sample) for sample in taken],
    }


def _round(sample: Sample) -> dict[str, Any]:
    return {
        "calls": sample.calls,
        "seconds": sample.seconds,
        "latency_us": _micro(asdict(sample.latency)),
        "cpu_us": _micro({place: spent / sample.calls for place, spent in sample.cpu.items()}),
    }


def _micro(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: value * _MICRO for name, value in seconds.items()}


def text(document: Mapping[str, Any]) -> str:
    """Give the tables of a document."""
    parts = [", ".join(f"{name} {value}" for name, value in document["machine"].items())]
    parts += [_load_table(load) for load in document["loads"].values()]
    parts += [_memory_table(document["memory_mb"]), _target_table(document["targets"])]
    if document["not_measured"]:
        parts.append(
            "\n".join(f"{what} not measured: {why}" for what, why in document["not_measured"].items())
        )
    return "\n\n".join(parts)


def _load_table(load: Mapping[str, Any]) -> str:
    measured = [load["variants"].get(name, {}) for name in VARIANTS]

    def block(
        title: str, group: str, headers: Sequence[str], keys: Sequence[str], digits: int = 0
    ) -> list[str]:
        figures = [variant.get(group, {}) for variant in measured]
        return block_of(title, headers, [[number(one.get(key), digits) for key in keys] for one in figures])

    added = [variant.get("adds", {}) for variant in measured]
    medians = [{what: found["median"] for what, found in adds.items()} for adds in added]
    rounds = max((len(variant.get("rounds", ())) for variant in measured), default=0)
    at_once = f"{load['at_once']} {'under way in one stream' if load['stream'] else 'at once'}"
    title = (
        f"{load['size']:,} bytes each way, {at_once}: "
        f"median of {rounds} rounds of {load['seconds']:.1f} s, times in µs"
    )
    proxied = ("all", "client", "proxy", "proxy", "server")
    blocks = [
        block_of("", ["variant"], [[name] for name in VARIANTS], left=True),
        block("latency", "latency_us", ("p50", "p90", "p99"), ("p50", "p90", "p99")),
        block_of("messages", ["per s", "MB/s"], [_rates(variant, load["size"]) for variant in measured]),
        block("CPU per message", "cpu_us", proxied, ("all", *PLACES)),
        block_of(
            "adds to direct",
            ["CPU", "p50"],
            [[number(found.get("cpu_us")), number(found.get("latency_us"))] for found in medians],
        ),
        block("of Envoy's", "of_envoy", ("CPU", "p50"), ("cpu", "latency"), 2),
    ]
    return f"{title}\n{beside(blocks)}"


def _rates(variant: Mapping[str, Any], size: int) -> list[str]:
    rate = variant.get("calls_per_second")
    return [number(rate), number(rate and rate * size / _MICRO, 1)]


def moments(idle: _Held, after: _Held, measured: Mapping[str, Any]) -> dict[str, _Held]:
    """Give what each process of each variant holds in MB: idle, halfway through the crowd, after all."""
    crowds = [load for load in measured.values() if load["at_once"] == CROWD]
    halfway = {
        f"{CROWD} calls at once": {name: found["resident_mb"] for name, found in load["variants"].items()}
        for load in crowds
    }
    return {IDLE: idle, **halfway, AFTER: after}


def _memory_table(memory: Mapping[str, _Held]) -> str:
    names = block_of("", ["variant"], [[name] for name in VARIANTS], left=True)
    blocks = [
        block_of(
            moment,
            ("client", "proxy", "proxy", "server"),
            [[number(held.get(name, {}).get(place)) for place in PLACES] for name in VARIANTS],
        )
        for moment, held in memory.items()
    ]
    return "resident memory, MB\n" + beside([names, *blocks])


def _target_table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = block_of("", ["against the design"], [[row["what"]] for row in rows], left=True)
    figures = [[row["must"], row["aim"], number(row["measured"], None, row["unit"])] for row in rows]
    return beside([names, block_of("", ["must", "aim", "measured"], figures)])


def number(value: float | None, digits: int | None = 0, unit: str = "") -> str:
    """Write a figure, or a dash if there is none; without ``digits``, as many as its size deserves."""
    if value is None:
        return "-"
    if digits is None:
        digits = 2 if abs(value) < 10 else 0  # noqa: PLR2004
    return f"{value:,.{digits}f}{unit}"


def block_of(
    title: str, headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: bool = False
) -> list[str]:
    """Lay out columns under a title of their own: lines of one width, the two of headings first."""
    cells = [headers, *rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(headers))]
    align = "<" if left else ">"
    lines = [_line(row, widths, align) for row in cells]
    width = max(len(title), len(lines[0]))
    return [f"{title:<{width}}", *(f"{line:{align}{width}}" for line in lines)]


def _line(row: Sequence[str], widths: Sequence[int], align: str) -> str:
    return "  ".join(f"{cell:{align}{width}}" for cell, width in zip(row, widths, strict=True))


def beside(blocks: Sequence[Sequence[str]]) -> str:
    """Put blocks of as many lines beside each other, with a rule under the headings."""
    lines = ["   ".join(parts).rstrip() for parts in zip(*blocks, strict=True)]
    rule = "-" * max(map(len, lines))
    return "\n".join([*filter(None, lines[:1]), lines[1], rule, *lines[2:]])
