"""The audit logs: written with what they tell of or not at all, through crashes, floods and other hands."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection

from mesh.core.audit import Entry, Kind, Verdict
from mesh.core.chain import Limits, line_bytes
from mesh.core.examine import Examination, Fault, Mark
from mesh.core.keys import KEY_BYTES, Key
from mesh.core.names import InstanceId
from mesh.core.policy import Policy
from services.auth import audit_log
from services.auth.audit_log import ACTIONS, DENIALS, LOGS
from services.auth.database import StoreError
from services.auth.deferred import SESSIONS, Deferred
from services.auth.directory import DataDirectory
from services.auth.errors import AuditError, ConflictError, InvalidError, RefusedError, StartError
from services.auth.segments import Segments
from tests.auth.aged import before_keys
from tests.auth.world import HOUR_MS, START_MS, Attempt, World, on_sqlite

ROOT = Path(__file__).parents[2]


def action(number: int) -> Entry:
    return Entry(START_MS + number, Kind.TOKEN, "token created", service="orders", detail=f"entry {number}")


def whole(found: Examination) -> bool:
    return (found.bad, found.torn, found.ahead) == (None, 0, 0)


def newest(world: World, log: str = ACTIONS) -> Path:
    return Segments(world.path / "audit", log).path(max(world.log_of(log)))


def events(world: World, log: str = ACTIONS) -> list[str]:
    return [entry.event for entry in world.audit(log)]


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> Iterator[None]:
    """Let one function of the system fail, as on a full disk or without permission."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr(f"services.auth.segments.os.{name}", fail)
        yield


# What is written


def test_both_logs_are_whole_from_the_start(world: World) -> None:
    """After founding, joins, tokens, policies and refusals, both logs are as their verifier wants them."""
    token = world.token()
    world.join(token)
    world.apply({"services": {}})
    with pytest.raises(RefusedError):
        world.join(token)
    for log in LOGS:
        assert whole(world.examine(log)), log
    assert events(world)[-3:] == ["joined", "policy applied", "token reused"]
    assert events(world, DENIALS) == ["token reused"]


def test_what_is_refused_is_in_the_log_before_the_answer(world: World) -> None:
    """Strangers, latecomers and thieves leave an entry each, with what is known of them."""
    token, late = world.token(), world.token()
    wrong = replace(token, secret=Key(bytes(KEY_BYTES)))
    with pytest.raises(RefusedError):
        Attempt(wrong).send(world)
    world.time.pass_ms(60_000)
    with pytest.raises(RefusedError):
        world.join(late)
    stranger = world.node().peer
    with pytest.raises(RefusedError):
        world.authority.renew(replace(stranger, instance=InstanceId(bytes(16))), b"")
    found = world.audit(DENIALS)
    assert [(one.kind, one.event, one.verdict) for one in found] == [
        (Kind.JOIN, "join not proven", Verdict.DENIED),
        (Kind.JOIN, "token expired", Verdict.DENIED),
        (Kind.DENIAL, "unknown instance", Verdict.DENIED),
    ]
    assert [one.token_id for one in found] == [token.id, late.id, ""]
    assert (found[0].service, found[1].service, found[2].service) == ("", "orders", "orders")
    assert found[2].instance == "00" * 16
    assert found[2].alarm


def test_segments_turn_and_old_ones_go(world: World) -> None:
    """A log takes no more room than its limits, and what is kept of it is whole."""
    world.stop()
    world.directory = DataDirectory(world.path, Limits(4000, 3))
    world.running = True
    for number in range(300):
        world.store.logs.log(ACTIONS, [action(number)])
        files = world.log_of()
        assert len(files) <= 3
        assert sum(map(len, files.values())) <= 3 * 4000
    assert min(world.log_of()) > 5
    assert whole(world.examine())
    assert world.audit()[-1] == action(299)


