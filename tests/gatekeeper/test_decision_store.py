"""Where decisions are kept: alike ones together, bounded, and whatever the file was before."""

from __future__ import annotations

import logging
import sqlite3
import stat
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.latency import Latency
from mesh.core.observed import MAX_COUNT, Gap, Observation, Seen
from services.gatekeeper.decision_rows import HOUR_MS, MINUTE_MS
from services.gatekeeper.decision_store import DecisionStore, StoreError

M = "/p.S/M"
NEVER = 2**62


def call(
    at: int = 0, count: int = 1, destination: str = "orders", source: str = "a", **more: object
) -> Observation:
    return Observation(source, destination, M, at, at, count, "allow", "yes", **more)  # type: ignore[arg-type]


def held(store: DecisionStore, *destinations: str, since: int = 0, until: int = NEVER) -> list[Seen]:
    found: list[Seen] = []
    after = 0
    while page := store.page(since, until, destinations, after, 2):
        after = page[-1][0]
        found += [seen for _, seen in page]
    return found


def test_alike_calls_of_a_minute_are_one() -> None:
    """Times and counts part no rows of a minute; everything else does."""
    store = DecisionStore.open(None)
    apart: list[Seen] = [
        call(5, 2),
        call(5, source="b"),
        call(5, destination="other"),
        call(5, policy=2),
        call(5, metadata=(("x-a", ()),)),
        call(5, metadata=(("x-a", ("",)),)),
        call(5, by="trial"),
        Observation("a", "orders", M, 5, 5, 1, "deny"),
        Observation("a", "orders", "/p.S/N", 5, 5, 1, "allow", "yes"),
        Gap("orders", 5, 5, 1),
    ]
    store.add(apart, 0)
    store.add([call(3, 7), call(9), call(MINUTE_MS), Gap("orders", HOUR_MS - 1, HOUR_MS - 1, 3)], 0)
    first: Seen = Observation("a", "orders", M, 3, 9, 10, "allow", "yes")
    assert held(store) == [first, *apart[1:-1], Gap("orders", 5, HOUR_MS - 1, 4), call(MINUTE_MS)]
    store.close()


def test_choosing() -> None:
    """A span takes what has calls in it; names take calls to them."""
    store = DecisionStore.open(None)
    wide = Observation("a", "orders", M, 10, 20, 2, "allow", "yes")
    store.add([wide, call(30, destination="b"), Gap("c", 40, 50, 1)], 0)
    assert held(store, since=20, until=30) == [wide]
    assert held(store, since=21, until=31) == [call(30, destination="b")]
    assert held(store, "c", "orders") == [wide, Gap("c", 40, 50, 1)]
    assert held(store, since=51) == []
    store.close()


def test_old_ones_go() -> None:
    """What was last seen too long ago is let go, when something is written and when nothing is."""
    store = DecisionStore.open(None, 3)
    store.add([call(minute * MINUTE_MS) for minute in range(3)], 0)
    store.add([], MINUTE_MS)
    assert held(store) == [call(MINUTE_MS), call(2 * MINUTE_MS)]
    store.add([call(3 * MINUTE_MS)], 0)
    assert len(held(store)) == 3
    store.close()


def test_too_many(caplog: pytest.LogCaptureFixture) -> None:
    """The service with the most loses its oldest, which are counted; the others lose nothing."""
    store = DecisionStore.open(None, 60)
    quiet = [call(0, destination="quiet", source=f"s{number}") for number in range(10)]
    store.add(quiet, 0)
    for minute in range(100):
        store.add([call(minute * MINUTE_MS, 2, destination="loud")], 0)
    found = held(store)
    assert [seen for seen in found if seen.destination == "quiet"] == quiet
    loud = [seen for seen in found if seen.destination == "loud"]
    gaps = [seen for seen in loud if isinstance(seen, Gap)]
    assert sum(seen.count for seen in loud) == 200
    assert len(found) <= 60
    assert gaps[0].first_ms == 0
    kept = [seen.first_ms for seen in loud if isinstance(seen, Observation)]
    assert min(kept) == max(gap.last_ms for gap in gaps) + MINUTE_MS
    assert max(kept) == 99 * MINUTE_MS
    assert "over 60 rows: the oldest 6 calls to loud are only counted now" in caplog.text
    store.close()


