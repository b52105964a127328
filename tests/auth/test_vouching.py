"""Joining on Kubernetes' word: once for each request, as who the rules say, and in the audit log."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from mesh.core.join import JoinAsked, JoinRequester, read_request
from mesh.core.keys import KEY_BYTES, Key
from mesh.core.vouching import JoinKey, Proof, read_join_key
from mesh.core.workloads import Rules, Workload
from mesh.rpc.svid import new_key
from mesh.v1 import auth_pb2, revocation_pb2
from services.auth.admission import VOUCHED_MS
from services.auth.audit_log import DENIALS
from services.auth.errors import LimitedError, RefusedError
from services.auth.records import secret_place
from services.auth.vouching import REFUSED, NotVouchedError, UnaskedError, Vouching, join_key
from services.auth.worker import Worker
from tests.auth.world import World

POD = Workload("shop", "orders", "orders-1")
RULES = Rules.parse(
    [
        {"namespace": "shop", "serviceAccount": "orders", "service": "orders"},
        {"namespace": "mesh", "serviceAccount": "operator", "service": "mesh.operator"},
    ]
)


class Cluster:
    """Says of tokens what the test has it say."""

    def __init__(self) -> None:
        self.known: dict[str, Workload] = {"true": POD, "stranger": Workload("other", "orders", "p")}
        self.asked: list[str] = []
        self.away = False

    async def review(self, token: str) -> Workload:
        """Say it."""
        self.asked.append(token)
        if self.away:
            raise UnaskedError("Kubernetes does not answer")
        if token not in self.known:
            raise NotVouchedError("the token is not true")
        return self.known[token]


class Node:
    """One request of a pod, which can be sent more than once."""

    def __init__(self, key: JoinKey, token: str = "true", proof: Proof | None = None) -> None:
        self.proof = proof or Proof(Key(os.urandom(KEY_BYTES)), token)
        _, csr = new_key()
        self.requester = JoinRequester(self.proof.join_token, csr, os.urandom(16))
        self.request = self.requester.request()
        self.request.sealed_proof = self.proof.seal(read_join_key(key.text), self.request.body)

    @property
    def asked(self) -> JoinAsked:
        """What auth reads."""
        return read_request(self.request)


class Door:
    """Auth's side."""

    def __init__(self, world: World, worker: Worker) -> None:
        self.world, self.cluster = world, Cluster()
        self.key = join_key(world.directory, world.now_ms)
        self.vouching = Vouching(
            world.authority.admission,
            worker,
            self.key,
            self.cluster,
            RULES,
            world.authority.revoking.is_banned,
            lambda: world.now_ms / 1000,
        )

    def node(self, token: str = "true") -> Node:
        """Give a request."""
        return Node(self.key, token)

    async def join(self, node: Node) -> auth_pb2.JoinBundle:
        """Let a node in as JoinService does; raise what it answers with."""
        await self.vouching.vouch(node.asked)
        (answer,) = self.world.authority.join([node.asked])
        if isinstance(answer, Exception):
            raise answer
        return node.requester.open(answer)

    def denied(self) -> list[tuple[str, str]]:
        """Give event and detail of what the audit log has of refusals."""
        return [(entry.event, entry.detail) for entry in self.world.audit(DENIALS)]


@pytest.fixture
async def door(world: World) -> AsyncIterator[Door]:
    with Worker() as worker:
        yield Door(world, worker)


async def test_a_pod_joins_as_the_rules_say(door: Door) -> None:
    """It gets an identity like any other, and the log says by whose word."""
    bundle = await door.join(door.node())
    assert bundle.credentials.service == "orders"
    vouched, joined = door.world.audit()[-2:]
    assert (vouched.event, vouched.by, vouched.detail) == ("workload vouched for", "kubernetes", str(POD))
    assert (joined.event, joined.service, joined.token_id) == ("joined", "orders", vouched.token_id)


async def test_the_same_request_gets_the_same_instance(door: Door) -> None:
    """And the API server is asked once: a lost answer costs nothing."""
    node = door.node()
    first, second = await door.join(node), await door.join(node)
    assert first.credentials.instance == second.credentials.instance
    assert door.cluster.asked == ["true"]


async def test_another_request_of_the_pod_gets_another_instance(door: Door) -> None:
    """A sidecar that is started anew is a new instance."""
    first, second = await door.join(door.node()), await door.join(door.node())
    assert first.credentials.instance != second.credentials.instance


async def test_another_request_of_the_same_secret_is_refused(door: Door) -> None:
    """A secret is good once, like a token's, and its second use an alarm."""
    node = door.node()
    await door.join(node)
    with pytest.raises(RefusedError):
        await door.join(Node(door.key, proof=node.proof))
    assert door.world.alarms() == ["token reused"]