def test_a_flood_of_strangers_is_bounded_and_counted(world: World) -> None:
    """Ten thousand joins of nobody make some hundred entries, whose counts add up, and no alarm."""
    token = replace(world.token(), secret=Key(bytes(KEY_BYTES)))
    before = len(world.audit())
    attempt = Attempt(token)
    for number in range(3000):
        attempt.asked = replace(attempt.asked, token_id=f"{number:016x}")
        (refused,) = world.authority.join([attempt.asked])
        assert isinstance(refused, RefusedError)
    world.authority.close()
    found = world.audit(DENIALS)
    assert sum(entry.count for entry in found) == 3000
    assert 200 <= len(found) <= 400
    assert found[-1].event == "denials counted"
    assert found[-1].by == "strangers at the join port"
    assert len(world.audit()) == before
    assert whole(world.examine(DENIALS))


def test_sessions_push_no_actions_out(world: World) -> None:
    """However often operators come: some entries with the instance, exact counts, and every action."""
    first = world.operator()
    (began,) = [entry for entry in world.audit() if entry.kind is Kind.SESSION]
    assert (began.event, began.service, began.instance) == ("joined", "mesh.operator", str(first.instance))
    assert began.token_id == world.credential.id
    for _ in range(200):
        last = world.operator()
        world.time.pass_ms(10_000)
    world.authority.create_token("orders", 60, last)
    world.authority.close()
    sessions = [entry for entry in world.audit() if entry.kind is Kind.SESSION]
    assert sum(entry.count for entry in sessions) == 201
    assert {entry.event for entry in sessions} == {"joined", "sessions counted"}
    taken = sum(line_bytes(entry.encode(0)) for entry in sessions)
    assert taken < SESSIONS.burst + 2 * SESSIONS.per_second * 2000
    (created,) = [entry for entry in world.audit() if entry.event == "token created"]
    assert created.by == f"mesh.operator/{last.instance}"
    assert whole(world.examine())


def test_a_refused_operator_is_no_session(world: World) -> None:
    """A join that is refused is told as one, whosever it is; so is one whose certificate request is bad."""
    wrong = replace(world.credential, secret=Key(bytes(KEY_BYTES)))
    for attempt, error in ((Attempt(wrong), RefusedError), (Attempt(world.credential, b"bad"), InvalidError)):
        with pytest.raises(error):
            attempt.send(world)
    told = [(one.kind, one.event, one.service, one.token_id) for one in world.audit(DENIALS)]
    assert told == [
        (Kind.JOIN, "join not proven", "", world.credential.id),
        (Kind.JOIN, "join request bad", "mesh.operator", world.credential.id),
    ]
    assert Kind.SESSION not in {entry.kind for entry in world.audit()}


# What cannot be written


@pytest.mark.parametrize(
    ("call", "number", "words"),
    [
        ("pwrite", errno.ENOSPC, "no space left on device"),
        ("fdatasync", errno.EIO, "input/output error"),
    ],
)
def test_actions_are_refused_where_the_log_cannot_be_written(
    world: World, monkeypatch: pytest.MonkeyPatch, call: str, number: int, words: str
) -> None:
    """Tokens, revocations, policies and joins are refused, and nothing is changed by it; then all works."""
    operator, token, version = world.operator(), world.token(), world.authority.policy_of_record.version
    tokens = world.authority.list_tokens(operator)
    entries = world.audit()
    with failing(monkeypatch, call, number):
        for act in (
            lambda: world.authority.create_token("orders", 60, operator),
            lambda: world.authority.revoke_token(token.id, operator),
            lambda: world.authority.apply_policy(_nothing(), operator),
            lambda: world.join(token),
        ):
            with pytest.raises(AuditError, match=f"cannot be written: {words}: nothing was done"):
                act()
        assert world.authority.list_tokens(operator) == tokens
        assert world.authority.policy_of_record.version == version
    assert world.audit() == entries
    assert world.join(token).credentials.service == "orders"
    assert whole(world.examine())


