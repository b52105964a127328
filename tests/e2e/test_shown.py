"""What operators are shown of a mesh in use: every kind of audit entry, and every table in 80 columns."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio

import mesh as sealmesh
from mesh.core.audit import Kind, Verdict
from tests.cli.command import run
from tests.cli.terminal import on_terminal
from tests.e2e.echo import SERVICE, Echo, ask, works
from tests.e2e.world import TIMEOUT, Mesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

#: Of a usual length, and long ones.
CALLER, LONG = "reconciliation.accounts-payable.billing-team", "a-callee-with-a-name.of-the-warehouse-team"
POLICY: Final = {
    "services": {
        CALLER: {},
        "shop": {
            "mode": "audit",
            "deny": [
                {"name": "no-purge", "principals": ["*"], "paths": [f"/{SERVICE}/Purge"], "mode": "enforce"},
                {"name": "on-trial", "principals": ["*"], "paths": [f"/{SERVICE}/Name"]},
            ],
        },
        LONG: {"deny": [{"name": "nobody", "principals": ["*"], "paths": ["*"]}], "mode": "audit"},
    }
}


async def denied(node: sealmesh.Node, to: str, method: str) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await node.channel(to).unary_unary(f"/{SERVICE}/{method}")(b"", timeout=TIMEOUT)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED, refused.value.details()
    return refused.value.details() or ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh() -> AsyncIterator[Mesh]:
    """Give a mesh in which calls passed, were denied, and passed only in audit; its nodes stay."""
    own = Mesh()
    try:
        await own.start()
        await own.apply(POLICY)
        async with AsyncExitStack() as stack:
            for name in ("shop", LONG):
                node = await stack.enter_async_context(own.node(name))
                node.server().add_generic_rpc_handlers((Echo(),))
                await node.server().start()
            caller = await stack.enter_async_context(own.node(CALLER))
            for name in ("shop", LONG):
                await works(ask(caller.channel(name)))
            await works(ask(caller.channel("shop"), "Name"))
            await works(ask(caller.channel("shop"), "Name"))
            await denied(caller, "shop", "Purge")
            with pytest.raises(sealmesh.JoinError):
                async with sealmesh.join(CALLER, token=own.tokens[-1], auth=own.join_address):
                    pass
            await own.token("never-used", 3600)
            await own.ban("a-banned-service.of-a-team-that-left")
            tap = own.python("tap", "mesh.cli", "tap", "shop", "--data", str(own.data))
            await tap.says("tapping 1 instance")
            await tap.stop()
            yield own
    finally:
        own.close()


async def shown(mesh: Mesh, *arguments: str) -> Any:
    """Give what a command shows, as data."""
    done = await asyncio.to_thread(run, *arguments, "-o", "json", "--data", mesh.data)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


async def entries(mesh: Mesh, *filters: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await shown(mesh, "audit", "query", *filters)
    return found


async def settled(mesh: Mesh, *command: str, count: int) -> None:
    """Wait until a list is so long: nodes tell of what passed within some seconds."""
    async with asyncio.timeout(TIMEOUT * 3):
        while len(await shown(mesh, *command)) < count:
            pass


async def test_every_kind_is_left_by_real_processes(mesh: Mesh) -> None:
    """Each kind of entry that the documentation lists is in the log of a mesh in use."""
    await settled(mesh, "audit", "query", "--kind", "audit", count=3)
    kinds = [option for kind in Kind for option in ("--kind", kind.value)]
    assert {entry["kind"] for entry in await entries(mesh, *kinds)} == {kind.value for kind in Kind}
    for kind in Kind:
        assert {entry["kind"] for entry in await entries(mesh, "--kind", kind.value)} == {kind.value}


async def test_what_audit_lets_pass_is_in_the_log(mesh: Mesh) -> None:
    """Caller, method and the rule that would have denied, by the word of the node; and no denial of it."""
    await settled(mesh, "audit", "query", "--kind", "audit", count=3)
    passed = await entries(mesh, "--kind", "audit", "--service", "shop")
    assert {(one["event"], one["verdict"], one["service"]) for one in passed} == {
        ("would be denied", Verdict.DONE.value, CALLER)
    }
    named = {one["method"]: one for one in passed}
    assert named[f"/{SERVICE}/Name"]["rule"] == "on-trial"
    assert named[f"/{SERVICE}/Unary"]["detail"] == "no rule of shop allows it"
    (refused,) = await entries(mesh, "--kind", "denial")
    assert (refused["method"], refused["rule"]) == (f"/{SERVICE}/Purge", "no-purge")


async def test_a_command_leaves_a_session_and_its_action(mesh: Mesh) -> None:
    """Looking is a session, not shown unless asked for; acting is an entry by that session's instance."""
    before = len(await entries(mesh, "--kind", "session"))
    done = await asyncio.to_thread(run, "token", "create", "shop", "--data", mesh.data)
    assert (done.returncode, done.stderr) == (0, "")
    sessions = await entries(mesh, "--kind", "session")
    assert len(sessions) == before + 2
    created = (await entries(mesh, "--kind", "token"))[-1]
    assert created["by"] in {f"mesh.operator/{one['instance']}" for one in sessions}
    assert "session" not in {one["kind"] for one in await entries(mesh)}


