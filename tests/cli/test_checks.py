"""``mesh check``: each thing that can be wrong is found, named, and has a hint and a page that exists."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.cli.causes import HINTS
from mesh.cli.checks import Facts, Finding, NodeSeen, State, findings, worst
from mesh.core.errors import Cause

NOW = 1_800_000_000_000
DAY = 86_400_000
ORDERS = NodeSeen("orders", "0a" * 16, "127.0.0.1:9000", 7, 1.0, reached=True)
WELL = Facts(
    now_ms=NOW,
    ports={"auth": {"127.0.0.1:7701": True}},
    secret_modes={"operator.json": 0o600},
    free_share=0.5,
    auth_ms=NOW + 100,
    ca_expires_ms=NOW + 3650 * DAY,
    epoch_ends_ms=NOW + 1_000_000,
    policy_version=7,
    served=frozenset({"orders"}),
    gatekeeper_version=7,
    nodes=(ORDERS,),
)
PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()


def not_well(facts: Facts) -> list[Finding]:
    return [one for one in findings(facts) if one.state is not State.WELL]


def test_all_is_well() -> None:
    """Of a mesh that is in order every check says so, and has nothing to add."""
    found = findings(WELL)
    assert len(found) >= 8
    assert {(one.state, one.hint, one.link) for one in found} == {(State.WELL, "", "")}
    assert worst(found) is State.WELL


@pytest.mark.parametrize(
    ("broken", "category", "state", "said"),
    [
        ({"ports": {"auth": {"h:1": False}}}, "ports", State.WRONG, "auth takes no connection at h:1"),
        (
            {"ports": {"gatekeeper": {"h:1": True, "h:2": False}}},
            "ports",
            State.WRONG,
            "gatekeeper takes no connection at h:2",
        ),
        ({"secret_modes": {"kek": 0o644}}, "store", State.WRONG, "others can read kek"),
        ({"free_share": 0.01}, "store", State.DOUBTFUL, "1% of the data directory's disk"),
        ({"free_share": 0.0}, "store", State.WRONG, "0% of the data directory's disk"),
        ({"read_only": True}, "store", State.WRONG, "disk is read-only"),
        ({"auth_ms": None}, "auth", State.WRONG, "auth takes connections and does not answer"),
        ({"auth_ms": None, "ports": {}}, "auth", State.WRONG, "auth does not answer"),
        ({"auth_ms": None, "trouble": "it refuses: ask it"}, "auth", State.WRONG, "it refuses"),
        (
            {"gatekeeper_version": None, "ports": {"gatekeeper": {"h:1": True}}},
            "gatekeeper",
            State.WRONG,
            "gatekeeper takes connections and does not answer",
        ),
        ({"auth_ms": NOW + 3_000}, "clocks", State.DOUBTFUL, "3.0 s apart"),
        ({"auth_ms": NOW - 60_000}, "clocks", State.WRONG, "60.0 s apart"),
        ({"ca_expires_ms": NOW + 10 * DAY}, "keys", State.DOUBTFUL, "10 days left"),
        ({"ca_expires_ms": NOW - DAY}, "keys", State.WRONG, "the CA has -1 days left"),
        ({"epoch_ends_ms": NOW}, "keys", State.WRONG, "the epoch is over"),
        ({"gatekeeper_version": None}, "gatekeeper", State.WRONG, "gatekeeper does not answer"),
        ({"gatekeeper_version": 6}, "gatekeeper", State.WRONG, "gatekeeper has policy 6, not 7"),
        (
            {"nodes": (replace(ORDERS, policy_version=6),)},
            "slices",
            State.WRONG,
            "has policy 6 in force, not 7",
        ),
        ({"nodes": (replace(ORDERS, silent_seconds=12.0),)}, "slices", State.DOUBTFUL, "last heard 12 s ago"),
        ({"nodes": (replace(ORDERS, reached=False),)}, "sockets", State.DOUBTFUL, "orders/0a0a0a0a takes no"),
        ({"nodes": ()}, "services", State.DOUBTFUL, "no instance of orders takes calls"),
        ({"nodes": (replace(ORDERS, address=""),)}, "services", State.DOUBTFUL, "no instance of orders"),
    ],
)
def test_what_is_wrong(broken: dict[str, object], category: str, state: State, said: str) -> None:
    """One thing that is wrong is one finding, in its category, with a hint and a section to read on in."""
    (found,) = not_well(replace(WELL, **broken))  # type: ignore[arg-type]
    assert (found.category, found.state) == (category, state)
    assert said in found.what
    assert found.hint
    assert found.link == f"docs/troubleshooting.md#{category}"
    assert re.search(rf"^## {category}$", PAGE, re.MULTILINE)
    assert worst([found, *findings(WELL)]) is state


def test_a_ca_is_not_founded_anew_by_hand() -> None:
    """Auth makes the next one, so one that is near its end points to auth."""
    (found,) = not_well(replace(WELL, ca_expires_ms=NOW + DAY))
    assert found.hint == "auth makes the next one by itself, long before: see what it logs"


def test_no_policy() -> None:
    """A mesh without a policy denies all, and is told so once."""
    none = replace(WELL, policy_version=0, gatekeeper_version=0, nodes=(), served=frozenset())
    (found,) = not_well(none)
    assert (found.category, found.state) == ("policy", State.DOUBTFUL)


def test_every_cause_has_a_hint() -> None:
    """Whatever a node does not believe, an operator is told what to look at."""
    assert set(HINTS) == set(Cause)


def test_a_service_that_was_revoked_or_banned() -> None:
    """Where nothing of it runs because it was put out, that is said, and how it may come back."""
    gone = replace(WELL, served=frozenset({"gone"}), nodes=())
    waits = NodeSeen("gone", "00" * 16, "", 7, 1.0)
    for facts, said in (
        (gone, "start it"),
        (replace(gone, nodes=(waits,), revoked=frozenset({"gone"})), "does the app listen"),
        (replace(gone, revoked=frozenset({"gone"})), "mesh token create gone"),
        (replace(gone, revoked=frozenset({"gone"}), banned=frozenset({"gone"})), "mesh unban gone"),
    ):
        assert [one.hint for one in findings(facts) if one.category == "services" and said in one.hint]