def test_gaps_alone_are_no_endless_work() -> None:
    """Where there is nothing left to count together, more rows are put up with."""
    store = DecisionStore.open(None, 2)
    gaps = [Gap("orders", hour * HOUR_MS, hour * HOUR_MS, 1) for hour in range(5)]
    store.add(gaps, 0)
    assert held(store) == gaps
    store.close()


_calls = st.lists(
    st.builds(
        call, st.integers(0, 3 * MINUTE_MS), st.integers(1, 5), st.sampled_from("xyz"), st.sampled_from("ab")
    )
    | st.builds(Gap, st.sampled_from("xyz"), st.just(1), st.just(2), st.integers(1, 5))
)


def test_gaps_push_nothing_out() -> None:
    """A node that counts calls of every hour since 1970 makes no row for each, and takes nobody's place."""
    store = DecisionStore.open(None, 100)
    others: list[Seen] = [call(10**12 + n * MINUTE_MS, destination="other") for n in range(50)]
    store.add(others, 0)
    store.add([Gap("orders", hour * HOUR_MS, 10**12, 1) for hour in range(400)], 0)
    assert held(store) == [*others, Gap("orders", 0, 10**12, 400)]
    store.close()


def test_counts_that_are_full(caplog: pytest.LogCaptureFixture) -> None:
    """However often the largest count is added, it stays what it is, also where rows are pushed out."""
    store = DecisionStore.open(None, 1100)
    for _ in range(3):
        store.add([call(count=MAX_COUNT), Gap("orders", 0, 0, MAX_COUNT)] * 1000, 0)
        store.add_latencies([Latency("a", "orders", M, 0, 0, ((3, MAX_COUNT),), MAX_COUNT)] * 1000, 0)
    assert held(store) == [call(count=MAX_COUNT), Gap("orders", 0, 0, MAX_COUNT)]
    assert [one.failed for _, one in store.latencies(0, NEVER, 0, 9)] == [MAX_COUNT]
    store.add([call(n * MINUTE_MS, MAX_COUNT) for n in range(1200)], 0)
    assert "are only counted now" in caplog.text
    assert {one.count for one in held(store)} == {MAX_COUNT}
    store.close()


@settings(deadline=None)
@given(st.lists(_calls, max_size=4), st.integers(1, 8))
def test_no_call_is_lost(batches: list[list[Seen]], most: int) -> None:
    """However it is merged and pushed out, the calls to each service add up."""
    store = DecisionStore.open(None, most)
    expected: Counter[str] = Counter()
    for batch in batches:
        store.add(batch, 0)
        for seen in batch:
            expected[seen.destination] += seen.count
    found: Counter[str] = Counter()
    for seen in held(store):
        found[seen.destination] += seen.count
    assert found == expected
    store.close()


def test_a_file(tmp_path: Path) -> None:
    """A file is for its owner alone, and keeps what it has."""
    path = tmp_path / "decisions.db"
    store = DecisionStore.open(path)
    store.add([call(metadata=(("x-a", ("1", "2")), ("x-b", ())))], 0)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
    store.close()
    again = DecisionStore.open(path, 2)
    assert held(again) == [call(metadata=(("x-a", ("1", "2")), ("x-b", ())))]
    again.add([call(MINUTE_MS), call(2 * MINUTE_MS)], 0)
    assert held(again) == [call(2 * MINUTE_MS), Gap("orders", 0, MINUTE_MS, 2)], "rows from before count too"
    again.close()


def other_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE mine (id INTEGER)")
    database.close()


