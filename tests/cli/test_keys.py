"""The mesh's own keys from the command line, on a running mesh and without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import Up, run, up

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Run a mesh for the tests of this module."""
    with up(tmp_path_factory.mktemp("keys") / "mesh") as running:
        yield running


def test_a_running_mesh_gets_a_new_kek(mesh: Up) -> None:
    """The key file is another, the mesh goes on, and starts again with it."""
    before = (mesh.data / "kek").read_bytes()
    done = mesh.mesh("kek", "rotate")
    assert done.returncode == 0, done.stderr
    assert "is in force" in done.stdout
    assert (mesh.data / "kek").read_bytes() != before
    assert mesh.mesh("token", "create", "orders").returncode == 0
    [entry] = mesh.json("audit", "query", "--kind", "key", "--log", "actions")[-1:]
    assert entry["event"] == "KEK rotated"


def test_a_kms_that_is_none(mesh: Up) -> None:
    """An unknown KMS is refused, and the KEK in force stays."""
    before = (mesh.data / "kek").read_bytes()
    done = mesh.mesh("kek", "rotate", "--kms", "other:key")
    assert done.returncode == 3
    assert "unknown KMS" in done.stderr
    assert mesh.mesh("kek", "rotate", "--kms", "aws:key", "--file").returncode == 2
    assert (mesh.data / "kek").read_bytes() == before


def test_what_is_in_force_is_shown(mesh: Up) -> None:
    """As a table and as JSON, with the times at which the next take over."""
    rows = mesh.json("keys", "list")
    assert [row["kind"] for row in rows if row["state"] == "in force"] == ["epoch", "ca", "kek", "operator"]
    [kek] = [row for row in rows if row["kind"] == "kek"]
    assert (kek["keeper"], kek["until"]) == ("file", None)
    shown = mesh.mesh("keys", "list").stdout
    assert all(row["id"] in shown for row in rows)


@pytest.mark.parametrize("kind", ["epoch", "ca", "kek"])
def test_the_next_is_had_early(mesh: Up, kind: str) -> None:
    """It is listed, in force or next, and the mesh goes on."""
    done = mesh.mesh("keys", "rotate", kind)
    assert done.returncode == 0, done.stderr
    made = done.stdout.split()[1]
    assert made in {row["id"] for row in mesh.json("keys", "list") if row["kind"] == kind}
    assert mesh.mesh("status").returncode == 0


def test_both_commands_say_the_same_of_a_new_kek(mesh: Up) -> None:
    """Whichever rotates it says that the copy of the key file is of no use any more."""
    for command in ("keys", "rotate", "kek"), ("kek", "rotate"):
        assert mesh.mesh(*command).stdout.endswith(
            "is in force: take a new copy of the key file, and a new backup\n"
        )


def test_the_credential_is_rotated(mesh: Up, tmp_path: Path) -> None:
    """From anywhere: who rotates it has the new one, and so has auth's own directory; copies are useless."""
    for name in ("operator.json", "addresses.json"):
        (tmp_path / name).write_bytes((mesh.data / name).read_bytes())
    copy = (tmp_path / "operator.json").read_bytes()
    done = run("keys", "rotate", "operator", MESH_DATA=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "operator.json").read_bytes() == (mesh.data / "operator.json").read_bytes() != copy
    assert (tmp_path / "operator.json").stat().st_mode & 0o777 == 0o600
    assert mesh.mesh("status").returncode == 0
    (tmp_path / "operator.json").write_bytes(copy)
    refused = run("status", MESH_DATA=str(tmp_path))
    assert refused.returncode == 3
    assert "mesh keys rotate operator and mesh restore make a new operator.json" in refused.stderr


def test_a_credential_is_made_offline(tmp_path: Path) -> None:
    """Where none is left that is good, or the file is gone."""
    data = tmp_path / "mesh"
    assert run("init", data, "--trust-domain", "shop.example").returncode == 0
    (data / "operator.json").unlink()
    assert run("keys", "rotate", "ca", "--offline", MESH_DATA=str(data)).returncode == 2
    done = run("keys", "rotate", "operator", "--offline", MESH_DATA=str(data))
    assert done.returncode == 0, done.stderr
    started = Up(data)
    try:
        assert started.mesh("status").returncode == 0
    finally:
        started.end()


def test_offline(tmp_path: Path) -> None:
    """Without a running auth it works on the files, and is in the audit log as well."""
    data = tmp_path / "mesh"
    assert run("init", data, "--trust-domain", "shop.example").returncode == 0
    before = (data / "kek").read_bytes()
    assert run("kek", "rotate", MESH_DATA=str(data)).returncode == 4
    done = run("kek", "rotate", "--offline", MESH_DATA=str(data))
    assert done.returncode == 0, done.stderr
    assert (data / "kek").read_bytes() != before
    assert run("audit", "verify", "--offline", MESH_DATA=str(data)).returncode == 0
    (data / "kek").write_bytes(before)
    done = run("kek", "rotate", "--offline", MESH_DATA=str(data))
    assert done.returncode == 5
    assert "is not the key of this database" in done.stderr


def test_a_backup_is_restored(mesh: Up, tmp_path: Path) -> None:
    """From a running mesh to a new directory, on which a mesh runs; the log says so, to who had seen more."""
    key, seen = mesh.data / "audit.key", tmp_path / "seen"
    verify = ("audit", "verify", "--key", key, "--seen", seen, "--offline")
    assert mesh.mesh("backup", tmp_path / "backup").returncode == 0
    assert mesh.mesh("backup", tmp_path / "backup").returncode == 1
    assert mesh.mesh("token", "create", "orders").returncode == 0
    assert mesh.mesh("audit", "verify", "--key", key, "--seen", seen).returncode == 0
    done = run("restore", tmp_path / "backup", tmp_path / "new", "--kek", mesh.data / "kek")
    assert done.returncode == 0, done.stderr
    found = run(*verify, MESH_DATA=str(tmp_path / "new"))
    assert found.returncode == 6
    assert "actions was put back from a backup" in found.stderr
    assert "verify with --restored" in found.stderr
    assert run(*verify, "--restored", MESH_DATA=str(tmp_path / "new")).returncode == 0
    assert run(*verify, MESH_DATA=str(tmp_path / "new")).returncode == 0
    started = Up(tmp_path / "new")
    try:
        assert started.mesh("status").returncode == 0
        assert started.mesh("backup", tmp_path / "again").returncode == 0
    finally:
        started.end()
    again = run("backup", tmp_path / "offline", "--offline", MESH_DATA=str(tmp_path / "new"))
    assert again.returncode == 0, again.stderr
    done = run("restore", tmp_path / "offline", tmp_path / "new", "--kek", mesh.data / "kek")
    assert done.returncode == 5
    assert "not empty" in done.stderr