async def test_nobody_is_vouched_for_as_a_banned_service(door: Door) -> None:
    """A ban holds for pods as for tokens, until it is lifted."""
    revoking, operator = door.world.authority.revoking, door.world.operator()
    revoking.ban(revocation_pb2.BanRequest(service="orders"), operator)
    with pytest.raises(RefusedError):
        await door.join(door.node())
    assert door.denied()[-1] == ("service banned", "orders is banned")
    revoking.unban(revocation_pb2.UnbanRequest(service="orders"), operator)
    assert (await door.join(door.node())).credentials.service == "orders"


async def test_a_pod_that_joins_again_and_again_has_to_wait(door: Door) -> None:
    """The same request is good later; other pods are let in, and actions have nothing of what was refused."""
    door.cluster.known["other"] = Workload("shop", "orders", "orders-2")
    for _ in range(10):
        await door.join(door.node())
    before, node = len(door.world.audit()), door.node()
    for _ in range(3):
        with pytest.raises(LimitedError):
            await door.join(node)
    assert len(door.world.audit()) == before
    assert door.denied()[-1] == ("workload joins too often", str(POD))
    await door.join(door.node("other"))
    door.world.time.pass_ms(10_000)
    assert (await door.join(node)).credentials.service == "orders"
    await door.join(node)
    with pytest.raises(LimitedError):
        await door.join(door.node())


async def test_operators_are_not_limited(door: Door) -> None:
    """Each of their commands is a join."""
    door.cluster.known["operator"] = Workload("mesh", "operator", "")
    for _ in range(12):
        assert (await door.join(door.node("operator"))).credentials.service == "mesh.operator"


async def test_a_recorded_request_is_of_no_use_later(door: Door) -> None:
    """Past its time it is refused, whoever sends it."""
    node = door.node()
    await door.join(node)
    door.world.time.pass_ms(VOUCHED_MS)
    with pytest.raises(RefusedError):
        await door.join(node)


@pytest.mark.parametrize(
    ("token", "event", "detail"),
    [
        ("false", "workload not vouched for", "the token is not true"),
        ("stranger", "workload not known", "no rule for other/orders/p"),
    ],
)
async def test_who_is_not_vouched_for_is_refused(door: Door, token: str, event: str, detail: str) -> None:
    """In the same words, whatever the reason; that is in the log, and no token was made."""
    with pytest.raises(RefusedError) as refused:
        await door.join(door.node(token))
    assert str(refused.value) == REFUSED
    assert door.denied() == [(event, detail)]
    assert door.world.count("select count(*) from token where kind = 'join'") == 0


async def test_a_proof_that_does_not_open_asks_nobody(door: Door) -> None:
    """A stranger without the join key cannot make auth ask the API server."""
    for changed in (
        Node(JoinKey(bytes(96))).request.sealed_proof,  # for another trust domain
        door.node().request.sealed_proof,  # of another request
        b"rubbish",
    ):
        node = door.node()
        node.request.sealed_proof = changed
        with pytest.raises(RefusedError):
            await door.join(node)
    assert door.cluster.asked == []
    assert {event for event, _ in door.denied()} == {"proof not opened"}


def test_a_refusal_is_said_whole() -> None:
    """Whoever joins shows no more than 300 letters of what nothing has proved."""
    assert len(REFUSED) <= 300


async def test_an_api_server_that_is_away_refuses_nobody(door: Door) -> None:
    """The same request is good once it is back."""
    node = door.node()
    door.cluster.away = True
    with pytest.raises(UnaskedError):
        await door.join(node)
    assert door.denied() == []
    door.cluster.away = False
    assert (await door.join(node)).credentials.service == "orders"


async def test_a_request_that_is_sent_twice_at_a_time(door: Door) -> None:
    """Makes one token."""
    node = door.node()
    await asyncio.gather(door.vouching.vouch(node.asked), door.vouching.vouch(node.asked))
    assert door.world.count("select count(*) from token where kind = 'join'") == 1


async def test_the_join_key_stays(door: Door) -> None:
    """What is published is good after a restart, and sealed at rest."""
    assert join_key(door.world.directory, 0).public == door.key.public
    (found,) = door.world.store.keys.secrets("join")
    assert [entry.event for entry in door.world.audit()].count("join key made") == 1
    assert found.public == door.key.public
    place = secret_place(door.world.authority.domain, "join", 1)
    assert JoinKey(door.world.directory.vault.open(found.sealed, place)).public == door.key.public
