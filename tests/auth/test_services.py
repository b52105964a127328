"""auth over the wire: real sockets, real TLS, real seals; statuses as they arrive."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from mesh.core.builtin import SECTIONS
from mesh.core.join import JoinToken
from mesh.core.keys import Key
from mesh.core.names import AUTH, ServiceName
from mesh.core.receiver import Peer
from mesh.rpc.channel import MeshChannel
from mesh.rpc.svid import new_key
from mesh.v1 import auth_pb2, auth_pb2_grpc
from services.auth import join_service
from services.auth.admission import REFUSED
from services.auth.authority import MAX_DESTINATIONS, Authority
from services.auth.guesses import Guesses
from services.auth.server import LIMITS, MAX_REQUEST
from tests.auth.served import Live, nodes, operators
from tests.auth.world import Attempt, RealTime, World
from tests.rpc.attack import hung_up_for_a_bomb
from tests.timing import BOUND, spin, told_apart

C = grpc.StatusCode
ORDERS = b'{"services":{"frontend":{},"orders":{"allow":[{"principals":["frontend"],"paths":["*"]}]}}}'

SECRET = (
    b'{"services":{"frontend":{},"secret":{"allow":[{"principals":["orders"],"paths":["*"]}]},"orders":{}}}'
)


@pytest_asyncio.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    """Serve a world."""
    async with Live.serving(World(tmp_path / "mesh", RealTime())) as made:
        yield made


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """Give the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await asyncio.wait_for(call, 10)
    return failed.value


async def test_joining(live: Live) -> None:
    """A node joins over the wire as the library does, and can call auth at once."""
    node = await live.node("orders")
    assert node.membership.identity.uri == "spiffe://shop.example/orders"
    response = await nodes(node).GetPairKeys(auth_pb2.GetPairKeysRequest(destinations=["mesh.gatekeeper"]))
    assert {key.destination for key in response.keys} == {"mesh.gatekeeper"}


async def send(live: Live, attempt: Attempt) -> bytes | tuple[C, str | None, tuple[Any, ...]]:
    try:
        response = await live.door.Join(attempt.request, timeout=30)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details(), tuple(error.trailing_metadata())
    return attempt.requester.open(response).credentials.instance


async def test_two_hundred_different_requests_for_one_token(live: Live) -> None:
    """One of them becomes an instance; all others get the one refusal."""
    token = await live.worker.do(live.world.token)
    results = await asyncio.gather(*(send(live, Attempt(token)) for _ in range(200)))
    assert len([result for result in results if isinstance(result, bytes)]) == 1
    assert {result for result in results if not isinstance(result, bytes)} == {
        (C.PERMISSION_DENIED, REFUSED, ())
    }


async def test_two_hundred_times_the_same_request(live: Live) -> None:
    """All of them get the same instance."""
    attempt = Attempt(await live.worker.do(live.world.token))
    results = await asyncio.gather(*(send(live, attempt) for _ in range(200)))
    assert len(set(results)) == 1
    assert isinstance(results[0], bytes)
    assert not live.world.alarms()


async def test_refusals_are_the_same_on_the_wire(live: Live) -> None:
    """Unknown, wrong, used and revoked: status, text and metadata are equal."""
    world = live.world
    used, revoked, wrong = [await live.worker.do(world.token) for _ in range(3)]
    await send(live, Attempt(used))
    await live.worker.do(lambda: world.authority.revoke_token(revoked.id, world.operator()))
    secret = Key(bytes(32))
    bad = [used, revoked, replace(wrong, secret=secret), JoinToken("0123456789abcdef", secret)]
    results = {await send(live, Attempt(token)) for token in bad}
    assert results == {(C.PERMISSION_DENIED, REFUSED, ())}


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (auth_pb2.JoinRequest(), C.INVALID_ARGUMENT),
        (auth_pb2.JoinRequest(body=b"junk", mac=bytes(32)), C.INVALID_ARGUMENT),
        (auth_pb2.JoinRequest(body=bytes(8193), mac=bytes(32)), C.INVALID_ARGUMENT),
        (auth_pb2.JoinRequest(body=bytes(100_000), mac=bytes(32)), C.RESOURCE_EXHAUSTED),
    ],
)
async def test_malformed_requests(live: Live, request_: auth_pb2.JoinRequest, code: C) -> None:
    """What is no request to join is told so, whatever it holds."""
    assert (await failure(live.door.Join(request_))).code() is code


