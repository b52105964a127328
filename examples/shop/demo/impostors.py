"""Attacks by members of the mesh: mallory, whom the policy does not name, and services that go too far.

Each has a valid certificate of its own, so that TLS lets it speak. What is stopped is what it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from examples.shop.demo import victims
from examples.shop.demo.attack import BOOKED, TIMEOUT, Attack, Seen, Stop, seen
from examples.shop.demo.forgery import invented, speak
from examples.shop.demo.tap import Tap
from examples.shop.v1 import orders_pb2, orders_pb2_grpc, payments_pb2, payments_pb2_grpc
from mesh.core.errors import Cause, Reason
from mesh.core.names import InstanceId
from mesh.rpc.caller import CallSpec
from mesh.rpc.channel import MeshChannel
from mesh.rpc.connections import Connection, Connections, Endpoint
from mesh.rpc.reply import RawEnd
from mesh.v1 import auth_pb2, auth_pb2_grpc, gatekeeper_pb2, gatekeeper_pb2_grpc

if TYPE_CHECKING:
    from examples.shop.demo.stage import Stage

_C = grpc.StatusCode
_CHARGE = "/shop.v1.Payments/Charge"
_MONEY = payments_pb2.ChargeRequest(customer=victims.CUSTOMER, cents=1)
_FORBIDDEN, _ABSENT = "payments", "pavement"


async def captured_call_as_mallory(stage: Stage) -> Seen:
    """Send a call that orders sealed over mallory's own connection."""
    await victims.charge(stage)
    said = stage.tap.recorded[-1]
    return await speak(stage.payments_at, stage.payments.membership, stage.mallory.membership.svid, said)


async def in_orders_name(stage: Stage) -> Seen:
    """Seal a call in the name of orders, its instance too, with made-up keys."""
    orders, callee = stage.orders.membership, stage.payments.membership
    said = invented(orders.name, orders.instance, callee, _CHARGE, _MONEY.SerializeToString())
    return await speak(stage.payments_at, callee, stage.mallory.membership.svid, said)


async def in_its_own_name(stage: Stage) -> Seen:
    """Seal a call in mallory's own name, past its library, with made-up keys."""
    mallory, callee = stage.mallory.membership, stage.payments.membership
    said = invented(mallory.name, mallory.instance, callee, _CHARGE, _MONEY.SerializeToString())
    return await speak(stage.payments_at, callee, mallory.svid, said)


async def by_its_library(stage: Stage) -> Seen:
    """Call payments as any service would."""
    stub = payments_pb2_grpc.PaymentsStub(stage.mallory.channel(_FORBIDDEN))
    return await seen(stub.Charge(_MONEY, timeout=TIMEOUT))


async def ask_for_the_key(stage: Stage) -> Seen:
    """Ask auth for the key to call payments with."""
    stub = auth_pb2_grpc.AuthServiceStub(stage.mallory.channel("mesh.auth"))
    request = auth_pb2.GetPairKeysRequest(destinations=[_FORBIDDEN])
    given = await seen(stub.GetPairKeys(request, timeout=TIMEOUT))
    if isinstance(given.result, auth_pb2.GetPairKeysResponse) and not given.result.keys:
        return Seen(_C.NOT_FOUND, details="no key among the answer")
    return given


async def act_as_operator(stage: Stage) -> Seen:
    """Ask auth for a token to become payments."""
    stub = auth_pb2_grpc.OperatorServiceStub(stage.mallory.channel("mesh.auth"))
    return await seen(stub.CreateToken(auth_pb2.CreateTokenRequest(service=_FORBIDDEN), timeout=TIMEOUT))


async def list_the_nodes(stage: Stage) -> Seen:
    """Ask gatekeeper who is there."""
    stub = gatekeeper_pb2_grpc.GatekeeperServiceStub(stage.mallory.channel("mesh.gatekeeper"))
    return await seen(stub.ListNodes(gatekeeper_pb2.ListNodesRequest(), timeout=TIMEOUT))


async def tell_names_apart(stage: Stage) -> Seen:
    """Look up a forbidden name and one that does not exist, and compare all that the answers show."""
    stub = gatekeeper_pb2_grpc.GatekeeperServiceStub(stage.mallory.channel("mesh.gatekeeper"))
    answers = []
    for name in (_FORBIDDEN, _ABSENT):
        try:
            return Seen(_C.OK, result=await stub.Resolve(gatekeeper_pb2.ResolveRequest(service=name)))
        except grpc.aio.AioRpcError as error:
            answers.append(_all_of(error))
    if answers[0] != answers[1]:
        return Seen(_C.OK, result=f"told apart by {answers}")
    return await seen(stub.Resolve(gatekeeper_pb2.ResolveRequest(service=_FORBIDDEN)))


def _all_of(error: grpc.aio.AioRpcError) -> tuple[Any, ...]:
    """Give code, text, and all metadata, values and so sizes too."""
    return (error.code(), error.details(), tuple(error.initial_metadata()), tuple(error.trailing_metadata()))


