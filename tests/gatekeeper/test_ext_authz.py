"""Checks over real TLS: who may ask, about what, and what comes of everything else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from mesh.core.names import Identity, InstanceId, ServiceName
from mesh.core.observed import Observation
from mesh.extauthz.v1 import check_pb2
from mesh.rpc.listener import Listener
from mesh.rpc.svid import Svid
from services.gatekeeper import ext_authz
from services.gatekeeper.ext_authz import CHECK, MAX_CHECK, ExtAuthz
from tests.gatekeeper.house import House, Node, policy, serving
from tests.gatekeeper.test_checks import GET, HEADERS, asked
from tests.gatekeeper.test_decisions import listed
from tests.gatekeeper.test_service import authorize
from tests.rpc.pair import DOMAIN, World


class Door:
    """A gatekeeper that answers proxies, and ways to ask it."""

    def __init__(self, house: House) -> None:
        """Serve what the house has in force."""
        self.house, self.world = house, house.world
        member = self.world.members[0]

        answers = ExtAuthz(member, lambda: house.watchers.slicer, house.judging)
        self.listener: Listener = ext_authz.listener(member, "127.0.0.1:0", answers)

    def svid(self, service: str, **odd: Any) -> Svid:
        """Issue a certificate, or an odd one."""
        return self.world.svid(Identity(DOMAIN, ServiceName(service)), InstanceId(os.urandom(16)), **odd)

    @asynccontextmanager
    async def channel(self, svid: Svid | None) -> AsyncIterator[grpc.aio.Channel]:
        """Connect with a certificate, or without."""
        bundle = self.world.members[0].svid.bundle_pem
        shown = (svid.key_pem, svid.chain_pem) if svid else (None, None)
        options = (
            ("grpc.ssl_target_name_override", f"mesh.gatekeeper.{DOMAIN}"),
            ("grpc.use_local_subchannel_pool", 1),
        )
        credentials = grpc.ssl_channel_credentials(bundle, *shown)
        address = f"127.0.0.1:{self.listener.port}"
        async with grpc.aio.secure_channel(address, credentials, options) as channel:
            yield channel

    async def answer(self, svid: Svid | None, request: bytes, method: str = CHECK) -> check_pb2.CheckResponse:
        """Ask with whatever bytes."""
        async with self.channel(svid) as channel:
            ask: Any = channel.unary_unary(method)
            return check_pb2.CheckResponse.FromString(await ask(request, timeout=10))

    async def check(
        self, service: str, source: str, method: str = GET, headers: Sequence[tuple[str, bytes]] = ()
    ) -> check_pb2.CheckResponse:
        """Ask as the proxy of a service about a call of another."""
        request = asked(*HEADERS[:5], *headers, principal=f"spiffe://{DOMAIN}/{source}")
        request.attributes.destination.principal = f"spiffe://{DOMAIN}/{service}"
        request.attributes.request.http.path = method
        return await self.answer(self.svid(service), request.SerializeToString())

    async def failure(self, svid: Svid | None, request: bytes, method: str = CHECK) -> grpc.StatusCode:
        """Ask, see that it fails, and that the next question is answered all the same; give how."""
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await self.answer(svid, request, method)
        assert (await self.check("orders", "frontend")).status.code == 0
        return failed.value.code()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """Answer proxies under the policy of the house."""
    async with serving() as house:
        house.watchers.take(policy(4))
        made = Door(house)
        await made.listener.start()
        try:
            yield made
        finally:
            await made.listener.stop(None)


def allowed(answer: check_pb2.CheckResponse) -> bool:
    """Whether an answer forwards the call; each part of it says the same."""
    code, kind = answer.status.code, answer.WhichOneof("http_response")
    assert (code == 0) == (kind == "ok_response")
    return code == 0


@pytest.mark.parametrize("asking", ["orders", "inventory", "stranger"])
@pytest.mark.parametrize("source", ["frontend", "orders", "stranger"])
@pytest.mark.parametrize("method", [GET, "/shop.v1.Orders/Purge", "/a.B/C", "shop.v1.Orders/Get"])
@pytest.mark.parametrize("tenant", [b"acme", b"other", None])
async def test_a_check_is_judged_as_authorize_is(
    door: Door, asking: str, source: str, method: str, tenant: bytes | None
) -> None:
    """The same policy, about calls to the service that asks and to no other."""
    node: Node = door.house.node(asking)
    headers = {"x_tenant": tenant} if tenant else {}
    same = (await authorize(node, source, method, **headers)).permitted
    pairs = [("x-tenant", tenant)] if tenant else []
    assert allowed(await door.check(asking, source, method, pairs)) == same


async def test_some_of_those_are_allowed_and_some_are_not(door: Door) -> None:
    """Otherwise the test above would compare nothing."""
    assert allowed(await door.check("orders", "frontend"))
    assert not allowed(await door.check("inventory", "frontend"))
    assert allowed(await door.check("inventory", "orders", "/a.B/C", [("x-tenant", b"acme")]))


async def test_a_denial_is_recorded_before_it_is_answered(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """By the service that asked, about the caller that it verified, under the id that the caller is told."""
    answer = await door.check("orders", "frontend", "/shop.v1.Orders/Purge")
    (told,) = door.house.told
    assert told.what is not None
    assert (str(told.what.by.service), told.what.source, told.what.rule) == ("orders", "frontend", "no-purge")
    assert f"[id {told.id}]" in answer.denied_response.body
    assert "no-purge" not in str(answer)
    assert f"rule='no-purge' id={told.id}" in caplog.text


async def test_what_was_judged_is_counted_for_replay(door: Door) -> None:
    """As what nodes judge is: permitted and denied, under the name of the service that asked."""
    await door.check("orders", "frontend")
    await door.check("orders", "stranger")
    found = [one for one in await listed(door.house) if isinstance(one, Observation)]
    assert sorted((one.source, one.destination, one.method) for one in found) == [
        ("frontend", "orders", GET),
        ("stranger", "orders", GET),
    ]


async def test_a_question_that_cannot_be_read_is_a_denial_like_any_other(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """The client sees no difference; the log says what was wrong, and no record invents a caller."""
    request = asked(principal="frontend")
    answer = await door.answer(door.svid("orders"), request.SerializeToString())
    denied = await door.check("orders", "stranger")
    assert [one.denied_response.body.partition(" [id")[0] for one in (answer, denied)] == [
        denied.denied_response.body.partition(" [id")[0]
    ] * 2
    assert "why='the proxy verified no caller with an identity of this mesh'" in caplog.text
    assert [told.what and told.what.source for told in door.house.told] == ["", "stranger"]


async def test_the_time_and_audit_are_those_of_the_mesh(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """A condition about time can be judged, and what passes in audit is told."""
    rule = {"principals": ["frontend"], "paths": ["*"], "when": "time.getFullYear() >= 2020"}
    section = {"mode": "audit", "allow": [rule]}
    door.house.watchers.take(policy(5, {"services": {"frontend": {}, "orders": section}}))
    assert allowed(await door.check("orders", "frontend"))
    assert allowed(await door.check("orders", "evil"))
    assert f"would be denied: source='evil' method='{GET}' destination=orders" in caplog.text
    assert "source='frontend'" not in caplog.text


async def test_without_a_policy_the_answer_is_a_refusal_not_an_error() -> None:
    """An Envoy that lets calls pass on errors does not let these pass."""
    async with serving() as house:
        door = Door(house)
        await door.listener.start()
        answer = await door.check("orders", "frontend")
        await door.listener.stop(None)
    assert answer.status.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert answer.denied_response.status.code == 503


async def test_who_shows_no_certificate_of_this_mesh_is_not_heard(door: Door) -> None:
    """None at all, or one of another authority in our name."""
    question = asked().SerializeToString()
    other = World().svid(Identity(DOMAIN, ServiceName("orders")), InstanceId(bytes(16)))
    for shown in (None, other):
        assert await door.failure(shown, question) is grpc.StatusCode.UNAVAILABLE


async def test_who_is_no_service_is_refused_and_recorded(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """The mesh's own names, a certificate with two names, with one of another domain, without an instance."""
    odd = [
        door.svid("mesh.gatekeeper"),
        door.svid("mesh.operator"),
        door.svid("orders", uris=["spiffe://test.example/orders", "spiffe://test.example/inventory"]),
        door.svid("orders", uris=["spiffe://other.example/orders"]),
        door.svid("orders", uris=[]),
        door.svid("orders", common_name=""),
    ]
    for number, shown in enumerate(odd):
        assert await door.failure(shown, asked().SerializeToString()) is grpc.StatusCode.PERMISSION_DENIED
        assert caplog.text.count("call rejected: ") == number + 1
    assert len(door.house.told) > 0