async def test_the_join_port_serves_join_alone(live: Live) -> None:
    """Nothing that is sealed elsewhere can be had without a seal at the join port."""
    renew = auth_pb2_grpc.AuthServiceStub(live.insecure).Renew(auth_pb2.RenewRequest())
    listing = auth_pb2_grpc.OperatorServiceStub(live.insecure).ListTokens(auth_pb2.ListTokensRequest())
    assert (await failure(renew)).code() is C.UNIMPLEMENTED
    assert (await failure(listing)).code() is C.UNIMPLEMENTED


async def test_a_header_bomb_at_the_join_port(live: Live) -> None:
    """Who sends one is hung up on; others join."""
    await hung_up_for_a_bomb(live.server.join_port, "/mesh.v1.JoinService/Join", None, "127.0.0.66")
    await live.node("orders")


async def test_join_is_not_on_the_mtls_port(live: Live) -> None:
    """The mTLS port serves no Join, not even to a member."""
    node = await live.node("orders")
    stub = auth_pb2_grpc.JoinServiceStub(MeshChannel(node.membership, node.auth))
    assert (await failure(stub.Join(auth_pb2.JoinRequest()))).code() is C.PERMISSION_DENIED


async def test_a_flood_is_turned_away(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than can be served is answered UNAVAILABLE, which nodes try again; sealed calls still work."""
    monkeypatch.setattr(join_service, "MAX_WAITING", 2)
    token = await live.worker.do(live.world.token)
    go = threading.Event()
    blocked = asyncio.create_task(live.worker.do(go.wait, 30))
    attempts = [Attempt(token) for _ in range(3)]
    calls = [asyncio.create_task(send(live, attempt)) for attempt in attempts]
    done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    assert {call.result()[0] for call in done} == {C.UNAVAILABLE}
    assert len(waiting) == 2
    go.set()
    await blocked
    assert len([result for result in await asyncio.gather(*waiting) if isinstance(result, bytes)]) == 1


async def test_a_node_that_is_not_heard_waits(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody guesses from its address a node tries on, and joins when that has ended."""
    token = await live.worker.do(live.world.token)
    heard = iter([False, False])
    monkeypatch.setattr(Guesses, "may_try", lambda *_: next(heard, True))
    node = await asyncio.wait_for(live.enrol(token), 20)
    assert node.membership.identity.uri == "spiffe://shop.example/orders"
    assert next(heard, None) is None


async def test_a_store_that_fails(live: Live) -> None:
    """Where the database fails, the node is told to try again, and no more; then it works again."""
    token = await live.worker.do(live.world.token)
    await live.worker.do(live.world.sql, "ALTER TABLE instance RENAME TO away")
    result = await send(live, Attempt(token))
    assert result == (C.UNAVAILABLE, "auth cannot answer now: see its log, then try again", ())
    await live.worker.do(live.world.sql, "ALTER TABLE away RENAME TO instance")
    assert isinstance(await send(live, Attempt(token)), bytes)


async def test_the_operators_day(live: Live) -> None:
    """Tokens are made, listed and revoked, policies applied and got, status asked, over sealed calls."""
    operator = await live.operator()
    made = await operator.CreateToken(auth_pb2.CreateTokenRequest(service="orders"))
    token = JoinToken.parse(made.token)
    listed = await operator.ListTokens(auth_pb2.ListTokensRequest())
    assert [(info.id, info.service) for info in listed.tokens if info.id == token.id] == [
        (token.id, "orders")
    ]
    await operator.RevokeToken(auth_pb2.RevokeTokenRequest(id=token.id))
    applied = await operator.ApplyPolicy(auth_pb2.ApplyPolicyRequest(document=ORDERS))
    assert applied.version == 1
    got = await operator.GetPolicy(auth_pb2.GetPolicyRequest())
    assert (got.policy.version, b"frontend" in got.policy.document) == (1, True)
    again = auth_pb2.ApplyPolicyRequest(document=b'{"services": {}}', replaces=1)
    assert (await operator.ApplyPolicy(again)).version == 2
    assert (await failure(operator.ApplyPolicy(again))).code() is C.FAILED_PRECONDITION
    kept = await operator.ListPolicies(auth_pb2.ListPoliciesRequest())
    assert [info.version for info in kept.policies] == [2, 1, 0]
    assert (await operator.GetPolicy(auth_pb2.GetPolicyRequest(version=1))).policy == got.policy
    assert (await failure(operator.GetPolicy(auth_pb2.GetPolicyRequest(version=9)))).code() is C.NOT_FOUND
    status = await operator.GetAuthStatus(auth_pb2.GetAuthStatusRequest())
    assert (status.trust_domain, status.policy_version, status.epoch.number) == ("shop.example", 2, 1)


async def test_what_an_operator_gets_wrong(live: Live) -> None:
    """Each mistake has its status and a line that says what to do."""
    operator = await live.operator()
    used = await live.worker.do(live.world.token)
    await live.enrol(used)
    for call, code, words in (
        (
            operator.CreateToken(auth_pb2.CreateTokenRequest(service="Bad")),
            C.INVALID_ARGUMENT,
            "bad service name",
        ),
        (
            operator.CreateToken(auth_pb2.CreateTokenRequest(service="mesh.auth")),
            C.INVALID_ARGUMENT,
            "mesh itself",
        ),
        (
            operator.CreateToken(auth_pb2.CreateTokenRequest(service="a", ttl_seconds=86_401)),
            C.INVALID_ARGUMENT,
            "ttl",
        ),
        (operator.RevokeToken(auth_pb2.RevokeTokenRequest(id="nope")), C.NOT_FOUND, "no such token"),
        (operator.RevokeToken(auth_pb2.RevokeTokenRequest(id=used.id)), C.FAILED_PRECONDITION, "was used"),
        (operator.ApplyPolicy(auth_pb2.ApplyPolicyRequest(document=b"{}")), C.INVALID_ARGUMENT, "services"),
    ):
        error = await failure(call)
        assert error.code() is code
        assert words in (error.details() or "")
    await operator.ApplyPolicy(auth_pb2.ApplyPolicyRequest(document=b'{"version": 3, "services": {}}'))
    old = auth_pb2.ApplyPolicyRequest(document=b'{"version": 3, "services": {"evil": {}}}')
    assert (await failure(operator.ApplyPolicy(old))).code() is C.FAILED_PRECONDITION


async def test_a_policy_of_ten_mebibytes_fits(live: Live) -> None:
    """The largest policy there may be passes the wire; one byte more is refused as a policy."""
    operator = await live.operator()
    document = b'{"services":{}}'.ljust(10 * 1024 * 1024)
    assert (await operator.ApplyPolicy(auth_pb2.ApplyPolicyRequest(document=document))).version == 1
    too_large = auth_pb2.ApplyPolicyRequest(document=document + b" ")
    assert (await failure(operator.ApplyPolicy(too_large))).code() is C.INVALID_ARGUMENT


async def test_large_requests_are_not_parsed(live: Live) -> None:
    """What no honest caller sends is refused under seal, by its size alone, whatever the method."""
    rules = {rule.name: rule for rule in SECTIONS[AUTH].allow}
    member = {
        "mesh.auth/node": await live.node("orders"),
        "mesh.auth/gatekeeper": await live.node("mesh.gatekeeper"),
        "mesh.auth/operator": await live.enrol(live.world.credential),
    }
    assert rules.keys() == member.keys()
    for name, enrolment in member.items():
        channel = MeshChannel(enrolment.membership, enrolment.auth)
        for method in rules[name].paths:
            limit = LIMITS.get(method, MAX_REQUEST)
            for size in (limit + 1, 10 * 1024 * 1024 + 2000):
                error = await failure(channel.unary_unary(method)(b"\0" * size))
                assert error.code() is C.RESOURCE_EXHAUSTED, method
                assert error.details() == f"message of {size} bytes is larger than the limit of {limit}"


async def test_a_thousand_names_fit(live: Live) -> None:
    """As many names as may be asked for, each as long as a name can be, are no large request."""
    node = await live.node("orders")
    names = [f"n{number:03}".ljust(63, "a") + "." + "b" * 61 for number in range(MAX_DESTINATIONS - 1)]
    assert {len(ServiceName(name).text) for name in names} == {125}
    request = auth_pb2.GetPairKeysRequest(destinations=[*names, "mesh.auth"])
    assert {key.destination for key in (await nodes(node).GetPairKeys(request)).keys} == {"mesh.auth"}


async def test_nodes_are_no_operators(live: Live) -> None:
    """A node may use no method of the operator's, and a gatekeeper or operator none that is not its own."""
    node, gatekeeper = await live.node("orders"), await live.node("mesh.gatekeeper")
    for enrolment in (node, gatekeeper):
        stub = operators(enrolment)
        for call in (
            stub.CreateToken(auth_pb2.CreateTokenRequest(service="orders")),
            stub.ListTokens(auth_pb2.ListTokensRequest()),
            stub.RevokeToken(auth_pb2.RevokeTokenRequest()),
            stub.ApplyPolicy(auth_pb2.ApplyPolicyRequest(document=ORDERS)),
            stub.GetPolicy(auth_pb2.GetPolicyRequest()),
            stub.GetAuthStatus(auth_pb2.GetAuthStatusRequest()),
        ):
            assert (await failure(call)).code() is C.PERMISSION_DENIED
    assert live.world.authority.policy_of_record.version == 0
    watch = nodes(node).WatchPolicy(auth_pb2.WatchPolicyRequest())
    assert (await failure(watch.read())).code() is C.PERMISSION_DENIED


async def test_watching_the_policy(live: Live) -> None:
    """Gatekeeper gets the policy of record at once, each new one as it comes, and an end when auth stops."""
    operator, gatekeeper = await live.operator(), await live.node("mesh.gatekeeper")
    watch = nodes(gatekeeper).WatchPolicy(auth_pb2.WatchPolicyRequest())
    versions = aiter(watch)
    first = await anext(versions)
    assert first.policy.version == 0
    assert abs(first.now_ms - live.world.clock.now_ms()) < 60_000
    again = await anext(versions)
    assert not again.HasField("policy")
    assert again.now_ms > first.now_ms
    for version in (1, 2):
        await operator.ApplyPolicy(auth_pb2.ApplyPolicyRequest(document=ORDERS))
        while not (response := await asyncio.wait_for(anext(versions), 1)).HasField("policy"):
            pass
        assert response.policy.version == version
    stopping = asyncio.create_task(live.server.stop())
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(anext(versions), 5)
    await stopping


async def test_renewal_is_for_oneself(live: Live) -> None:
    """A renewed certificate is for the instance that the seal proved; a revoked instance gets none."""
    node = await live.node("orders")
    renewed = await nodes(node).Renew(auth_pb2.RenewRequest(csr=new_key()[1]))
    assert renewed.credentials.instance == node.membership.instance.raw
    await live.worker.do(live.world.sql, "UPDATE instance SET revoked_ms = 1 WHERE service = 'orders'")
    for call in (
        nodes(node).Renew(auth_pb2.RenewRequest(csr=new_key()[1])),
        nodes(node).GetPairKeys(auth_pb2.GetPairKeysRequest()),
    ):
        error = await failure(call)
        assert (error.code(), "join again" in (error.details() or "")) == (C.PERMISSION_DENIED, True)


async def test_an_unknown_gatekeeper_watches_nothing(live: Live) -> None:
    """A gatekeeper that auth has forgotten is refused the policy."""
    gatekeeper = await live.node("mesh.gatekeeper")
    await live.worker.do(live.world.sql, "DELETE FROM instance WHERE service = 'mesh.gatekeeper'")
    watch = nodes(gatekeeper).WatchPolicy(auth_pb2.WatchPolicyRequest())
    assert (await failure(watch.read())).code() is C.PERMISSION_DENIED


async def test_the_loop_does_not_wait_for_the_store(live: Live) -> None:
    """While the store is busy, auth still answers what needs none: the loop is free."""
    node = await live.node("orders")
    go = threading.Event()
    blocked = asyncio.create_task(live.worker.do(go.wait, 30))
    assert (await failure(live.door.Join(auth_pb2.JoinRequest(), timeout=5))).code() is C.INVALID_ARGUMENT
    watch = nodes(node).WatchPolicy(auth_pb2.WatchPolicyRequest(), timeout=5)
    assert (await failure(watch.read())).code() is C.PERMISSION_DENIED
    go.set()
    await blocked


@pytest.mark.timeout(600)
async def test_keys_for_forbidden_and_nonexistent_names_take_equally_long(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In five thousand tries over a real socket, where fifty microseconds more are seen."""
    operator, node = await live.operator(), await live.node("frontend")
    await operator.ApplyPolicy(auth_pb2.ApplyPolicyRequest(document=SECRET))
    stub = nodes(node)

    def asking(name: str) -> Callable[[], Awaitable[None]]:
        request = auth_pb2.GetPairKeysRequest(destinations=[name])

        async def ask() -> None:
            assert not (await stub.GetPairKeys(request)).keys

        return ask

    pair_keys = Authority.pair_keys

    def planted(self: Authority, peer: Peer, destinations: Sequence[str]) -> auth_pb2.GetPairKeysResponse:
        if destinations[0] == "secres":
            spin()
        return pair_keys(self, peer, destinations)

    monkeypatch.setattr(Authority, "pair_keys", planted)
    kinds = {"forbidden": "secret", "nowhere": "secreq", "planted": "secres"}
    assert abs(await told_apart({kind: asking(name) for kind, name in kinds.items()})) < BOUND
