"""Joining: one token, one identity, whoever asks how often; and strangers learn nothing."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import select

from mesh.core.errors import PeerError
from mesh.core.join import JoinToken
from mesh.core.keys import KEY_BYTES, Key, destination_key, pair_key
from mesh.core.names import AUTH, GATEKEEPER, OPERATOR, ServiceName
from services.auth.admission import REFUSED
from services.auth.errors import AuditError, ConflictError, InvalidError, MissingError, RefusedError
from services.auth.records import Instance
from services.auth.schema import ALARM
from services.auth.tokens import KEEP_MS
from services.auth.vault import Place
from tests.auth.world import HOUR_MS, Attempt, Joined, World, on_sqlite


def refusal(world: World, attempt: Attempt) -> str:
    """Give the text of a refusal."""
    with pytest.raises(RefusedError) as refused:
        attempt.send(world)
    return str(refused.value)


def test_a_bundle_is_all_that_a_node_needs(world: World) -> None:
    """It holds identity, keys of its own, keys to auth and gatekeeper, addresses and the policy key."""
    joined = world.node("orders")
    credentials = joined.credentials
    assert (credentials.trust_domain, credentials.service) == ("shop.example", "orders")
    assert len(credentials.instance) == 16
    assert list(credentials.trust_bundle) == [world.ca.certificate]
    assert len(credentials.certificate_chain) == 1
    assert credentials.now_ms == world.now_ms
    assert credentials.policy_key == world.directory.signer.public_key
    assert joined.bundle.auth_address == "auth.test:7701"
    assert joined.bundle.gatekeeper_address == "gatekeeper.test:7702"
    assert [key.epoch.number for key in credentials.destination_keys] == [1, 2]
    assert [(key.destination, key.epoch.number) for key in joined.bundle.pair_keys] == [
        (name, number) for name in ("mesh.auth", "mesh.gatekeeper") for number in (1, 2)
    ]


def test_keys_are_those_of_the_derivation(world: World) -> None:
    """What is handed out is what the core derives from the epoch's root, for this very service."""
    joined = world.node("orders")
    root = world.authority._roots._held[world.authority._roots.current(world.now_ms)]
    orders = ServiceName("orders")
    assert (
        joined.credentials.destination_keys[0].key
        == destination_key(root, world.authority.domain, orders).reveal()
    )
    for held, name in zip(joined.bundle.pair_keys[::2], (AUTH, GATEKEEPER), strict=True):
        of_destination = destination_key(root, world.authority.domain, name)
        assert held.key == pair_key(of_destination, orders).reveal()


def test_gatekeeper_gets_no_key_to_itself(world: World) -> None:
    """Gatekeeper joins like any node, and calls auth."""
    joined = world.node("mesh.gatekeeper")
    assert {key.destination for key in joined.bundle.pair_keys} == {"mesh.auth"}


def test_the_same_request_again(world: World) -> None:
    """A repeat gets the same identity, instance and certificate, sealed anew, and raises no alarm."""
    attempt = Attempt(world.token())
    first, again = attempt.send(world), attempt.send(world)
    assert again == first
    world.time.pass_ms(59_000)
    later = attempt.send(world)
    assert later.credentials.instance == first.credentials.instance
    assert later.credentials.certificate_chain == first.credentials.certificate_chain
    assert later.credentials.renew_at_ms == first.credentials.renew_at_ms
    assert not world.alarms()


def test_the_same_request_after_the_tokens_life(world: World) -> None:
    """A repeat is good for as long as the token is, and no longer."""
    attempt = Attempt(world.token())
    attempt.send(world)
    world.time.pass_ms(60_000)
    assert refusal(world, attempt) == REFUSED


def test_a_repeat_after_its_certificate_ended(world: World) -> None:
    """A dead certificate is not handed out again, however long the token lives."""
    attempt = Attempt(world.token(ttl_seconds=86_400))
    attempt.send(world)
    for _ in range(3):  # the last of them after its instance was swept
        world.time.pass_ms(HOUR_MS + 1000)
        world.authority.turn()
        assert refusal(world, attempt) == REFUSED
    assert not world.alarms()


