"""A join token is good for one node, once, in its time, and nobody learns why another is not."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import grpc
import pytest

import mesh as sealmesh
from mesh.core.join import JoinRequester, JoinToken
from mesh.rpc.svid import new_key
from mesh.v1 import auth_pb2, auth_pb2_grpc
from tests.e2e.world import TIMEOUT, Mesh

#: All that a stranger is told.
REFUSED = "the token is unknown, expired, used or wrong"


async def refusal(mesh: Mesh, token: str, service: str = "orders") -> str:
    """Join with a token that is no good, and give what is said about it."""
    with pytest.raises(sealmesh.JoinError) as caught:
        async with sealmesh.join(service, token=token, auth=mesh.join_address):
            pass
    return str(caught.value)


@pytest.fixture
async def stub(shared: Mesh) -> AsyncIterator[auth_pb2_grpc.JoinServiceAsyncStub]:
    """Give the join port as any stranger may use it."""
    async with grpc.aio.insecure_channel(shared.join_address) as channel:
        yield auth_pb2_grpc.JoinServiceStub(channel)


def requester(token: str) -> JoinRequester:
    return JoinRequester(JoinToken.parse(token), new_key()[1], secrets.token_bytes(16))


async def test_a_token_used_by_another_node_is_refused_and_raises_an_alarm(shared: Mesh) -> None:
    """The second node gets nothing, and auth's log has an alarm with the token's public id."""
    token = await shared.token("orders")
    mark = shared.auth.mark()
    async with sealmesh.join("orders", token=token, auth=shared.join_address) as first:
        assert REFUSED in await refusal(shared, token)
        public = JoinToken.parse(token).id
        await shared.auth.says(rf'"level": "error".*"token reused".*"alarm": true.*"{public}"', mark)
        await first.ready()


async def test_an_expired_token_is_refused(shared: Mesh) -> None:
    """Expiry is by auth's clock, and is told to nobody but the log."""
    token = await shared.token("orders", ttl=1)
    expires = await expiry(shared, token)
    while (await shared.status()).now_ms < expires:
        pass
    assert REFUSED in await refusal(shared, token)


async def expiry(mesh: Mesh, token: str) -> int:
    async with mesh.operator() as operator:
        listed = await operator.auth.ListTokens(auth_pb2.ListTokensRequest(), timeout=TIMEOUT)
    (found,) = [info for info in listed.tokens if info.id == JoinToken.parse(token).id]
    return found.expires_ms


async def test_a_revoked_token_is_refused(shared: Mesh) -> None:
    """A token that was revoked before its use is as good as none."""
    token = await shared.token("orders")
    async with shared.operator() as operator:
        request = auth_pb2.RevokeTokenRequest(id=JoinToken.parse(token).id)
        await operator.auth.RevokeToken(request, timeout=TIMEOUT)
    assert REFUSED in await refusal(shared, token)


async def test_unknown_tokens_and_wrong_secrets_look_like_any_other(shared: Mesh) -> None:
    """An invented id and a real id with another secret get the very same words, which use nothing up."""
    real = await shared.token("orders")
    name, public, secret = real.split(".")
    other = secrets.token_urlsafe(32)
    told = {
        await refusal(shared, f"{name}.{secrets.token_hex(8)}.{secret}"),
        await refusal(shared, f"{name}.{public}.{other}"),
    }
    assert len(told) == 1
    assert REFUSED in told.pop()
    async with sealmesh.join("orders", token=real, auth=shared.join_address) as node:
        await node.ready()


async def test_a_token_of_another_service_gives_that_name_and_no_other(shared: Mesh) -> None:
    """A node that takes itself for another service than its token is told whose the token is."""
    token = await shared.token("inventory")
    assert "the token is for inventory, not orders" in await refusal(shared, token)


async def test_garbage_is_no_token(shared: Mesh) -> None:
    """What does not look like a token is refused on the spot, without being repeated."""
    for garbage in ("hunter2", "mesh1..", "mesh2.0011223344556677." + "A" * 43, "mesh1.zz." + "A" * 43):
        with pytest.raises(ValueError, match="not a join token") as caught:
            async with sealmesh.join("orders", token=garbage, auth=shared.join_address):
                pass
        assert garbage not in str(caught.value)


async def test_the_same_request_again_gets_the_same_identity(
    shared: Mesh, stub: auth_pb2_grpc.JoinServiceAsyncStub
) -> None:
    """A node that lost the answer asks again with the same request and is the same instance."""
    token = await shared.token("orders")
    first, second = requester(token), requester(token)
    answers = await asyncio.gather(*(stub.Join(first.request(), timeout=TIMEOUT) for _ in range(4)))
    bundles = [first.open(answer) for answer in answers]
    assert len({bundle.credentials.instance for bundle in bundles}) == 1
    assert len({bundle.credentials.certificate_chain[0] for bundle in bundles}) == 1
    with pytest.raises(grpc.aio.AioRpcError, match=REFUSED):
        await stub.Join(second.request(), timeout=TIMEOUT)


async def test_a_request_changed_on_its_way_is_refused_and_uses_nothing_up(
    shared: Mesh, stub: auth_pb2_grpc.JoinServiceAsyncStub
) -> None:
    """Each part of a request is covered by its mac; the owner joins all the same afterwards."""
    asked = requester(await shared.token("orders"))
    whole = asked.request()
    bodies = [whole.body[:-1] + bytes([whole.body[-1] ^ 1]), whole.body[:-1], whole.body + b"\0", b""]
    changed = [auth_pb2.JoinRequest(body=body, mac=whole.mac) for body in bodies]
    changed += [auth_pb2.JoinRequest(body=whole.body, mac=mac) for mac in (b"", bytes(32), whole.mac[:-1])]
    for request in changed:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Join(request, timeout=TIMEOUT)
        assert caught.value.code() in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT}
    assert asked.open(await stub.Join(whole, timeout=TIMEOUT)).credentials.service == "orders"


async def test_no_token_is_made_for_a_name_of_the_mesh(shared: Mesh) -> None:
    """Nobody can become auth or the operator by a token, nor get one for what is no name."""
    for name in ("mesh.auth", "mesh.operator", "mesh", "mesh.x", "Orders", "", "a..b"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await shared.token(name)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
