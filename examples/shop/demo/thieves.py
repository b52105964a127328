"""Attacks on joining, by one who came into the possession of a token, or of half of it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import grpc

from examples.shop.demo.attack import TIMEOUT, Attack, Seen, Stop, seen
from mesh.core.join import JoinRequester, JoinToken
from mesh.core.keys import Key
from mesh.rpc.svid import new_key
from mesh.v1 import auth_pb2_grpc

if TYPE_CHECKING:
    from examples.shop.demo.stage import Stage

_C = grpc.StatusCode


async def _join(stage: Stage, token: JoinToken) -> Seen:
    _, csr = new_key()
    requester = JoinRequester(token, csr, secrets.token_bytes(16))
    async with grpc.aio.insecure_channel(stage.auth_at) as channel:
        stub = auth_pb2_grpc.JoinServiceStub(channel)
        return await seen(stub.Join(requester.request(), timeout=TIMEOUT))


async def use_twice(stage: Stage) -> Seen:
    """Join twice with the same token, and compare the refusal with that of an unknown token."""
    token = JoinToken.parse(await stage.token("payments"))
    first = await _join(stage, token)
    assert first.code is _C.OK, f"the first use of a token was refused: {first.details}"
    second = await _join(stage, token)
    unknown = await _join(stage, JoinToken(secrets.token_hex(8), Key(secrets.token_bytes(32))))
    if second != unknown:
        return Seen(_C.OK, result=f"told apart: a used token ({second}) from an unknown one ({unknown})")
    return second


async def guess_the_secret(stage: Stage) -> Seen:
    """Join with the public id of a token that is not used yet, and a made-up secret."""
    token = JoinToken.parse(await stage.token("payments"))
    return await _join(stage, JoinToken(token.id, Key(secrets.token_bytes(32))))


JOINING = (
    Attack(
        "a join token used twice",
        use_twice,
        Stop("auth", _C.PERMISSION_DENIED, "used; the answer is as to an unknown one"),
    ),
    Attack(
        "a token's id with a made-up secret",
        guess_the_secret,
        Stop("auth", _C.PERMISSION_DENIED, "no proof of the secret"),
    ),
)
