"""``mesh up`` and what is done to a running mesh, with real processes."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import mesh
from tests.cli.command import TIMEOUT, Up, alive, children, command, environment, run, until, up

POLICY = """\
services:
  frontend: {}
  orders:
    allow: [{principals: [frontend], paths: ["/shop.v1.Orders/*"]}]
"""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Run a mesh for all tests here that leave it as it was."""
    with up(tmp_path_factory.mktemp("running") / "mesh") as started:
        yield started


def one_line(stderr: str) -> str:
    assert stderr.startswith("error: "), stderr
    assert stderr.count("\n") == 1, stderr
    return stderr.removeprefix("error: ").rstrip()


def test_it_says_where_it_is(running: Up) -> None:
    """The one line on stdout and addresses.json are the same."""
    found = json.loads((running.data / "addresses.json").read_text())
    assert running.line == (
        f"mesh is up: join {found['join']}, auth {found['auth']}, gatekeeper {found['gatekeeper']}\n"
    )


def test_libraries_say_nothing(running: Up) -> None:
    """Every line on stderr is the mesh's own."""
    assert [line for line in running.said if '"logger": "mesh.' not in line] == []


def test_auth_and_gatekeeper_are_processes_of_their_own(running: Up) -> None:
    """Neither runs in the supervisor, nor in the other."""
    assert (
        len({running.process.pid, running.child("services.auth"), running.child("services.gatekeeper")}) == 3
    )


def test_no_secret_is_in_an_argument_list_or_environment(running: Up) -> None:
    """Gatekeeper's token came over its standard input."""
    for pid in children(running.process.pid):
        for name in ("cmdline", "environ"):
            assert b"mesh1." not in Path(f"/proc/{pid}/{name}").read_bytes()
    assert not any("mesh1." in line for line in running.said)


def test_token_create_prints_the_token_alone(running: Up) -> None:
    """So that it can be caught by a shell; with JSON there is its expiry, too."""
    done = running.mesh("token", "create", "orders", "--ttl", "5m")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("mesh1.")
    assert done.stdout.count("\n") == 1
    made = running.json("token", "create", "orders")
    assert set(made) == {"token", "expires"}


def test_tokens_are_listed_without_their_secrets_and_revoked(running: Up) -> None:
    """A revoked token stays in the list as revoked; there is nothing to revoke twice or of another id."""
    made = running.json("token", "create", "billing.ledger")["token"]
    id_, secret = made.split(".")[1:]
    listed = running.mesh("token", "list")
    assert id_ in listed.stdout
    assert secret not in listed.stdout
    assert running.mesh("token", "revoke", id_).returncode == 0
    states = {row["id"]: (row["service"], row["state"]) for row in running.json("token", "list")}
    assert states[id_] == ("billing.ledger", "revoked")
    again = running.mesh("token", "revoke", "0" * 16)
    assert (again.returncode, one_line(again.stderr)) == (3, one_line(again.stderr))


def test_a_policy_is_applied_shown_and_applied_again(running: Up) -> None:
    """YAML in, the same out; another name of a rule gets a version, though nothing is granted otherwise."""
    first = running.json("policy", "apply", "-", stdin=POLICY)["version"]
    shown = running.mesh("policy", "get")
    assert shown.stdout.startswith(f"# version {first}\n")
    assert "frontend" in shown.stdout
    renamed = shown.stdout.replace("allow:\n    - ", "allow:\n    - name: renamed\n      ")
    assert running.mesh("policy", "apply", "-", stdin=renamed).stdout.splitlines() == [
        "no call is granted otherwise",
        "replay of the last 24 h: 0 calls",
        f"policy {first + 1} is in force",
    ]
    found = running.json("policy", "get")
    assert found["version"] == first + 1
    assert list(found["policy"]["services"]) == ["frontend", "orders"]
    assert running.json("status")["policy_version"] == first + 1


