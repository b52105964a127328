"""A policy applied while traffic runs is in force everywhere within a second, or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio

import mesh as sealmesh
from mesh.v1 import auth_pb2, auth_pb2_grpc
from tests.e2e.echo import Dialogue, Echo, Traffic, ask, fails, reason, served, works
from tests.e2e.process import Process
from tests.e2e.world import TIMEOUT, Mesh, SidecarProcess, appears, disappears, policy

#: Within how many seconds a change is in force at every node.
SECOND: Final = 1.0
#: A bystander: the pair that every policy here allows.
BESIDE: Final = ("caller", "beside")
FORBIDDEN: Final = policy(BESIDE, ("caller", "nobody"))
ALLOWED: Final = policy(
    BESIDE, ("caller", "callee"), ("front", "callee"), ("caller", "back"), ("front", "back")
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh() -> AsyncIterator[Mesh]:
    """Give a mesh whose policy the tests of this file may change as they like."""
    own = Mesh()
    try:
        await own.start()
        yield own
    finally:
        own.close()


@dataclass(frozen=True, slots=True)
class Cast:
    """Callers and callees, each embedded and behind a sidecar."""

    caller: sealmesh.Node
    front: SidecarProcess
    back: Process
    embedded: Echo
    app: Echo


@asynccontextmanager
async def playing(mesh: Mesh) -> AsyncIterator[Cast]:
    """Run the cast, with traffic beside it that no change may touch."""
    async with AsyncExitStack() as stack:
        embedded, app = Echo(), Echo()
        caller = await stack.enter_async_context(mesh.node("caller"))
        for name, echo in (("callee", embedded), ("beside", Echo())):
            node = await stack.enter_async_context(mesh.node(name))
            node.server().add_generic_rpc_handlers((echo,))
            await node.server().start()
        port = await stack.enter_async_context(served(app))
        back = await mesh.sidecar("back", "--app-port", str(port))
        stack.push_async_callback(back.process.stop)
        front = await mesh.sidecar("front")
        stack.push_async_callback(front.process.stop)
        beside = ask(caller.channel("beside"))
        await works(beside)
        async with Traffic([beside]) as traffic:
            yield Cast(caller, front, back.process, embedded, app)
        assert traffic.failures == []
        assert traffic.count


async def test_a_change_is_in_force_within_a_second(mesh: Mesh) -> None:
    """Newly allowed pairs work; newly forbidden ones end, open streams and sockets included, and say why."""
    await mesh.apply(FORBIDDEN)
    async with (
        playing(mesh) as cast,
        cast.front.channel("callee") as socket,
        cast.front.channel("back") as to_back,
    ):
        assert not cast.front.socket("callee").exists()
        channels = [cast.caller.channel("callee"), cast.caller.channel("back"), socket, to_back]
        began = time.monotonic()
        await mesh.apply(ALLOWED)
        await appears(cast.front.socket("callee"), SECOND)
        await appears(cast.front.socket("back"), SECOND)
        for channel in channels:
            await works(ask(channel), SECOND)
        assert time.monotonic() - began < SECOND
        dialogues = [Dialogue(channel) for channel in channels]
        for dialogue in dialogues:
            await dialogue.turn()
        mark = cast.back.mark()
        began = time.monotonic()
        await mesh.apply(FORBIDDEN)
        for dialogue in dialogues:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await dialogue.call.read()
            assert reason(caught.value) == "POLICY_DENIED"
        for echo in (cast.embedded, cast.app):
            assert [await echo.ended.get() for _ in range(2)] == ["cancelled"] * 2
        await disappears(cast.front.socket("callee"), SECOND)
        await disappears(cast.front.socket("back"), SECOND)
        assert time.monotonic() - began < SECOND
        await cast.back.says(r"call rejected: .*'denied'.*front may not call /test.v1.Echo/Both", mark)
        for channel in channels[:2]:
            await fails(ask(channel), SECOND, "NAME_UNAVAILABLE")
        for channel in channels[2:]:
            assert (await fails(ask(channel), SECOND)).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_method_can_be_forbidden_alone(mesh: Mesh) -> None:
    """A pair of which one method is denied keeps its name, its socket and its other methods."""
    await mesh.apply(ALLOWED)
    async with playing(mesh) as cast, cast.front.channel("back") as socket:
        await works(ask(socket))
        dialogue = Dialogue(socket)
        await dialogue.turn()
        document = json.loads(json.dumps(ALLOWED))
        document["services"]["back"]["deny"] = [{"principals": ["*"], "paths": ["*/Both"]}]
        await mesh.apply(document)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await dialogue.call.read()
        assert reason(caught.value) == "POLICY_DENIED"
        assert reason(await fails(Dialogue(socket).turn)) == "POLICY_DENIED"
        assert await ask(socket)() == b"hello"


async def test_auth_gives_no_key_that_its_own_policy_forbids(mesh: Mesh) -> None:
    """Asked directly, whatever gatekeeper may have told a node, auth gives keys of permitted pairs alone."""
    await mesh.apply(policy(("caller", "callee"), ("other", "secret")))
    async with mesh.node("caller") as caller:
        stub = auth_pb2_grpc.AuthServiceStub(caller.channel("mesh.auth"))

        async def given() -> set[str]:
            names = ["callee", "secret", "caller", "nowhere", "mesh.operator", "No Name", "other"]
            request = auth_pb2.GetPairKeysRequest(destinations=names)
            response = await stub.GetPairKeys(request, timeout=TIMEOUT)
            return {key.destination for key in response.keys}

        assert await given() == {"callee"}
        await mesh.apply(policy(("other", "secret")))
        assert await given() == set()


REFUSED: Final[tuple[tuple[dict[str, Any], str], ...]] = (
    ({"services": {"a": {"alow": []}}}, "alow"),
    ({"services": {"a": {}}, "extra": 1}, "extra"),
    ({"services": {"a": {"allow": [{"principals": ["b"], "paths": ["*"], "ports": [1]}]}}}, "ports"),
    ({"services": {"Not-A-Name": {}}}, "Not-A-Name"),
    ({"services": {"a": {"allow": [{"principals": ["Bad Name"], "paths": ["*"]}]}, "b": {}}}, "Bad Name"),
    ({"services": {"a": {"allow": [{"principals": ["b"], "paths": ["no slash"]}]}, "b": {}}}, "no slash"),
    ({"services": {"mesh.auth": {}}}, "mesh.auth"),
    ({"services": {}, "version": 1}, "version"),
)


async def test_what_is_no_policy_is_refused_in_a_line(mesh: Mesh) -> None:
    """Unknown fields, bad names and older versions are refused with where and why; the old one stays."""
    await mesh.apply(policy(("caller", "callee")))
    guard = (await mesh.policy()).version + 5
    version = await mesh.apply({**ALLOWED, "version": guard})
    assert version == guard
    for document, where in REFUSED:
        error = await refused(mesh, document)
        assert where in error, error
        assert "\n" not in error
        assert "Traceback" not in error
    for text in (b"", b"{", b"[]", b"\xff", b"services: {}", b'{"services": {}, "services": {}}'):
        async with mesh.operator() as operator:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await operator.auth.ApplyPolicy(auth_pb2.ApplyPolicyRequest(document=text), timeout=TIMEOUT)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    kept = await mesh.policy()
    assert kept.version == version
    assert set(json.loads(kept.document)["services"]) == set(ALLOWED["services"])


async def refused(mesh: Mesh, document: dict[str, Any]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await mesh.apply(document)
    assert caught.value.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}
    return str(caught.value.details())


async def test_a_name_too_long_for_a_socket(mesh: Mesh) -> None:
    """It gets no socket, which the sidecar says, and takes nobody else's away."""
    long = ".".join(["a" * 24] * 5)
    await mesh.apply(policy(("front", long), ("front", "callee")))
    front = await mesh.sidecar("front")
    try:
        await front.process.says(f"no socket for {long}: .*too long for a socket")
        await appears(front.socket("callee"))
        await mesh.apply(policy(("front", long), ("front", "back")))
        await appears(front.socket("back"))
    finally:
        assert await front.process.stop() == 0
