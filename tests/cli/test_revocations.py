"""Revoking and banning from the command line, on a running mesh."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cli.command import Up, up

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Run a mesh for the tests of this module."""
    with up(tmp_path_factory.mktemp("revoke") / "mesh") as running:
        yield running


def test_a_service_is_banned_listed_and_unbanned(mesh: Up) -> None:
    """What was done is said, listed with its reason and in the audit log; then tokens are made again."""
    assert mesh.mesh("token", "create", "orders").returncode == 0
    assert mesh.json("ban", "orders", "--reason", "leaked") == {
        "service": "orders",
        "instances": [],
        "tokens": 1,
        "untold": 0,
    }
    [row] = mesh.json("revoked")
    assert (row["service"], row["state"], row["instance"]) == ("orders", "banned", None)
    assert row["reason"] == "leaked"
    assert "banned" in mesh.mesh("revoked").stdout
    refused = mesh.mesh("token", "create", "orders")
    assert refused.returncode
    assert "mesh unban orders" in refused.stderr
    done = mesh.mesh("unban", "orders")
    assert done.returncode == 0, done.stderr
    assert mesh.mesh("token", "create", "orders").returncode == 0
    assert mesh.mesh("unban", "orders").returncode
    entries = mesh.json("audit", "query", "--kind", "revocation", "--log", "actions")
    assert [entry["event"] for entry in entries] == ["ban", "unban"]


def test_what_was_done_is_said_in_words(mesh: Up) -> None:
    """A name with nothing to revoke does not look like success, and a ban says that it is one."""
    document = mesh.data.parent / "policy.yaml"
    rule = {"principals": ["visitor"], "paths": ["*"]}
    document.write_text(json.dumps({"services": {"greeter": {"allow": [rule]}, "visitor": {}}}))
    assert mesh.mesh("policy", "apply", str(document), "--yes").returncode == 0
    done = mesh.mesh("revoke", "greter")
    assert done.stdout.startswith("nothing to revoke: greter has no instance")
    assert "did you mean greeter?" in done.stderr
    assert mesh.mesh("token", "create", "greeter").returncode == 0
    done = mesh.mesh("ban", "greeter")
    assert done.stdout.splitlines() == [
        "0 instances and 1 unused token of greeter revoked",
        "greeter is banned: none can join as it until mesh unban greeter",
    ]
    assert mesh.mesh("unban", "greeter").returncode == 0


def test_what_cannot_be_revoked(mesh: Up) -> None:
    """The mesh's own, an instance that is none or not there: one line, and nothing done."""
    for target in ("mesh.gatekeeper", "mesh.auth", f"orders/{'0' * 32}", "orders/12"):
        done = mesh.mesh("revoke", target)
        assert done.returncode, target
        assert len(done.stderr.strip().splitlines()) == 1
    assert mesh.json("revoked") == []


def test_a_part_of_an_instance(mesh: Up) -> None:
    """The first digits of no registered instance are refused, and so is what could be none."""
    done = mesh.mesh("revoke", f"orders/{'0' * 8}")
    assert done.returncode == 3
    assert "no registered instance begins with orders/00000000: give all 32 digits" in done.stderr
    assert "as mesh token list has them" in done.stderr
    assert mesh.mesh("revoke", f"orders/{'0' * 7}").returncode == 2


def test_an_instance_is_revoked_and_listed(mesh: Up) -> None:
    """By force, one that every mesh has: an operator's; not this command's own, which is answered."""
    done = mesh.mesh("revoke", "mesh.operator", "--force", "--reason", "drill")
    assert done.returncode == 0, done.stderr
    assert "revoked mesh.operator/" in done.stdout
    rows = mesh.json("revoked")
    assert rows
    found = {(row["service"], row["state"], row["reason"]) for row in rows}
    assert found == {("mesh.operator", "revoked", "drill")}
