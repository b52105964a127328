"""Calls made by hand, past the mesh's own library: what an attacker sends who has read the protocol.

Forged seals are made with keys of the attacker's own choosing, for it has no others.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from examples.shop.demo.attack import TIMEOUT, Seen, seen
from examples.shop.demo.tap import Entries, Recording
from mesh.core.keys import Key
from mesh.core.metadata import CALL, EMPTY_DIGEST, REFUSAL
from mesh.core.names import FullMethod, InstanceId, KeyEpoch, ServiceName
from mesh.core.seal import Session
from mesh.core.wire import CallHeader, Refusal, decode_call, encode_call
from mesh.rpc.membership import Membership
from mesh.rpc.svid import Svid


async def speak(address: str, callee: Membership, svid: Svid, said: Recording) -> Seen:
    """Say to ``callee`` at ``address`` what was recorded or made up, under the TLS identity of ``svid``."""

    async def call() -> list[bytes]:
        options = (("grpc.ssl_target_name_override", callee.identity.dns),)
        async with grpc.aio.secure_channel(address, svid.channel_credentials(), options) as channel:
            method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(said.method)
            return [
                frame async for frame in method(iter(said.requests), metadata=said.metadata, timeout=TIMEOUT)
            ]

    return await seen(call())


def in_another_name(service: str) -> Callable[[bytes], bytes]:
    """Make a change of ``mesh-call-bin``: another source, all else and the mac kept."""

    def change(sealed: bytes) -> bytes:
        mac, header = decode_call(sealed)
        claimed = replace(CallHeader.decode(header), source=ServiceName(service))
        return encode_call(mac, claimed.encode())

    return change


def invented(
    source: ServiceName, instance: InstanceId, callee: Membership, method: str, body: bytes
) -> Recording:
    """Seal a call to ``callee`` in the name of ``source`` under made-up keys."""
    session = Session(Key(secrets.token_bytes(32)), Key(secrets.token_bytes(32)))
    header = CallHeader(
        source=source,
        source_instance=instance,
        destination=callee.name,
        destination_instance=callee.instance,
        epoch=KeyEpoch(1),
        sequence=1_000_000,
        method=FullMethod(method),
        metadata_digest=EMPTY_DIGEST,
    )
    sealed, seal = session.seal(header)
    return Recording(method, ((CALL, sealed),), [seal.request_sealer().seal(body, end=True)])


def forged_refusal(callee: Membership) -> Entries:
    """Make trailing metadata that says the call was not dispatched, with a mac that proves nothing."""
    refusal = Refusal(secrets.token_bytes(32), callee.instance, KeyEpoch(1)).encode()
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="STALE_PEER", domain="mesh"))
    status = status_pb2.Status(code=14, message="peer restarted", details=[detail])
    return ((REFUSAL, refusal), ("grpc-status-details-bin", status.SerializeToString()))