def test_without_permission(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that this user may not open refuses the same way."""
    operator = world.operator()
    world.restart()
    with failing(monkeypatch, "open", errno.EACCES), pytest.raises(AuditError, match="permission denied"):
        world.authority.create_token("orders", 60, operator)
    world.authority.create_token("orders", 60, operator)
    assert whole(world.examine())


def test_keys_and_renewals_go_on_without_a_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members stay members and epochs turn; what could not be written is, once it can be."""
    node = world.node()
    with failing(monkeypatch, "pwrite", errno.ENOSPC):
        world.time.pass_ms(HOUR_MS - 1)
        world.authority.renew(node.peer, Attempt(world.credential).asked.csr)
        world.time.pass_ms(1)
        world.authority.turn()
        assert world.authority.renew(node.peer, Attempt(world.credential).asked.csr).service == "orders"
        assert len(world.authority._roots.epochs()) == 3
        for _ in range(30):
            with pytest.raises(RefusedError):
                world.authority.check_known(replace(node.peer, instance=InstanceId(bytes(16))))
    assert "epoch made" not in events(world)[3:]
    world.authority.turn()
    assert events(world).count("epoch made") == 3
    assert [entry.count for entry in world.audit(DENIALS)] == [30]
    assert whole(world.examine())
    assert whole(world.examine(DENIALS))


def test_a_database_that_fails_takes_the_entry_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the transaction does not commit, its entry is not in the log either."""
    operator, before = world.operator(), world.log_of()

    def fail(connection: Connection, *_: object) -> None:
        connection.exec_driver_sql("SELECT nothing FROM nowhere")

    with monkeypatch.context() as broken:
        broken.setattr("services.auth.rows.put_log", fail)
        with pytest.raises(StoreError):
            world.authority.create_token("orders", 60, operator)
    assert world.log_of() == before
    assert len(world.authority.list_tokens(operator)) == 1
    world.authority.create_token("orders", 60, operator)
    assert whole(world.examine())


def test_what_cannot_be_taken_back_is_at_the_next_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails at the entry and at the taking back leaves nothing wrong once it works again."""
    operator = world.operator()

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("services.auth.segments.os.fdatasync", fail)
        broken.setattr("services.auth.segments.os.fsync", fail)
        for _ in range(2):
            with pytest.raises(AuditError):
                world.authority.create_token("orders", 60, operator)
    world.authority.create_token("orders", 60, operator)
    assert whole(world.examine())


# Other hands, while auth runs and while it does not


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 20)


def lengthen(path: Path) -> None:
    last = path.read_bytes().splitlines(keepends=True)[-1]
    with path.open("ab") as file:
        file.write(last)


def remove(path: Path) -> None:
    path.unlink()


