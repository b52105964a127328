"""Auths that are all started in the same way: one founds the mesh, and the others add themselves to it."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from mesh.core.names import TrustDomain
from services.auth import founding
from services.auth.audit_log import AuditLog
from services.auth.backup import take
from services.auth.directory import DataDirectory
from services.auth.errors import StartError
from services.auth.founding import found, new_kek
from services.auth.kek import given
from services.auth.postgres import Postgres
from services.auth.rekey import rotate_kek
from services.auth.restoring import restore
from services.auth.sharing import found_or_add, is_made, refresh
from tests.auth.test_replicas import at_once
from tests.postgres import Server

SHOP = TrustDomain("shop.example")
NOW_MS = 1_700_000_000_000


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.url(postgres.database())


@pytest.fixture
def kek(tmp_path: Path) -> bytes:
    new_kek(tmp_path / "kek", "")
    return given(tmp_path / "kek")


def started(path: Path, url: str, kek: bytes) -> str | None:
    return found_or_add(path, SHOP, NOW_MS, url, kek)


def ids(path: Path) -> tuple[bytes, bytes]:
    """Give what a trust domain is known by: its CA, and who signs its policy."""
    with DataDirectory(path) as opened:
        return opened.authorities[1].certificate, opened.signer.public_key


def test_three_at_once_make_one_mesh(tmp_path: Path, url: str, kek: bytes) -> None:
    """One founds it, the others have names of their own in it, and all open it."""
    paths = [tmp_path / str(number) for number in range(3)]
    made = at_once(*(partial(started, path, url, kek) for path in paths))
    assert made.count(None) == 1
    replicas = {json.loads((path / "database.json").read_text())["replica"] for path in paths}
    assert len(replicas) == 3
    assert {one for one in made if one} < replicas
    assert len({ids(path) for path in paths}) == 1
    assert {(path / "kek").read_bytes() for path in paths} == {kek}


class Killed(BaseException):
    """The end of a process."""


@pytest.mark.parametrize("where", ["tables", "rows", "directory"])
def test_who_is_killed_while_it_founds_keeps_nobody_out(
    tmp_path: Path, url: str, kek: bytes, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the tables, after the rows, before its directory is in place: the next start makes it whole."""

    def killed(*_: object) -> None:
        raise Killed

    owner, name = {
        "tables": (Postgres, "transact"),
        "rows": (AuditLog, "open"),
        "directory": (founding, "_write_through"),
    }[where]
    monkeypatch.setattr(owner, name, killed)
    with pytest.raises(Killed):
        started(tmp_path / "a", url, kek)
    monkeypatch.undo()
    assert not is_made(tmp_path / "a")
    assert (started(tmp_path / "a", url, kek) is None) == (where == "tables")
    started(tmp_path / "b", url, kek)
    assert ids(tmp_path / "a") == ids(tmp_path / "b")


def test_another_kek_or_another_domain_adds_nobody(tmp_path: Path, url: str, kek: bytes) -> None:
    """And no directory is left."""
    started(tmp_path / "a", url, kek)
    with pytest.raises(StartError, match="is not the key of this database"):
        started(tmp_path / "b", url, os.urandom(32))
    with pytest.raises(StartError, match=r"is of trust domain shop\.example: name another"):
        found_or_add(tmp_path / "b", TrustDomain("other.example"), NOW_MS, url, kek)
    assert not (tmp_path / "b").exists()


def test_a_kek_that_one_rotated_is_taken_up_by_the_others(tmp_path: Path, url: str, kek: bytes) -> None:
    """At their next start with it; an older one, given meanwhile, changes nothing."""
    for name in "ab":
        started(tmp_path / name, url, kek)
    with DataDirectory(tmp_path / "a") as opened:
        rotate_kek(opened, None, "", NOW_MS)
    refresh(tmp_path / "a", SHOP, url, kek)
    ids(tmp_path / "a")
    with pytest.raises(StartError, match="is not the key of this database"):
        DataDirectory(tmp_path / "b")
    rotated = (tmp_path / "a" / "kek").read_bytes()
    assert rotated != kek
    refresh(tmp_path / "b", SHOP, url, rotated)
    assert ids(tmp_path / "a") == ids(tmp_path / "b")
    for name in "ab":
        assert sorted(path.name for path in (tmp_path / name).glob("kek*")) == ["kek"]


