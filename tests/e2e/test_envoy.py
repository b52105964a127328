"""A real Envoy asks gatekeeper about each call: the same policy and log, and nothing without an answer."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio

from mesh.core.join import JoinToken
from mesh.core.metadata import PEER
from mesh.core.names import Identity, InstanceId, ServiceName, TrustDomain
from mesh.enrol import join
from mesh.rpc.status import reason_of
from mesh.rpc.svid import Svid
from tests.e2e.echo import fails, works
from tests.e2e.envoys import SERVICE, Application, Front, front, served
from tests.e2e.test_audit import entries
from tests.e2e.world import DOMAIN, TIMEOUT, Mesh, Timers
from tests.rpc.pair import World

#: One loop for all of them, for the application is served on it.
pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

GET: Final = "/shop.v1.Orders/Get"
POLICY: Final[dict[str, Any]] = {
    "services": {
        "frontend": {},
        "tenant": {},
        "evil": {},
        SERVICE: {
            "allow": [
                {"name": "front", "principals": ["frontend"], "paths": ["/shop.v1.Orders/*"]},
                {
                    "name": "tenants",
                    "principals": ["tenant"],
                    "paths": ["*"],
                    "headers": [{"key": "x-tenant", "values": ["acme", "beta-*"]}],
                },
            ],
            "deny": [
                {"name": "no-purge", "principals": ["*"], "paths": ["*/Purge"]},
                {
                    "name": "embargo",
                    "principals": ["*"],
                    "paths": ["*"],
                    "headers": [{"key": "x-region", "values": ["nowhere"]}],
                },
            ],
        },
    }
}
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """A mesh, an Envoy before an application, and certificates of callers."""

    mesh: Mesh
    front: Front
    application: Application
    svids: dict[str, Svid]

    async def apply(self, document: dict[str, Any]) -> None:
        """Put a policy in force, and wait until gatekeeper has it."""
        version = await self.mesh.apply(document)
        while (await self.mesh.nodes()).policy_version < version:
            pass

    async def call(self, who: str, method: str = GET, metadata: Metadata = ()) -> list[tuple[str, str]]:
        """Call as a service, with its certificate; give the metadata that the application was given."""
        async with self.front.client(self.svids[who]) as channel:
            make: Any = channel.unary_unary(method)
            return [(k, v) for k, v in json.loads(await make(b"", metadata=metadata, timeout=TIMEOUT))]

    async def get(self) -> bytes:
        """Make a call that is allowed; give who the application was told calls."""
        return "".join(values(await self.call("frontend"), PEER)).encode()

    async def refused(self, who: str, method: str = GET, metadata: Metadata = ()) -> grpc.aio.AioRpcError:
        """Call, and see that it is refused and does not reach the application."""
        before = len(self.application.calls)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.call(who, method, metadata)
        assert len(self.application.calls) == before
        return refused.value


async def svid(mesh: Mesh, service: str) -> Svid:
    enrolment = await join(JoinToken.parse(await mesh.token(service)), mesh.join_address)
    await enrolment.close()
    return enrolment.membership.svid


@asynccontextmanager
async def playing(mesh: Mesh) -> AsyncIterator[Scene]:
    """Start a mesh whose gatekeeper answers proxies, and an Envoy."""
    mesh.answers_proxies()
    await mesh.start()
    application = Application()
    async with served(application) as port:
        svids = {name: await svid(mesh, name) for name in ("frontend", "tenant", "evil", "stranger")}
        yield Scene(mesh, await front(mesh, port), application, svids)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Scene]:
    """Give a scene for the tests that leave it as it was, but for the policy."""
    mesh = Mesh()
    try:
        async with playing(mesh) as scene:
            yield scene
    finally:
        mesh.close()


@pytest_asyncio.fixture(loop_scope="module")
async def scene(running: Scene) -> Scene:
    """Give it with the policy of these tests in force."""
    await running.apply(POLICY)
    return running


def values(metadata: list[tuple[str, str]], key: str) -> list[str]:
    return [value for name, value in metadata if name == key]


async def test_what_is_allowed_arrives_with_the_verified_caller_and_no_other(scene: Scene) -> None:
    """Whatever the client says of itself is replaced; what is the application's arrives as it was sent."""
    forged = (
        (PEER, f"spiffe://{DOMAIN}/evil"),
        ("x-own", "first"),
        (PEER, "spiffe://elsewhere.example/evil"),
        ("x-own", "second"),
        ("mesh-call", "anything"),
        ("x-forwarded-client-cert", f"URI=spiffe://{DOMAIN}/evil"),
    )
    seen = await scene.call("frontend", metadata=forged)
    assert values(seen, PEER) == [f"spiffe://{DOMAIN}/frontend"]
    assert values(seen, "x-own") == ["first", "second"]
    assert values(seen, "mesh-call") == []
    assert values(seen, "x-forwarded-client-cert") == []