@pytest.mark.parametrize("noise", [b"\xff", b"\x0a\xff", b"\x0a\x05\x0a\x03\x22\x01\xff", b"\x0b"])
async def test_what_is_no_question_fails(door: Door, noise: bytes) -> None:
    """And harms nobody."""
    assert await door.failure(door.svid("orders"), noise) is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_empty_question_is_denied(door: Door) -> None:
    """Empty bytes are a message, with everything missing."""
    assert not allowed(await door.answer(door.svid("orders"), b""))


async def test_a_question_has_a_largest_size(door: Door) -> None:
    """It is refused before it is parsed."""
    large = asked(*HEADERS, *[("x", b"y" * 1024)] * (MAX_CHECK // 1024)).SerializeToString()
    assert len(large) > MAX_CHECK
    assert await door.failure(door.svid("orders"), large) is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "method",
    [
        "/mesh.v1.NodeService/Hello",
        "/mesh.v1.GatekeeperService/Authorize",
        "/mesh.v1.GatekeeperService/ListNodes",
        "/envoy.service.auth.v3.Authorization/Other",
        "/envoy.service.auth.v2.Authorization/Check",
    ],
)
async def test_nothing_else_is_served_there(door: Door, method: str) -> None:
    """Not even what gatekeeper serves elsewhere."""
    assert await door.failure(door.svid("orders"), b"", method) is grpc.StatusCode.UNIMPLEMENTED


async def test_a_flood_is_turned_away_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """More questions at once than the bound are refused; those within it are answered, and later ones."""
    monkeypatch.setattr(ext_authz, "MOST_CHECKS", 4)
    async with serving() as house:
        house.watchers.take(policy(4))
        held = asyncio.Event()
        monkeypatch.setattr(house.reporter, "written", held.wait)
        door = Door(house)
        await door.listener.start()
        request = asked(principal=f"spiffe://{DOMAIN}/evil").SerializeToString()
        async with door.channel(door.svid("orders")) as channel:
            ask: Any = channel.unary_unary(CHECK)
            for _ in range(2):
                calls = [asyncio.ensure_future(ask(request)) for _ in range(32)]
                while sum(call.done() for call in calls) < 28:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                held.set()
                done = await asyncio.gather(*calls, return_exceptions=True)
                held.clear()
                refused = [one for one in done if isinstance(one, grpc.aio.AioRpcError)]
                assert {one.code() for one in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
                assert len(refused) == 28
            held.set()
            assert await ask(request)
        await door.listener.stop(None)