def newer(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


def torn(path: Path) -> None:
    store = DecisionStore.open(path)
    store.add([call(minute * MINUTE_MS, source=f"s{minute}") for minute in range(500)], 0)
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:20000] = b"\xff" * (20000 - 4096)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "make", [lambda path: path.write_bytes(b"not a database" * 99), other_database, newer, torn]
)
def test_what_is_no_store_is_moved_aside(
    make: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the file was, it is kept beside the new one, and told."""
    path = tmp_path / "decisions.db"
    assert callable(make)
    make(path)
    size = path.stat().st_size
    store = DecisionStore.open(path)
    store.add([call()], 0)
    assert held(store) == [call()]
    assert (tmp_path / "decisions.db.damaged").stat().st_size == size
    assert "is damaged: moved to decisions.db.damaged, and begun anew" in caplog.text
    store.close()


def test_what_cannot_be_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where a file cannot be, and where another one holds it, memory does, and it is told."""
    for path in (tmp_path / "missing" / "decisions.db", tmp_path):
        with caplog.at_level(logging.ERROR):
            store = DecisionStore.open(path)
        assert "recorded decisions are kept in memory" in caplog.messages[-1]
        store.add([call()], 0)
        assert held(store) == [call()]
        store.close()
    assert not list(tmp_path.iterdir())


def spoil(store: DecisionStore, path: Path) -> None:
    """Write over the file of an open store."""
    driver = store._connection.connection.driver_connection
    assert driver is not None
    driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(b"\xff" * path.stat().st_size)
    driver.execute("PRAGMA shrink_memory")


def test_damage_while_it_runs(tmp_path: Path) -> None:
    """Damage that shows later is told as such."""
    path = tmp_path / "decisions.db"
    store = DecisionStore.open(path)
    store.add([call(minute * MINUTE_MS, source=f"s{minute}") for minute in range(500)], 0)
    spoil(store, path)
    with pytest.raises(StoreError) as failed:
        store.add([call()], 0)
    assert failed.value.damaged
    with pytest.raises(StoreError, match="cannot use the recorded decisions"):
        store.page(0, NEVER, (), 0, 10)
    store.close()


def took(at: int, destination: str = "orders", source: str = "a") -> Latency:
    return Latency(source, destination, M, at, at, ((3, 1), (7, 2)), 1)


def latencies(store: DecisionStore) -> list[Latency]:
    return [one for _, one in store.latencies(0, NEVER, 0, 1000)]


def test_histograms_of_a_minute_are_added_up(tmp_path: Path) -> None:
    """Those of a caller and a method are one row for each minute, also in a file that is opened again."""
    path = tmp_path / "decisions.db"
    for at in (5, 9, 3):
        store = DecisionStore.open(path)
        store.add_latencies([took(at)], 0)
        store.close()
    store = DecisionStore.open(path)
    store.add_latencies([took(MINUTE_MS), took(4, source="b")], 0)
    assert latencies(store) == [
        Latency("a", "orders", M, 3, 9, ((3, 3), (7, 6)), 3),
        took(MINUTE_MS),
        took(4, source="b"),
    ]
    assert [one.source for _, one in store.latencies(10, NEVER, 0, 9)] == ["a"]
    store.add_latencies([], 9)
    assert {one.last_ms for one in latencies(store)} == {9, MINUTE_MS}
    store.close()


def test_a_file_from_before_latencies(tmp_path: Path) -> None:
    """It is used as it is, with what is in it."""
    path = tmp_path / "decisions.db"
    store = DecisionStore.open(path)
    store.add([call()], 0)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE latency")
    connection.close()
    store = DecisionStore.open(path)
    store.add_latencies([took(5)], 0)
    assert (latencies(store), held(store)) == ([took(5)], [call()])
    store.close()
    assert not path.with_name("decisions.db.damaged").exists()


def test_too_many_histograms() -> None:
    """The oldest go, and they are those of the service that has most."""
    store = DecisionStore.open(None, most=100)
    store.add_latencies([took(1, "small")], 0)
    store.add_latencies([took(number * MINUTE_MS) for number in range(40)], 0)
    found = latencies(store)
    assert len(found) <= 20
    assert [one.destination for one in found].count("small") == 1
    assert max(one.last_ms for one in found) == 39 * MINUTE_MS
    store.close()