async def test_a_denial_is_said_as_a_node_says_it(scene: Scene) -> None:
    """Code, text, details and id, but no rule; whether a rule denies or none allows looks the same."""
    texts = set()
    for who, method in (("evil", GET), ("stranger", GET), ("frontend", "/shop.v1.Orders/Purge")):
        refused = await scene.refused(who, method)
        assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
        assert reason_of(refused) == "mesh/POLICY_DENIED"
        text = refused.details() or ""
        assert "policy does not let this service make this call" in text
        texts.add(re.sub(r"\[id [0-9a-f]{16}\]", "", text))
    assert len(texts) == 1


async def test_a_denial_is_in_the_audit_log_before_it_is_answered(scene: Scene) -> None:
    """With the proxy's service and instance as who denied, and the caller that it verified."""
    refused = await scene.refused("frontend", "/shop.v1.Orders/Purge")
    (call_id,) = re.findall(r"\[id ([0-9a-f]{16})\]", refused.details() or "")
    (entry,) = [one for one in await entries(scene.mesh, "denials") if one.call_id == call_id]
    assert (entry.event, entry.service, entry.method, entry.rule) == (
        "call denied",
        "frontend",
        "/shop.v1.Orders/Purge",
        "no-purge",
    )
    instance = json.loads(await scene.front.keeper.prints())["instance"]
    assert entry.by == f"{SERVICE}/{instance}"
    said = f"denied: source='frontend' method='/shop.v1.Orders/Purge' destination={SERVICE} rule='no-purge'"
    assert f"{said} id={call_id}" in scene.mesh.gatekeeper.log


async def test_headers_do_not_make_a_caller(scene: Scene) -> None:
    """Who the caller is, only its certificate says."""
    uri = f"spiffe://{DOMAIN}/frontend"
    forged = ((PEER, uri), ("x-forwarded-client-cert", f"Hash=00;URI={uri}"), ("x-mesh-peer", uri))
    assert (await scene.refused("evil", metadata=forged)).code() is grpc.StatusCode.PERMISSION_DENIED


async def test_rules_with_headers_see_each_value(scene: Scene) -> None:
    """A second value gains nothing where a rule allows, and hides nothing where one denies."""
    for good in ([("x-tenant", "acme")], [("x-tenant", "acme"), ("x-tenant", "beta-1")]):
        assert await scene.call("tenant", metadata=tuple(good))
    for bad in (
        [],
        [("x-tenant", "other")],
        [("x-tenant", "acme"), ("x-tenant", "other")],
        [("x-tenant", "beta-1"), ("x-tenant", "other")],
        [("x-tenant", "acme"), ("x-region", "nowhere")],
        [("x-tenant", "acme"), ("x-region", "home"), ("x-region", "nowhere")],
    ):
        await scene.refused("tenant", metadata=tuple(bad))


@pytest.mark.parametrize(
    "path",
    [
        f"{GET}?x=1",
        f"{GET}?",
        f"{GET}#x",
        f"/{GET}",
        f"{GET}/",
        "/shop.v1.Orders//Get",
        "/shop.v1.Orders/./Get",
        "/shop.v1.Other/../Orders/Get",
        "/shop.v1.Orders/%47et",
        "/shop.v1.Orders/Get;x",
        "/",
    ],
)
async def test_what_is_no_method_is_denied_as_it_stands(scene: Scene, path: str) -> None:
    """Nothing is normalised, though all methods are allowed: neither here nor on the way."""
    await scene.refused("tenant", path, (("x-tenant", "acme"),))