def test_what_changes_is_shown_before_it_does(running: Up) -> None:
    """The difference comes first, and a dry run ends there; programs get it, too."""
    first = running.json("policy", "apply", "-", stdin=POLICY)["version"]
    closed = "services: {frontend: {}, orders: {}}"
    dry, applied = "replay of the last 24 h: 0 calls", f"policy {first + 1} is in force"
    for more, last in ((["--dry-run"], [dry]), (["--yes"], [dry, applied])):
        done = running.mesh("policy", "apply", "-", *more, stdin=closed)
        assert done.returncode == 0, done.stderr
        said = done.stdout.splitlines()
        assert said[0].startswith("- frontend -> orders ")
        assert said[1] == "granted less: 1"
        assert said[2:] == last
    assert running.json("policy", "diff", str(first))[0]["sign"] == "+"
    told = running.json("policy", "apply", "-", "--dry-run", stdin=POLICY)
    assert [one["sign"] for one in told["differences"]] == ["+"]
    assert "version" not in told


def test_recorded_decisions_are_kept_beside_the_rest(running: Up) -> None:
    """They are in a file for its owner alone; nothing was called yet."""
    assert running.json("policy", "observed") == []
    assert stat.S_IMODE((running.data / "decisions.db").stat().st_mode) == 0o600


def test_history_and_rollback(running: Up) -> None:
    """Earlier policies are listed, shown, and put in force again under a new version."""
    first = running.json("policy", "apply", "-", stdin="version: 1000\n" + POLICY)["version"]
    running.json("policy", "apply", "-", stdin="services: {}")
    listed = running.json("policy", "history")
    assert [one["version"] for one in listed[:2]] == [first + 1, first]
    assert len(listed[0]["operator"]) == 32
    assert str(first + 1) in running.mesh("policy", "history").stdout.splitlines()[2]
    assert running.json("policy", "get", "--version", str(first))["policy"]["version"] == 1000
    back = running.mesh("policy", "rollback")
    assert back.stdout.splitlines()[0] == f"rollback of policy {first + 1} to the text of {first}"
    assert back.stdout.splitlines()[-1] == f"policy {first + 2} is in force, with the text of {first}"
    assert list(running.json("policy", "get")["policy"]["services"]) == ["frontend", "orders"]
    again = running.json("policy", "rollback", str(first + 1))
    assert (again["version"], again["restores"]) == (first + 3, first + 1)
    listed = running.json("policy", "history")
    assert [one["restores"] for one in listed[:4]] == [first + 1, first, None, None]
    header, _, newest, *_ = running.mesh("policy", "history").stdout.splitlines()
    assert (header.split()[:2], newest.split()[:2]) == (["VERSION", "FROM"], [str(first + 3), str(first + 1)])
    assert running.json("policy", "get")["policy"] == {"services": {}}
    assert "is not kept" in one_line(running.mesh("policy", "rollback", "999999").stderr)


def test_rollbacks_go_on_backwards(running: Up) -> None:
    """The second does not bring back what the first took out; to the empty one it goes only if told to."""
    one, two, three = (
        running.json("policy", "apply", "-", stdin=f"services: {{s{name}: {{}}}}")["version"]
        for name in ("a", "b", "c")
    )
    for text in (two, one):
        said = running.mesh("policy", "rollback", "--yes").stdout.splitlines()
        assert said[-1].endswith(f"is in force, with the text of {text}")
        assert not any(line.startswith("replay of") for line in said)
    assert list(running.json("policy", "get")["policy"]["services"]) == ["sa"]
    assert running.json("policy", "rollback", str(three))["restores"] == three
    assert running.json("policy", "rollback")["restores"] == two


def test_a_policy_that_says_the_same(running: Up) -> None:
    """It changes nothing, and gets no version, however it is written."""
    version = running.json("policy", "apply", "-", stdin="services: {a: {}, b: {}}")["version"]
    done = running.mesh("policy", "apply", "-", stdin='{"services": {"b": {"allow": []}, "a": {}}}')
    said = f"nothing changed: policy {version} says the same and stays in force\n"
    assert (done.returncode, done.stdout) == (0, said)
    same = running.json("policy", "apply", "-", stdin="services: {a: {}, b: {}}")
    assert same == {"version": version, "differences": []}
    assert running.json("policy", "history")[0]["version"] == version