TABLES: Final = {
    "audit query": "time kind event verdict service method rule by count detail",
    "audit query --kind session": "time kind event verdict service method rule by count detail",
    "audit tail": "time kind event verdict service method rule by count detail",
    "token list": "id service state created expires instance",
    "policy observed": "source destination method verdict rule by count",
    "policy history": "version applied operator bytes",
    "keys list": "kind id state since next until keeper",
    "status": "service instance address",
    "edges": "source destination permitted denied unknown",
    "revoked": "service instance state since forgotten by reason",
}


@pytest.mark.parametrize("columns", [80, 250])
@pytest.mark.parametrize("command", TABLES)
async def test_no_table_loses_a_cell(mesh: Mesh, command: str, columns: int) -> None:
    """However narrow the terminal is, each value of each row can be read on it."""
    if command in ("policy observed", "edges"):
        await settled(mesh, "policy", "observed", count=4)
    rows = await shown(mesh, *command.split())
    rows = rows["nodes"] if command == "status" else rows
    # Whose instance is another one with every command.
    rows = [row for row in rows if command != "token list" or row["service"] != "mesh.operator"]
    assert rows
    said = await asyncio.to_thread(on_terminal, *command.split(), "--data", mesh.data, columns=columns)
    assert "…" not in said
    assert "\x1b[2J" not in said
    told = cells(said, TABLES[command].split())
    for row in rows:
        for name in TABLES[command].split():
            value = str(row.get(name) or "")
            assert "".join(value.split()) in told, (name, value, said)


def cells(said: str, columns: list[str]) -> str:
    """Give all cells without their blanks: of a table, folded ones are put together again."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines()
    heads = [
        number for number, line in enumerate(lines) if line.lower().split()[: len(columns)][:2] == columns[:2]
    ]
    if not heads:
        return "".join(said.split())
    head = lines[heads[0]]
    starts = [match.start() for match in re.finditer(r"\S+(?: \S+)*", head)]
    rows: list[list[str]] = []
    for line in lines[heads[0] + 2 :]:
        parts = [line[at:end].strip() for at, end in zip(starts, [*starts[1:], None], strict=True)]
        if parts[0]:
            rows.append(parts)
        else:
            rows[-1] = ["".join(both) for both in zip(rows[-1], parts, strict=True)]
    return "\n".join("".join(cell.split()) for row in rows for cell in row)


@pytest.mark.parametrize("command", ["token create", "policy explain"])
async def test_a_name_that_the_policy_does_not_know(mesh: Mesh, command: str) -> None:
    """A misspelt service is taken as it is, with a warning on standard error; one that is known has none."""
    method = f"/{SERVICE}/Unary"
    for name, warning in (
        ("shopp", "warning: the policy has no service shopp: did you mean shop?\n"),
        ("zzz", "warning: the policy has no service zzz\n"),
        ("shop", ""),
    ):
        names = (name,) if command == "token create" else (CALLER, name, method)
        done = await asyncio.to_thread(run, *command.split(), *names, "--data", mesh.data)
        assert (done.returncode, done.stderr) == (0, warning)
        assert done.stdout