def test_a_used_token_is_refused_and_raises_an_alarm(world: World) -> None:
    """Another request for a used token is refused; one alarm stays in the audit log, however often."""
    token = world.token()
    owner = Attempt(token)
    joined = owner.send(world)
    for _ in range(3):
        assert refusal(world, Attempt(token)) == REFUSED
    assert world.alarms() == ["token reused"]
    world.time.pass_ms(3 * HOUR_MS)
    other = world.token()
    world.join(other)
    world.time.pass_ms(HOUR_MS)
    assert refusal(world, Attempt(other)) == REFUSED
    assert world.alarms() == ["token reused", "token reused"]
    assert joined.credentials.service == "orders"


def unknown(_world: World) -> JoinToken:
    return JoinToken("0123456789abcdef", Key(os.urandom(32)))


def wrong_secret(world: World) -> JoinToken:
    return replace(world.token(), secret=Key(os.urandom(32)))


def expired(world: World) -> JoinToken:
    token = world.token()
    world.time.pass_ms(60_000)
    return token


def used(world: World) -> JoinToken:
    token = world.token()
    world.join(token)
    return token


def revoked(world: World) -> JoinToken:
    token = world.token()
    world.authority.revoke_token(token.id, world.operator())
    return token


def used_and_wrong(world: World) -> JoinToken:
    return replace(used(world), secret=Key(os.urandom(32)))


@pytest.mark.parametrize("bad", [unknown, wrong_secret, expired, used, revoked, used_and_wrong])
def test_all_refusals_look_the_same(world: World, bad: Callable[[World], JoinToken]) -> None:
    """Unknown, expired, used, revoked and wrong-secret tokens cannot be told apart by the answer."""
    assert refusal(world, Attempt(bad(world))) == REFUSED
    assert refusal(world, Attempt(bad(world), csr=b"junk")) == REFUSED


@pytest.mark.parametrize("bad", [unknown, wrong_secret])
def test_strangers_take_one_path(
    world: World, bad: Callable[[World], JoinToken], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown token costs the same work as a known one: one secret opened, one mac compared."""
    attempt = Attempt(bad(world))
    opened = list[Place]()
    original = world.directory.vault.open

    def count(sealed: bytes, place: Place) -> bytes:
        opened.append(place)
        return original(sealed, place)

    monkeypatch.setattr(world.directory.vault, "open", count)
    assert refusal(world, attempt) == REFUSED
    assert len(opened) == 1


def test_wrong_secrets_do_not_burn_a_token(world: World) -> None:
    """Whoever knows only a token's id cannot use it up, nor fill the audit log."""
    token = world.token()
    entries = len(world.audit())
    for _ in range(5):
        refusal(world, Attempt(replace(token, secret=Key(os.urandom(32)))))
    assert len(world.audit()) == entries
    assert world.join(token).credentials.service == "orders"


def test_a_bad_certificate_request_does_not_burn_a_token(world: World) -> None:
    """A proven request with a bad certificate request is told so, and may come again with a good one."""
    token = world.token()
    with pytest.raises(InvalidError, match="certificate request"):
        Attempt(token, csr=b"junk").send(world)
    assert world.join(token).credentials.service == "orders"


def test_expiry_is_by_auths_clock(world: World) -> None:
    """A token is good to the last millisecond by auth's clock; setting that back does not lengthen it."""
    first, second = world.token(), world.token()
    world.time.pass_ms(59_999)
    world.join(first)
    world.time.pass_ms(1)
    world.time.wall -= 3600
    assert refusal(world, Attempt(second)) == REFUSED


def test_any_changed_byte_of_a_request_is_refused(world: World) -> None:
    """Body and mac are covered: a change gives a malformed or an unproven request, and burns nothing."""
    token = world.token()
    attempt = Attempt(token)
    good = attempt.request.SerializeToString()
    body, mac = attempt.request.body, attempt.request.mac
    for at in range(0, len(good), 7):
        attempt.request.body = body
        attempt.request.mac = mac
        changed = bytearray(body + mac)
        changed[at % len(changed)] ^= 1
        attempt.request.body = bytes(changed[: len(body)])
        attempt.request.mac = bytes(changed[len(body) :])
        with pytest.raises((RefusedError, PeerError)):
            attempt.send(world)
    assert world.join(token).credentials.service == "orders"


def race(world: World, attempts: list[Attempt]) -> list[Joined | RefusedError]:
    """Send requests from many threads at once. The authority takes one at a time, as its worker does."""
    one_at_a_time, start = threading.Lock(), threading.Barrier(8)

    def send(attempt: Attempt) -> Joined | RefusedError:
        if attempt in attempts[:8]:
            start.wait()
        with one_at_a_time:
            try:
                return attempt.send(world)
            except RefusedError as error:
                return error

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(send, attempts))