def test_no_at_the_prompt_is_answered(running: Up, tmp_path: Path) -> None:
    """It is said that nothing changed, and the status is not that of an applied policy."""
    version = running.json("policy", "apply", "-", stdin="services: {a: {}, d: {}}")["version"]
    (tmp_path / "policy.yaml").write_text("services: {a: {}}")
    ours, terminal = pty.openpty()
    asking = subprocess.Popen(
        command("policy", "apply", tmp_path / "policy.yaml"),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment(MESH_DATA=str(running.data)),
    )
    os.close(terminal)
    os.write(ours, b"n\n")
    said = b""
    with suppress(OSError):  # what Linux says at the end of a terminal
        while part := os.read(ours, 4096):
            said += part
    os.close(ours)
    assert asking.wait(TIMEOUT) == 1
    assert f"not applied: policy {version} stays in force" in said.decode()
    assert running.json("policy", "get")["version"] == version


def test_what_was_is_judged_without_a_terminal_too(running: Up) -> None:
    """Nobody is asked, and what would have become of the last day's calls is shown all the same."""
    running.json("policy", "apply", "-", stdin="services: {a: {}, c: {}}")
    done = running.mesh("policy", "apply", "-", stdin="services: {a: {}}")
    assert [line for line in done.stdout.splitlines() if line.startswith("replay of the last 24 h: ")]


def test_the_operator_is_not_cut_off_by_accident(running: Up) -> None:
    """What mesh.operator may call is taken from it only if that is said."""
    opened = "services: {orders: {allow: [{principals: [mesh.operator], paths: ['/p.S/*']}]}}"
    before = running.json("policy", "apply", "-", stdin=opened)["version"]
    done = running.mesh("policy", "apply", "-", stdin="services: {orders: {}}")
    assert done.returncode == 3
    assert "takes /p.S/* of orders from mesh.operator" in one_line(done.stderr)
    assert running.json("policy", "get")["version"] == before
    done = running.mesh("policy", "apply", "-", "--cut-operator", stdin="services: {orders: {}}")
    assert done.stdout.splitlines()[-1] == f"policy {before + 1} is in force"
    assert running.mesh("status").returncode == 0


def test_explain_asks_the_mesh(running: Up) -> None:
    """Without a file it is the policy in force that is explained."""
    running.json("policy", "apply", "-", stdin=POLICY)
    found = running.json("policy", "explain", "frontend", "orders", "/no.such.Service/Method")
    assert found["verdict"] in ("allow", "deny")
    assert "frontend -> orders" in running.mesh("policy", "explain", "frontend", "orders", "/a.B/C").stdout


def test_a_bad_policy_leaves_the_one_in_force(running: Up) -> None:
    """Unknown field, bad name, older version: one line that names the field, status 3, and no change."""
    before = running.json("policy", "apply", "-", stdin=POLICY)["version"]
    for document, said in (
        ("services: {orders: {alow: []}}", "policy.services.orders.alow"),
        ("services: {Orders: {}}", "'Orders'"),
        ("version: 1\nservices: {}", "version"),
        ("services: {a: {}, a: {}}", "-:1:19: 'a' is there twice"),
    ):
        done = running.mesh("policy", "apply", "-", stdin=document)
        assert done.returncode == 3
        assert said in one_line(done.stderr)
        assert done.stdout == ""
    assert running.json("policy", "get")["version"] == before


async def test_status_lists_nodes_while_they_are_there(running: Up) -> None:
    """A node that joined is listed with its address and the policy that it has, and not after it left."""
    version = running.json("policy", "apply", "-", stdin=POLICY)["version"]
    found = json.loads((running.data / "addresses.json").read_text())
    token = running.mesh("token", "create", "orders").stdout.strip()
    async with mesh.join("orders", token=token, auth=found["join"]) as node:
        until(lambda: bool(running.json("status")["nodes"]), "the node is listed")
        (row,) = running.json("status")["nodes"]
        assert (row["service"], row["instance"]) == ("orders", str(node.instance))
        assert row["policy_version"] in (0, version)
        table = running.mesh("status").stdout
        assert "shop.example" in table
        assert str(node.instance) in table
    until(lambda: running.json("status")["nodes"] == [], "the node has left")


def test_run_makes_its_own_token_and_gives_the_exit_status_of_the_app(running: Up) -> None:
    """Nothing but the operator's credential is needed; the app finds its way out in its environment."""
    running.json("policy", "apply", "-", stdin=POLICY)
    script = 'test -d "$MESH_RUN_DIR" && test -n "$MESH_OUTBOUND" && test -z "$MESH_TOKEN" && exit 7'
    done = running.mesh("run", "--service", "orders", "--app-port", "9000", "--", "sh", "-c", script)
    assert done.returncode == 7, done.stderr
    missing = running.mesh("run", "--service", "orders", "--", "/no/such/command")
    assert missing.returncode == 2
    assert "no such command" in missing.stderr