class _LyingDirectory:
    """Sends orders to mallory's door, under the name and instance of payments."""

    def __init__(self, stage: Stage, address: str) -> None:
        self.service = stage.payments.identity.service
        self._door = Endpoint(stage.payments.instance, address)
        self._connections = Connections(stage.orders.membership, self.service)

    async def connection(self, _spec: CallSpec) -> tuple[InstanceId, Connection]:
        connection = self._connections.to(self._door)
        connection.began()
        return self._door.instance, connection

    def split(self, _metadata: Any) -> _LyingDirectory:
        return self

    async def refused(self, instance: InstanceId, by: InstanceId) -> None:
        """Change nothing."""

    def ended(self, instance: InstanceId, end: RawEnd, *, begun: bool) -> None:
        """Change nothing."""

    async def close(self) -> None:
        await self._connections.close()


async def behind_payments_door(stage: Stage) -> Seen:
    """Answer in payments' stead, with mallory's certificate, where a lying directory sends orders."""
    svid = stage.mallory.membership.svid
    door = Tap(stage.payments.identity, svid, svid, stage.payments_at)
    directory = _LyingDirectory(stage, f"127.0.0.1:{await door.start('127.0.0.1:0')}")
    try:
        stub = payments_pb2_grpc.PaymentsStub(MeshChannel(stage.orders.membership, directory, -1))
        answer = await seen(stub.Charge(_MONEY, timeout=TIMEOUT))
    finally:
        await directory.close()
        await door.stop()
    return Seen(_C.OK, result="orders spoke to mallory") if door.recorded else answer


async def too_far_for_orders(stage: Stage) -> Seen:
    """Let orders call the one method of payments that the policy denies."""
    return await seen(victims.refund(stage))


async def too_far_for_frontend(stage: Stage) -> Seen:
    """Let frontend's application list all orders, through its sidecar."""
    async with grpc.aio.insecure_channel(stage.orders_socket) as channel:
        listed = orders_pb2_grpc.OrdersStub(channel).List(orders_pb2.ListRequest(), timeout=TIMEOUT)
        return await seen(_all(listed))


async def around_the_socket(stage: Stage) -> Seen:
    """Let frontend's application name payments at its sidecar's loopback port."""
    async with grpc.aio.insecure_channel(stage.mesh_port) as channel:
        stub = payments_pb2_grpc.PaymentsStub(channel)
        return await seen(stub.Charge(_MONEY, timeout=TIMEOUT, metadata=(("mesh-to", _FORBIDDEN),)))


async def name_the_caller(stage: Stage) -> Seen:
    """Let frontend's application say that it is payments, in the metadata that only sidecars write."""
    async with grpc.aio.insecure_channel(stage.orders_socket) as channel:
        place = orders_pb2_grpc.OrdersStub(channel).Place
        forged = (("mesh-peer", stage.payments.identity.uri),)
        order = orders_pb2.PlaceRequest(customer=victims.CUSTOMER, item="mug", quantity=1)
        return await seen(place(order, timeout=TIMEOUT, metadata=forged))


async def _all(stream: Any) -> list[Any]:
    return [message async for message in stream]


_BAD_MAC = Stop("payments", Cause.BAD_MAC, "the header's mac does not verify")

MALLORY = (
    Attack(
        "orders' captured call, over its connection",
        captured_call_as_mallory,
        Stop("payments", Cause.WRONG_PEER, "TLS says mallory, not orders"),
        BOOKED,
    ),
    Attack("a call in orders' name", in_orders_name, _BAD_MAC),
    Attack("a call in its own name, sealed by hand", in_its_own_name, _BAD_MAC),
    Attack(
        "answers in payments' place",
        behind_payments_door,
        Stop("orders", _C.UNAVAILABLE, "TLS: the certificate is not payments'"),
    ),
    Attack(
        "a forbidden call, by the library",
        by_its_library,
        Stop("mallory", Reason.NAME_UNAVAILABLE, "knows of no such service"),
    ),
    Attack("asks for the key of payments", ask_for_the_key, Stop("auth", _C.NOT_FOUND, "gives none")),
    Attack(
        "asks for a join token of payments",
        act_as_operator,
        Stop("auth", Reason.POLICY_DENIED, "for operators alone"),
    ),
    Attack(
        "asks which nodes there are",
        list_the_nodes,
        Stop("gatekeeper", Reason.POLICY_DENIED, "for operators alone"),
    ),
    Attack(
        "looks up payments, and a name that is not",
        tell_names_apart,
        Stop("gatekeeper", Reason.NAME_UNAVAILABLE, "same code, text and size for both"),
    ),
)

TOO_FAR = (
    Attack(
        "orders calls Refund", too_far_for_orders, Stop("payments", Reason.POLICY_DENIED, "rule no-refunds")
    ),
    Attack(
        "frontend lists all orders",
        too_far_for_frontend,
        Stop("orders", Reason.POLICY_DENIED, "rule frontend-lists-nothing"),
    ),
    Attack(
        "frontend calls payments, by mesh-to",
        around_the_socket,
        Stop("frontend's sidecar", Reason.NAME_UNAVAILABLE, "knows of no such service"),
    ),
    Attack(
        "frontend's app claims to be payments",
        name_the_caller,
        Stop("frontend's sidecar", Reason.BAD_REQUEST, "mesh- metadata is reserved"),
    ),
)