async def test_audit_permits_and_says_so(scene: Scene) -> None:
    """As on a node: the call passes, and what would have denied it is in the log."""
    section = {**POLICY["services"][SERVICE], "mode": "audit"}
    await scene.apply({"services": {**POLICY["services"], SERVICE: section}})
    assert values(await scene.call("evil"), PEER) == [f"spiffe://{DOMAIN}/evil"]
    said = f"audit: would be denied: source='evil' method='{GET}' destination={SERVICE} rule=None by=None"
    await scene.mesh.gatekeeper.says(re.escape(said))


async def test_a_change_of_policy_is_in_force_at_once(scene: Scene) -> None:
    """For the next call, on a connection that is there already, both ways."""
    async with scene.front.client(scene.svids["frontend"]) as channel:
        get: Any = channel.unary_unary(GET)
        assert await get(b"", timeout=TIMEOUT)
        await scene.apply({"services": {"frontend": {}, SERVICE: {}}})
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await get(b"", timeout=TIMEOUT)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await scene.apply(POLICY)
        assert await get(b"", timeout=TIMEOUT)


@pytest.fixture
def impostors() -> dict[str, Svid | None]:
    """Give what nobody in this mesh has issued."""
    elsewhere = World()
    instance = InstanceId(bytes(16))
    ours = Identity(TrustDomain(DOMAIN), ServiceName("frontend"))
    theirs = Identity(TrustDomain("elsewhere.example"), ServiceName("frontend"))
    return {
        "no certificate": None,
        "another domain": elsewhere.svid(theirs, instance),
        "our domain by another authority": elsewhere.svid(ours, instance),
    }


async def test_without_a_certificate_of_this_mesh_there_is_no_connection(
    scene: Scene, impostors: dict[str, Svid | None]
) -> None:
    """The handshake fails, before there is anything to ask about."""
    before = len(scene.application.calls)
    for shown in impostors.values():
        async with scene.front.client(shown) as channel:
            get: Any = channel.unary_unary(GET)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await get(b"", timeout=TIMEOUT)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(scene.application.calls) == before


StartMesh = Callable[[Timers | None], Mesh]


async def test_without_an_answer_nothing_passes(new_mesh: StartMesh) -> None:
    """gatekeeper is killed, then cut off from auth: calls are refused as unavailable until it is back."""
    async with playing(new_mesh(Timers(max_stale=2))) as scene:
        await scene.apply(POLICY)
        assert await scene.call("frontend")
        scene.mesh.gatekeeper.kill()
        assert (await scene.refused("frontend")).code() is grpc.StatusCode.UNAVAILABLE
        await scene.mesh.start_gatekeeper()
        await works(scene.get)
        scene.mesh.auth.kill()
        refused = await fails(scene.get, why="NOT_READY")
        assert refused.code() is grpc.StatusCode.UNAVAILABLE
        assert "no policy to rely on" in (refused.details() or "")
        await scene.mesh.start_auth()
        await works(scene.get)


async def test_certificates_roll_without_a_failed_call(new_mesh: StartMesh) -> None:
    """Envoy's and gatekeeper's, while calls go on for longer than the first ones lived."""
    async with playing(new_mesh(Timers(svid=6))) as scene:
        await scene.apply(POLICY)
        mesh, shown = scene.mesh, {_shown(scene.front)}
        async with mesh.node("frontend") as caller:
            while len(shown) < 4:
                scene.svids["frontend"] = caller.membership.svid
                assert await scene.get() == f"spiffe://{DOMAIN}/frontend".encode()
                shown.add(_shown(scene.front))
        assert "WARNING" not in scene.front.keeper.log
        assert len(list(scene.front.out.glob(".svid-*"))) == 2
        assert await scene.front.keeper.stop() == 0
        assert (scene.front.out / "current" / "key.pem").exists()


def _shown(front: Front) -> str:
    return ssl.get_server_certificate(("127.0.0.1", front.port))