def test_the_way_to_the_database_may_change(tmp_path: Path, url: str, kek: bytes) -> None:
    """The name that this auth has there stays."""
    started(tmp_path / "a", url, kek)
    before = json.loads((tmp_path / "a" / "database.json").read_text())
    refresh(tmp_path / "a", SHOP, f"{url}&application_name=a", kek)
    after = json.loads((tmp_path / "a" / "database.json").read_text())
    assert after == {"url": f"{url}&application_name=a", "replica": before["replica"]}
    assert (tmp_path / "a" / "database.json").stat().st_mode & 0o777 == 0o600
    ids(tmp_path / "a")


def test_a_restored_database_takes_auths_with_new_volumes(
    tmp_path: Path, postgres: Server, url: str, kek: bytes
) -> None:
    """As docs/kubernetes.md has it: another database, no directory of before, and the mesh is the same."""
    started(tmp_path / "a", url, kek)
    before = ids(tmp_path / "a")
    with DataDirectory(tmp_path / "a") as opened:
        (tmp_path / "backup").write_bytes(b"".join(take(opened, "", NOW_MS)))
    another = postgres.url(postgres.database())
    restore(tmp_path / "backup", tmp_path / "restored", tmp_path / "kek", NOW_MS, database=another)
    for name in "bc":
        assert started(tmp_path / name, another, kek) is not None
        assert ids(tmp_path / name) == before
        refresh(tmp_path / name, SHOP, another, kek)


def test_a_mesh_in_a_file_is_not_left_behind(tmp_path: Path, url: str, kek: bytes) -> None:
    """Nor goes on alone beside those on the database: it says how it gets there."""
    found(tmp_path / "a", SHOP, NOW_MS)
    with pytest.raises(StartError, match="bring that to the database with mesh backup"):
        refresh(tmp_path / "a", SHOP, url, kek)
    refresh(tmp_path / "a", SHOP, "", b"")


def test_another_domain_than_what_is_made_is_refused(tmp_path: Path, url: str, kek: bytes) -> None:
    """In a file or a database, by the old URL or a new one; and nothing is taken up."""
    found(tmp_path / "a", SHOP, NOW_MS)
    started(tmp_path / "b", url, kek)
    before = (tmp_path / "b" / "database.json").read_bytes()
    for name, where in (("a", ""), ("b", ""), ("b", url), ("b", f"{url}&application_name=b")):
        with pytest.raises(StartError, match=r"is of trust domain shop\.example, not other\.example"):
            refresh(tmp_path / name, TrustDomain("other.example"), where, kek)
    assert (tmp_path / "b" / "database.json").read_bytes() == before
    ids(tmp_path / "a")


def test_a_database_without_a_domain_is_refused(tmp_path: Path) -> None:
    """Somebody took it out; that is said as auth would."""
    found(tmp_path / "a", SHOP, NOW_MS)
    with closing(sqlite3.connect(tmp_path / "a" / "auth.db")) as database:
        database.execute("DELETE FROM trust_domain")
        database.commit()
    with pytest.raises(StartError, match=r"auth\.db was changed: restore it from a backup"):
        refresh(tmp_path / "a", SHOP, "", b"")


def test_no_auth_runs_while_its_directory_changes(tmp_path: Path, url: str, kek: bytes) -> None:
    """Its lock is held."""
    started(tmp_path / "a", url, kek)
    with DataDirectory(tmp_path / "a"), pytest.raises(StartError, match="in use by another auth"):
        refresh(tmp_path / "a", SHOP, f"{url}&application_name=a", kek)


def test_a_mounted_secret_is_good_enough(tmp_path: Path) -> None:
    """Root's, and readable by the pod's group: but by nobody else, and it has to be a KEK."""
    new_kek(tmp_path / "kek", "")
    (tmp_path / "kek").chmod(0o440)
    assert len(given(tmp_path / "kek")) == 32
    (tmp_path / "kek").chmod(0o444)
    with pytest.raises(StartError, match="can be reached by others"):
        given(tmp_path / "kek")
    (tmp_path / "none").write_bytes(b"short")
    (tmp_path / "none").chmod(0o440)
    with pytest.raises(StartError, match="holds neither 32 bytes nor"):
        given(tmp_path / "none")
    with pytest.raises(StartError, match="name a new file"):
        new_kek(tmp_path / "kek", "")