def another(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def edit_last(path: Path) -> None:
    content = path.read_bytes()
    cut = content.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(content[:cut] + (b"0" if content[cut : cut + 1] != b"0" else b"1") + content[cut + 1 :])


@pytest.mark.parametrize("hand", [shorten, lengthen, remove, another])
def test_a_change_while_auth_runs(world: World, hand: Callable[[Path], None]) -> None:
    """The next entry goes to a new segment, behind an alarm; what was done to the old one is shown."""
    operator = world.operator()
    sequence = world.store.logs.rows()[0].head.sequence
    hand(newest(world))
    world.authority.create_token("orders", 60, operator)
    assert len(world.log_of()) == (1 if hand is remove else 2)
    alarm, created = world.audit()[-2:]
    assert (alarm.kind, alarm.event, alarm.alarm) == (Kind.LOG, "log damaged", True)
    assert created.event == "token created"
    bad = world.examine().bad
    if hand is another:
        assert bad is None  # every byte is there: only the file is not the one that it was
    else:
        assert bad
        assert bad.sequence in (0, sequence - 1, sequence)
    world.restart()
    world.operator()
    assert events(world).count("log damaged") == 1


@pytest.mark.parametrize("hand", [shorten, remove, edit_last, lengthen])
def test_a_change_while_auth_does_not_run(world: World, hand: Callable[[Path], None]) -> None:
    """Auth starts, raises the alarm, keeps the evidence, and the verifier names the first bad entry."""
    world.operator()
    sequence = world.store.logs.rows()[0].head.sequence
    world.stop()
    hand(newest(world))
    world.start()
    assert events(world)[-1] == "log damaged"
    assert world.audit()[-1].alarm
    bad = world.examine().bad
    assert bad
    first = sequence if hand is lengthen else sequence - 1
    assert bad.sequence == (0 if hand is remove else first)
    world.operator()
    assert world.examine().bad == bad


def test_an_older_copy_of_the_whole_log(world: World) -> None:
    """Files put back to what they were are found out by the end in the database."""
    world.operator()
    world.stop()
    old = {path: path.read_bytes() for path in (world.path / "audit").iterdir()}
    world.start()
    world.operator()
    sequence = world.store.logs.rows()[0].head.sequence
    world.stop()
    for path, content in old.items():
        path.write_bytes(content)
    world.start()
    assert events(world)[-1] == "log damaged"
    bad = world.examine().bad
    assert bad
    assert (bad.sequence, bad.fault) == (sequence - 1, Fault.MISSING)


@pytest.mark.parametrize("content", ["", "in the way\n"])
def test_a_file_in_the_way(world: World, content: str) -> None:
    """Whoever puts files where the next segments will be gets an alarm, and stops nothing."""
    world.stop()
    world.directory = DataDirectory(world.path, Limits(3000, 9))
    world.running = True
    for number in (1, 2):
        (world.path / "audit" / f"actions-{number:08d}.log").write_text(content)
    for number in range(40):
        world.store.logs.log(ACTIONS, [action(number)])
    assert events(world).count("log damaged") == 2
    assert world.audit()[-1] == action(39)
    assert whole(world.examine())
    aside = [path for path in (world.path / "audit").iterdir() if path.suffix != ".log"]
    assert [path.read_text() for path in aside] == [content, content]


def _linked(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.write_bytes(b"somebody's own\n" * 9)
    path.symlink_to(elsewhere)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


NO_FILES: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "directory": lambda path: (path / "below").mkdir(parents=True),
    "link": _linked,
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "sparse": _sparse,
}


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("place", ["newest", "next"])
@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_file_stops_nothing(
    world: World, make: Callable[[Path], None], place: str, *, running: bool
) -> None:
    """Whatever stands where a segment is or will be: auth starts, nodes join, nothing else is touched."""
    path = newest(world)
    if place == "next":
        path = Segments(world.path / "audit", ACTIONS).path(max(world.log_of()) + 1)
    if not running:
        world.stop()
    path.unlink(missing_ok=True)
    make(path)
    if not running:
        world.start()
    assert world.node().credentials.certificate_chain
    world.restart()
    assert world.node().credentials.certificate_chain
    elsewhere = world.path / "elsewhere"
    assert not elsewhere.exists() or elsewhere.read_bytes() == b"somebody's own\n" * 9
    if place == "next":
        assert whole(world.examine())
    else:
        assert "log damaged" in events(world)


def test_logs_whose_directory_went_begin_it_again(world: World) -> None:
    """A directory that is moved away stops nobody from joining, and there is an alarm."""
    (world.path / "audit").rename(world.path / "moved")
    assert world.node().credentials.certificate_chain
    assert "log damaged" in events(world)


def test_spoilt_segments_take_the_room_that_they_take(world: World) -> None:
    """However often the newest is spoilt, what is kept stays within its bound."""
    world.stop()
    limits = Limits(3000, 4)
    world.directory = DataDirectory(world.path, limits)
    world.running = True
    for number in range(80):
        world.store.logs.log(ACTIONS, [action(number)])
        path = newest(world)
        before = path.read_bytes()
        path.write_bytes(before + b"x")
        world.store.logs.log(ACTIONS, [action(number)])
        path.write_bytes(before)
    kept = [len(data) for data in world.log_of().values()]
    assert len(kept) > limits.segments
    assert sum(kept) <= limits.segment_bytes * limits.segments
    assert whole(world.examine())


# Crashes

CRASH = """
import os, signal, sys
from pathlib import Path
from mesh.core.chain import Limits
from services.auth import segments, log_store
from services.auth.directory import DataDirectory
from tests.auth.test_audit_log import action

path, at, length = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
opened = DataDirectory(path, Limits(1500, 4))
count = 0
pwrite, fdatasync = os.pwrite, os.fdatasync

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def write(file, data, offset):
    global count
    count += 1
    if count == at and length >= 0:
        pwrite(file, bytes(data)[:length], offset)
        die()
    return pwrite(file, data, offset)

def sync(file):
    fdatasync(file)
    if count == at:
        die()  # written, and not committed

segments.os = type("os", (), {**vars(os), "pwrite": staticmethod(write), "fdatasync": staticmethod(sync)})
for number in range(40):
    opened.store.logs.log("actions", [action(number)])
    print(number, flush=True)
"""


@pytest.mark.parametrize("length", [-1, 0, 1, 70, 10_000])
@pytest.mark.parametrize("at", [1, 2, 7, 8, 9])
def test_a_kill_at_any_point_of_an_append(world: World, at: int, length: int) -> None:
    """What was answered for is there, what was cut short is told as such; nothing looks like an attack."""
    world.stop()
    command = [sys.executable, "-c", CRASH, str(world.path), str(at), str(length)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert killed.returncode == -9, killed.stderr
    answered = [f"entry {number}" for number in killed.stdout.split()]
    world.directory = DataDirectory(world.path)
    world.running = True
    found = world.examine()
    assert found.bad is None, found
    written = [entry.detail for entry in world.audit() if entry.detail.startswith("entry")]
    assert written[: len(answered)] == answered
    assert len(written) <= len(answered) + 1
    world.stop()
    world.start()
    assert whole(world.examine()), world.examine()
    recovered = events(world).count("log recovered")
    assert recovered == (1 if found.ahead or found.torn else 0)
    assert events(world).count("log damaged") == 0
    world.operator()
    assert whole(world.examine())
    world.restart()
    assert events(world).count("log recovered") == recovered


@on_sqlite
def test_old_keys_are_gone_from_the_disk(world: World) -> None:
    """Half a second after an entry, neither the database nor its write-ahead log holds the key before it."""
    world.operator()
    log = world.store.logs
    (before,) = [row.sealed for row in log.rows() if row.head.log == ACTIONS]
    world.operator()
    world.authority.turn()
    files = b"".join(path.read_bytes() for path in world.path.glob("auth.db*"))
    assert before not in files
    (present,) = [row.sealed for row in log.rows() if row.head.log == ACTIONS]
    assert present in files


@on_sqlite
def test_marks_show_that_log_and_database_were_both_put_back(world: World) -> None:
    """Put back together, log and database agree; one who has seen more knows better."""
    world.operator()
    world.stop()
    old = {path: path.read_bytes() for path in world.path.rglob("*") if path.is_file()}
    world.start()
    world.operator()
    (seen,) = [row.head for row in world.store.logs.rows() if row.head.log == ACTIONS]
    world.stop()
    for path in {*world.path.rglob("auth.db-*"), *world.path.rglob("*.log")} - old.keys():
        path.unlink()
    for path, content in old.items():
        path.write_bytes(content)
    world.start()
    assert whole(world.examine())
    found = world.examine(marks=[Mark(seen.sequence, seen.mac)])
    assert found.bad
    assert found.bad.fault is Fault.OLDER


# Old databases


def test_who_spoils_the_newest_segment_has_none_retired(world: World) -> None:
    """However often: what was written before stays, and there is an alarm for each time."""
    world.store.logs.log(ACTIONS, [action(0)])
    before = len(world.audit())
    for number in range(1, 13):
        path = newest(world)
        whole_before = path.read_bytes()
        path.write_bytes(whole_before + b"x")
        world.store.logs.log(ACTIONS, [action(number)])
        path.write_bytes(whole_before)
    assert world.audit()[before - 1] == action(0)
    assert events(world).count("log damaged") == 12
    assert min(world.log_of()) == 0
    assert world.examine().bad is None


_OldRow = tuple[int, str, bool, str, str, str, str]


def _age(world: World, rows: list[_OldRow]) -> None:
    """Make a stopped world's database one of the first schema, with these entries of the audit log."""
    (world.path / "audit.key").unlink()
    for path in (world.path / "audit").iterdir():
        path.unlink()
    (world.path / "audit").rmdir()
    database = sqlite3.connect(world.path / "auth.db")
    with database:
        before_keys(database)
        for table in ("audit_log", "alarm", "policy_applied"):
            database.execute(f"DROP TABLE {table}")
        database.execute("UPDATE alembic_version SET version_num = '0001'")
        database.executemany(
            "INSERT INTO audit (at_ms, event, alarm, service, instance, token_id, detail)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
    database.close()


@on_sqlite
@pytest.mark.parametrize("old", [True, False])
def test_a_policy_that_is_missing_is_missed(world: World, *, old: bool) -> None:
    """However often auth has started since: the newest policy is known to have been there, and by whom."""
    operator = world.operator()
    for _ in range(2):
        world.authority.apply_policy(_nothing(), operator)
    world.stop()
    if old:
        by = ("mesh.operator", str(operator.instance), "")
        _age(world, [(START_MS, "policy applied", False, *by, str(version)) for version in (1, 2)])
    for _ in range(2):
        world.start()
        noted = {note.version: note.instance for note in world.store.policies()}
        assert noted == {0: "", 1: str(operator.instance), 2: str(operator.instance)}
        world.stop()
    database = sqlite3.connect(world.path / "auth.db")
    with database:
        database.execute("DELETE FROM policy WHERE version = 2")
    database.close()
    with pytest.raises(StartError, match="policy 2 was changed or is missing"):
        world.start()


@on_sqlite
def test_an_older_database_is_taken_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entries that were rows move to the log in order, alarms stay raised, and a key is made."""
    token = world.token()
    world.join(token)
    world.stop()
    events_then = ["token reused", *["token created"] * 599]
    _age(
        world,
        [
            (START_MS + number, event, number == 0, "orders", "", token.id, f"old {number}")
            for number, event in enumerate(events_then)
        ],
    )
    world.start()
    moved = world.audit()[:600]
    assert [entry.detail for entry in moved] == [f"old {number}" for number in range(600)]
    assert (moved[0].kind, moved[0].verdict, moved[0].alarm) == (Kind.TOKEN, Verdict.DENIED, True)
    assert world.count("SELECT count(*) FROM audit") == 0
    assert whole(world.examine())
    with pytest.raises(RefusedError):
        world.join(token)
    assert events(world).count("token reused") == 1
    assert len((world.path / "audit.key").read_bytes()) == 32
    with monkeypatch.context() as broken:
        broken.setattr(audit_log, "begin", lambda *_: pytest.fail("begun anew"))
        world.restart()


def test_revoking_is_an_action(world: World) -> None:
    """A revoked token leaves an entry with who did it, and revoking a used one leaves none."""
    operator, token, used = world.operator(), world.token(), world.token()
    world.join(used)
    world.authority.revoke_token(token.id, operator)
    with pytest.raises(ConflictError):
        world.authority.revoke_token(used.id, operator)
    (entry,) = [entry for entry in world.audit() if entry.event == "token revoked"]
    assert (entry.token_id, entry.by) == (token.id, f"mesh.operator/{operator.instance}")


def test_deferred_entries_are_told_once_with_their_counts(world: World) -> None:
    """Alike ones are one; what cannot be written is kept."""
    deferred = Deferred(world.store, DENIALS)
    one = Entry(START_MS, Kind.DENIAL, "call denied", Verdict.DENIED, service="evil", call_id="a")
    for number in range(5):
        deferred.note(replace(one, at_ms=START_MS + number, call_id=f"{number}"), "evil", START_MS)
    deferred.flush(START_MS)
    (entry,) = world.audit(DENIALS)
    assert (entry.count, entry.at_ms, entry.until_ms, entry.call_id) == (5, START_MS, START_MS + 4, "0")


def _nothing() -> Policy:
    return Policy.parse(b'{"services": {}}')