def test_the_data_directory_is_one_meshs_alone(running: Up) -> None:
    """A second mesh on it does not start, and does the first no harm."""
    second = run("up", "--data", running.data, "--port-base", "0")
    assert second.returncode != 0
    assert "in use" in second.stderr
    assert running.mesh("status").returncode == 0


@pytest.mark.parametrize("module", ["services.gatekeeper", "services.auth"])
def test_what_is_killed_comes_back(running: Up, module: str) -> None:
    """A part that dies is started again and the mesh is whole again, with its policy."""
    before = running.json("policy", "apply", "-", stdin=POLICY)["version"]
    killed = running.child(module)
    os.kill(killed, signal.SIGKILL)
    until(lambda: running.child(module) not in (0, killed), f"{module} is started again")
    until(lambda: running.mesh("status").returncode == 0, "the mesh is whole")
    until(
        lambda: running.json("status")["gatekeeper"] == {"policy_version": before},
        "the policy is back in force",
    )
    assert any("ended with status -9: starting it again" in line for line in running.said)


def test_sigterm_ends_everything_in_order(tmp_path: Path) -> None:
    """Status 0, no child left, and the next command says that the mesh is not running."""
    with up(tmp_path / "mesh") as started:
        both = children(started.process.pid)
        assert len(both) == 2
        assert started.end(signal.SIGTERM) == 0
        assert [pid for pid in both if alive(pid)] == []
        done = started.mesh("status")
        assert done.returncode == 4
        assert "mesh up --data" in one_line(done.stderr)


def test_children_do_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    """Even ``kill -9`` leaves nothing running."""
    with up(tmp_path / "mesh") as started:
        both = children(started.process.pid)
        started.end(signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in both), "the children have ended")


def test_the_trust_domain_survives_a_restart(tmp_path: Path) -> None:
    """Policy and trust domain are as before; a CA is never made anew."""
    with up(tmp_path / "mesh") as started:
        started.json("policy", "apply", "-", stdin=POLICY)
        before = started.json("status")
        assert started.end() == 0
        again = Up(started.data)
        try:
            after = again.json("status")
        finally:
            again.end()
    kept = ("trust_domain", "ca_expires", "policy_version")
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}


def test_gatekeeper_answers_proxies_where_it_is_told_to_and_else_nowhere(tmp_path: Path, running: Up) -> None:
    """One more port, in the log alone."""
    with up(tmp_path / "mesh", "--ext-authz", "127.0.0.1:0") as started:
        until(lambda: any("answering proxies on port" in line for line in started.said), "it answers")
    assert not any("proxies" in line for line in running.said)


def test_up_needs_a_trust_domain(tmp_path: Path) -> None:
    """It does not make one by the way."""
    done = run("up", "--data", tmp_path / "nothing")
    assert done.returncode == 5
    assert "mesh init" in one_line(done.stderr)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("broken", ["auth.db", "kek"])
def test_up_refuses_a_damaged_directory(tmp_path: Path, broken: str) -> None:
    """One line of what is wrong, status 5, and nothing is made anew."""
    data = tmp_path / "mesh"
    assert run("init", data, "--trust-domain", "shop.example").returncode == 0
    (data / broken).write_bytes(b"damage" * 6)
    shutil.copy(data / broken, tmp_path / "before")
    done = run("up", "--data", data, "--port-base", "0")
    assert done.returncode == 5
    assert one_line(done.stderr)
    assert (data / broken).read_bytes() == (tmp_path / "before").read_bytes()


@pytest.mark.parametrize("option", ["--join-port", "--auth-port", "--gatekeeper-port"])
def test_a_port_in_use_is_said_and_not_tried_again(tmp_path: Path, option: str) -> None:
    """The mesh does not come up in part."""
    data = tmp_path / "mesh"
    assert run("init", data, "--trust-domain", "shop.example").returncode == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run("up", "--data", data, "--port-base", "0", option, port)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert port in said
    assert "in use" in said
