"""Where auth's state is kept: named by a URL, in which no argument holds a password."""

import json
import shutil
from pathlib import Path

import pytest

from mesh.cli.errors import Exit
from tests.cli.test_commands import invoke
from tests.postgres import Server


def test_a_mesh_in_postgresql_and_one_more_auth(tmp_path: Path, postgres: Server) -> None:
    """Each has a directory, a name and an audit key of its own, and the same KEK; init makes it once."""
    url = postgres.url(postgres.database())
    first, second = tmp_path / "first", tmp_path / "second"
    made = invoke("init", first, "--trust-domain", "shop.example", "--database", url)
    assert made.exit_code == 0, made.output
    more = invoke("replica", second, "--database", url, "--kek", first / "kek")
    assert more.exit_code == 0, more.output
    held = [json.loads((path / "database.json").read_text()) for path in (first, second)]
    assert [one["url"] for one in held] == [url, url]
    assert held[0]["replica"] != held[1]["replica"]
    assert held[1]["replica"] in more.output
    assert not (first / "auth.db").exists()
    assert not (second / "operator.json").exists()
    rotated = invoke("kek", "rotate", "--offline", "--data", first)
    assert f"until each has {first / 'kek'} as its kek.next" in rotated.output
    refused = invoke("kek", "rotate", "--offline", "--data", second)
    assert refused.exit_code == 5
    assert f"copy that one's kek to {second / 'kek.next'}" in refused.output
    shutil.copy(first / "kek", second / "kek.next")
    assert invoke("kek", "rotate", "--offline", "--data", second).exit_code == 0
    again = invoke("init", first, "--trust-domain", "shop.example", "--unless-made", "--database", url)
    assert "already" in again.output
    assert (again.exit_code, (first / "database.json").stat().st_mode & 0o777) == (0, 0o600)


def test_several_auths_by_one_command(tmp_path: Path, postgres: Server) -> None:
    """As a StatefulSet has it: each makes what it takes, and the next start finds it."""
    url, kek = postgres.url(postgres.database()), tmp_path / "kek"
    assert invoke("kek", "new", kek).exit_code == 0
    again = invoke("kek", "new", kek)
    assert (again.exit_code, "name a new file" in again.output) == (Exit.FAILED, True)
    said = []
    for name in ("a", "b", "a"):
        made = invoke(
            *("init", tmp_path / name, "--trust-domain", "shop.example", "--unless-made", "--kek", kek),
            MESH_DATABASE=f"{url}\n",
        )
        assert made.exit_code == 0, made.output
        said.append(made.output)
    assert "trust domain shop.example made in" in said[0]
    assert "for the mesh that the database holds" in said[1]
    assert "nothing to make" in said[2]
    both = invoke("init", tmp_path / "c", "--trust-domain", "x.example", "--kek", kek, "--kms", "aws:alias/x")
    assert (both.exit_code, "exclude each other" in both.output) == (Exit.USAGE, True)


@pytest.mark.parametrize(
    "url", ["postgresql://mesh:hunter2@db/mesh", "postgresql://db/mesh?password=hunter2"]
)
def test_no_password_among_the_arguments(tmp_path: Path, url: str) -> None:
    """It is refused, and not said again."""
    refused = invoke("init", tmp_path / "mesh", "--trust-domain", "shop.example", "--database", url)
    assert refused.exit_code == Exit.USAGE
    assert "PGPASSFILE" in refused.output
    assert "hunter2" not in refused.output
    assert not (tmp_path / "mesh").exists()
