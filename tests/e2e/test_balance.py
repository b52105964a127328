"""Where calls go, with real processes: around a peer that hangs, and elsewhere while they are being made."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
import pytest_asyncio

from mesh.core.names import ServiceName
from mesh.rpc.status import reason_of
from tests.e2e.echo import SERVICE, Echo
from tests.e2e.process import until
from tests.e2e.world import HOST, Mesh, SidecarProcess, Timers, appears, disappears, policy

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

C = grpc.StatusCode
NAME = f"/{SERVICE}/Name"
BACK = ServiceName("back")
#: Seconds: longer than these tests, so that gatekeeper lets none of those go that hang.
LEASE = 300.0
CALLERS = 8


@pytest_asyncio.fixture(loop_scope="session")
async def stack() -> AsyncIterator[AsyncExitStack]:
    """End what a test has begun."""
    async with AsyncExitStack() as stack:
        yield stack


async def behind(mesh: Mesh, stack: AsyncExitStack, service: str, name: str) -> SidecarProcess:
    """Start an application here, and a sidecar of its own."""
    app = grpc.aio.server()
    app.add_generic_rpc_handlers((Echo(name),))
    port = app.add_insecure_port(f"{HOST}:0")
    await app.start()
    stack.push_async_callback(app.stop, 0)
    return await mesh.sidecar(service, "--app-port", str(port))


async def before_one(mesh: Mesh, stack: AsyncExitStack, count: int) -> list[SidecarProcess]:
    """Start one application here, and several sidecars before it."""
    app = grpc.aio.server()
    app.add_generic_rpc_handlers((Echo(),))
    port = app.add_insecure_port(f"{HOST}:0")
    await app.start()
    stack.push_async_callback(app.stop, 0)
    return [await mesh.sidecar("back", "--app-port", str(port)) for _ in range(count)]


async def outcome(call: Any) -> str:
    """Give who answered, or the status."""
    try:
        reply: bytes = await call
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return reply.decode()


async def test_a_peer_that_hangs_costs_its_own_calls_only(
    start_mesh: Callable[[Timers | None], Awaitable[Mesh]], stack: AsyncExitStack
) -> None:
    """Of three in turn one hangs: every third call is late and no other waits for it; left out, none is."""
    mesh = await start_mesh(Timers(lease=LEASE))
    in_turn: dict[str, Any] = {"balance": {"by": "round-robin"}}
    await mesh.apply(policy(("front", "back"), traffic={"back": in_turn}))
    backs = [await behind(mesh, stack, "back", name) for name in "abc"]
    front = await stack.enter_async_context(mesh.node("front"))
    await until(lambda: len(front.slice.endpoints(BACK) or ()) == len(backs), "three instances")
    call: Any = front.channel("back").unary_unary(NAME)
    assert Counter([await outcome(call(b"")) for _ in range(6)]) == {"a": 2, "b": 2, "c": 2}

    backs[1].process.process.send_signal(signal.SIGSTOP)
    ended = [await one for one in asyncio.as_completed([outcome(call(b"", timeout=3)) for _ in range(12)])]
    assert Counter(ended) == {"a": 4, "c": 4, "DEADLINE_EXCEEDED": 4}
    assert "DEADLINE_EXCEEDED" not in ended[:8]

    leaving_out = {**in_turn, "eject": {"failures": 2, "for": "60s"}}
    version = await mesh.apply(policy(("front", "back"), traffic={"back": leaving_out}))
    await until(lambda: front.slice.version >= version, "the new policy")
    late = Counter(await asyncio.gather(*(outcome(call(b"", timeout=2)) for _ in range(12))))
    assert late["DEADLINE_EXCEEDED"] == 4  # all of them on their way before it was known
    assert Counter([await outcome(call(b"", timeout=5)) for _ in range(12)]) == {"a": 6, "c": 6}

    backs[1].process.process.send_signal(signal.SIGCONT)
    version = await mesh.apply(policy(("front", "back"), traffic={"back": in_turn}))
    await until(lambda: front.slice.version >= version, "the new policy")
    assert Counter([await outcome(call(b"", timeout=5)) for _ in range(6)]) == {"a": 2, "b": 2, "c": 2}


async def test_several_sidecars_share_the_calls_of_one_app(
    start_mesh: Callable[[Timers | None], Awaitable[Mesh]], stack: AsyncExitStack
) -> None:
    """Each is an instance of its own, with its own connection to the app, and takes its share, both ways."""
    mesh = await start_mesh(None)
    in_turn: dict[str, Any] = {"balance": {"by": "round-robin"}}
    await mesh.apply(policy(("front", "back"), traffic={"back": in_turn}))
    backs = await before_one(mesh, stack, 3)
    assert len({back.instance for back in backs}) == len(backs)
    for front in [await mesh.sidecar("front") for _ in range(2)]:
        await appears(front.socket("back"))
        channel = await stack.enter_async_context(front.channel("back"))
        call: Any = channel.unary_unary(f"/{SERVICE}/Line")
        seen: set[str] = set()
        while len(seen) < len(backs):  # until this one knows of all
            seen.add(await outcome(call(b"", wait_for_ready=True)))
        shares = Counter([await outcome(call(b"")) for _ in range(12)])
        assert shares == dict.fromkeys(seen, 4)


async def test_policy_moves_calls_while_they_are_made(
    start_mesh: Callable[[Timers | None], Awaitable[Mesh]], stack: AsyncExitStack
) -> None:
    """To another service, back, and against a limit: within the load of a sidecar, no call fails unasked."""
    mesh = await start_mesh(None)
    pairs = (("front", "back"), ("front", "next"))
    await mesh.apply(policy(*pairs))
    for service in ("back", "next"):
        await behind(mesh, stack, service, service)
    front = await mesh.sidecar("front")
    await appears(front.socket("back"))
    channel = await stack.enter_async_context(front.channel("back"))
    call: Any = channel.unary_unary(NAME)
    await asyncio.wait_for(_answers(call), 20)
    seen, ending = [Counter[str]()], asyncio.Event()

    async def load() -> None:
        while not ending.is_set():
            counted = seen[-1]  # with the calls that begin now
            counted[await outcome(call(b"", metadata=(("x-load", "1"),)))] += 1

    async def comes(*names: str) -> Counter[str]:
        counted = Counter[str]()
        seen.append(counted)
        await until(lambda: all(counted[name] > 20 for name in names), f"{names} to answer")
        return counted

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(load())
        await comes("back")
        by_header = {"service": "next", "headers": [{"key": "x-load", "values": ["*"]}]}
        halves = [{"service": name, "weight": 1} for name in ("back", "next")]
        await mesh.apply(policy(*pairs, traffic={"back": {"split": [by_header, {**halves[0]}]}}))
        await comes("next")
        await mesh.apply(policy(*pairs, traffic={"back": {"split": halves}}))
        await comes("back", "next")
        assert set().union(*seen) == {"back", "next"}
        await mesh.apply(policy(("front", "back"), ("next", "next"), traffic={"back": {"split": halves}}))
        await disappears(front.socket("next"))
        # Before, some may have been on their way to where they may not go any more; from then on none is.
        assert set(await comes("back")) == {"back"}
        await mesh.apply(policy(*pairs, traffic={"back": {"rate": {"calls": 1, "burst": 1}}}))
        await comes("RESOURCE_EXHAUSTED")
        ending.set()
    await call(b"").code()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"")
    assert reason_of(caught.value) == "mesh/RATE_LIMITED"


async def test_an_embedded_node_says_that_it_does_not_serve(
    start_mesh: Callable[[Timers | None], Awaitable[Mesh]], stack: AsyncExitStack
) -> None:
    """It leaves the directory, takes the calls that come all the same, and returns."""
    mesh = await start_mesh(None)
    await mesh.apply(policy(("front", "back")))
    back = await stack.enter_async_context(mesh.node("back"))
    back.server().add_generic_rpc_handlers((Echo("back"),))
    await back.server().start()
    front = await stack.enter_async_context(mesh.node("front"))
    call: Any = front.channel("back").unary_unary(NAME)
    for _ in range(2):
        await _listed(mesh, listed=True)
        assert await call(b"", wait_for_ready=True) == b"back"
        back.announce(serving=False)
        await _listed(mesh, listed=False)
        back.announce(serving=True)


async def _listed(mesh: Mesh, *, listed: bool) -> None:
    async with asyncio.timeout(20):
        while (
            any(node.address for node in (await mesh.nodes()).nodes if node.service == "back") is not listed
        ):
            pass


async def _answers(call: Any) -> None:
    while await call(b"").code() is not C.OK:
        pass