def test_different_requests_race_for_one_token(world: World) -> None:
    """Of 200 different requests with one token, one gets an identity."""
    token = world.token()
    results = race(world, [Attempt(token) for _ in range(200)])
    assert len([result for result in results if isinstance(result, Joined)]) == 1
    assert world.alarms() == ["token reused"]


def test_a_batch_is_many_joins(world: World) -> None:
    """Of requests that are answered together each gets its own, and only those that join are written."""
    token, reused, bad = world.token(), world.token(), world.token()
    good, rival = Attempt(token), Attempt(reused)
    stranger = Attempt(JoinToken(token.id, Key(bytes(KEY_BYTES))))
    attempts = [good, stranger, rival, good, Attempt(bad, b"no request"), Attempt(reused)]
    before = len(world.audit())
    joined, refused, first, again, wrong, late = Attempt.send_all(world, attempts)
    assert isinstance(joined, Joined)
    assert isinstance(first, Joined)
    assert again == joined
    assert [type(one) for one in (refused, wrong, late)] == [RefusedError, InvalidError, RefusedError]
    assert [entry.event for entry in world.audit()[before:]] == ["joined", "joined", "token reused"]
    assert isinstance(Attempt(bad).send(world), Joined)
    assert world.examine().bad is None


def test_a_batch_is_written_or_not(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the log cannot be written nobody joins, those who had joined are served, and tokens stay good."""
    before = Attempt(world.token())
    joined = before.send(world)
    attempts = [Attempt(world.token()), before, Attempt(world.token())]
    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise AuditError("disk full")

        broken.setattr("services.auth.segments.Segments.write", fail)
        one, same, other = Attempt.send_all(world, attempts)
    assert isinstance(one, AuditError)
    assert isinstance(other, AuditError)
    assert same == joined
    assert all(isinstance(answer, Joined) for answer in Attempt.send_all(world, attempts))
    assert world.examine().bad is None


def test_a_fault_while_a_batch_is_written_is_not_everybodys(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong, those who were refused are refused, and the others' tokens stay good."""
    good, stranger = Attempt(world.token()), Attempt(JoinToken("0" * 16, Key(bytes(KEY_BYTES))))
    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise RuntimeError("power cut")

        broken.setattr("services.auth.rows.put_instance", fail)
        joined, refused = Attempt.send_all(world, [good, stranger])
    assert [type(one) for one in (joined, refused)] == [RuntimeError, RefusedError]
    assert isinstance(good.send(world), Joined)


class Overtaken:
    """A store in which somebody else uses the token between judging and consuming."""

    def __init__(self, world: World, faster: Attempt) -> None:
        self.world, self.faster, self.original = world, faster, world.store.consume
        self.won: list[Joined] = []

    def consume(self, *args: object) -> list[bool]:
        """Let the other one in first."""
        self.world.store.consume = self.original  # type: ignore[method-assign]
        self.won.append(self.faster.send(self.world))
        return self.original(*args)  # type: ignore[arg-type]


def test_another_writer_is_faster(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the token is used between judging and consuming, the statement decides: nothing is issued."""
    token = world.token()
    overtaken = Overtaken(world, Attempt(token))
    monkeypatch.setattr(world.store, "consume", overtaken.consume)
    assert refusal(world, Attempt(token)) == REFUSED
    instances = [entry for entry in world.audit() if entry.event == "joined" and entry.token_id == token.id]
    assert len(instances) == len(overtaken.won) == 1


def test_another_writer_is_faster_with_the_same_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the very same request was served in between, its identity is given again."""
    attempt = Attempt(world.token())
    overtaken = Overtaken(world, attempt)
    monkeypatch.setattr(world.store, "consume", overtaken.consume)
    assert attempt.send(world) == overtaken.won[0]


def test_a_join_is_all_or_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the instance cannot be written, the token is not used up either."""
    token = world.token()

    def fail(_connection: object, _instance: Instance) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as broken:
        broken.setattr("services.auth.rows.put_instance", fail)
        with pytest.raises(RuntimeError, match="power cut"):
            world.join(token)
    assert world.join(token).credentials.service == "orders"


def test_an_operators_credential_is_never_used_up(world: World) -> None:
    """Each request by the operator's credential is an instance of its own; a repeat is the same one."""
    attempts = [Attempt(world.credential) for _ in range(3)]
    joined = [attempt.send(world) for attempt in attempts]
    assert len({one.credentials.instance for one in joined}) == 3
    assert [attempt.send(world).credentials.instance for attempt in attempts] == [
        one.credentials.instance for one in joined
    ]
    assert {one.peer.service for one in joined} == {OPERATOR}
    assert {key.destination for key in joined[0].bundle.pair_keys} == {"mesh.auth", "mesh.gatekeeper"}
    assert not world.alarms()


def test_a_recorded_request_of_an_operator_is_good_for_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Sent again after its certificate ended, swept or not, it is refused, and nothing is audited."""
    attempt = Attempt(world.credential)
    attempt.send(world)
    for _ in range(3):
        world.time.pass_ms(HOUR_MS + 1000)
        world.authority.turn()
        assert refusal(world, attempt) == REFUSED
    assert world.authority._store.joined_by(world.credential.id, attempt.asked.digest) is None
    world.restart()
    assert refusal(world, attempt) == REFUSED
    assert [entry.event for entry in world.audit() if entry.token_id == world.credential.id] == [
        "trust domain made",
        "joined",
    ]
    assert not world.alarms()
    assert "cannot answer" not in caplog.text
    assert Attempt(world.credential).send(world).peer.service == OPERATOR


def test_requests_are_forgotten_with_their_token(world: World) -> None:
    """What is remembered of requests goes when the token goes."""
    token = world.token()
    world.join(token)
    kept = "SELECT count(*) FROM request WHERE token_id = ?"
    assert world.count(kept, token.id) == 1
    world.time.pass_ms(KEEP_MS + 61_000)
    world.authority.turn()
    assert world.store.token(token.id) is None
    assert world.count(kept, token.id) == 0
    assert world.count(kept, world.credential.id) == 1


@on_sqlite
def test_alarms_are_looked_up_by_an_index(world: World) -> None:
    """However long the audit log is, whether an alarm is in it takes one look."""
    event, token_id = ALARM.c.event == "token reused", ALARM.c.token_id == "0123456789abcdef"
    found = select(ALARM.c.event).where(token_id & event)
    query = str(found.compile(compile_kwargs={"literal_binds": True}))
    (plan,) = world.store._database.transact(
        lambda connection: connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()
    )
    assert "(token_id=? AND event=?)" in plan.detail


def test_an_operators_credential_ends_after_a_year(world: World) -> None:
    """The credential's life is long, not endless."""
    world.time.pass_ms(365 * 24 * HOUR_MS - 1)
    refused = Attempt(world.credential)
    world.time.pass_ms(1)
    assert refusal(world, refused) == REFUSED


def test_an_operators_credential_cannot_be_revoked(world: World) -> None:
    """The operator cannot lock himself out: his own credential is not revoked, and goes on to work."""
    with pytest.raises(ConflictError, match="operator's own credential"):
        world.authority.revoke_token(world.credential.id, world.operator())
    assert world.operator().service.text == "mesh.operator"


def test_revoking(world: World) -> None:
    """An unused token can be revoked, twice too; a used one is past that; an unknown one is unknown."""
    operator, token, spent = world.operator(), world.token(), used(world)
    world.authority.revoke_token(token.id, operator)
    world.authority.revoke_token(token.id, operator)
    with pytest.raises(ConflictError, match="was used"):
        world.authority.revoke_token(spent.id, operator)
    with pytest.raises(MissingError, match="no such token"):
        world.authority.revoke_token("0123456789abcdef", operator)


def test_a_sealed_secret_moved_to_another_token_opens_nothing(world: World) -> None:
    """Whoever can write the database cannot make a token of one service good for another."""
    mine, victim = world.token("orders"), world.token("payments")
    row = world.store.token(mine.id)
    assert row is not None
    world.sql("UPDATE token SET sealed = ? WHERE id = ?", row.sealed, victim.id)
    assert refusal(world, Attempt(replace(mine, id=victim.id))) == REFUSED
    for change in ("service = 'payments'", "expires_ms = expires_ms + 1", "kind = 'operator'"):
        token = world.token("orders")
        world.sql(f"UPDATE token SET {change} WHERE id = ?", token.id)
        assert refusal(world, Attempt(token)) == REFUSED
