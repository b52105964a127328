"""The mesh's own keys from the command line, on a running mesh and without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import Up, run, up


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
