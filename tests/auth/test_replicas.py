"""Several auths on one PostgreSQL database: each serves every node, and none works against another."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from mesh.core.names import ServiceName
from mesh.core.policy import Policy
from mesh.core.vouching import JoinKey
from mesh.rpc.svid import new_key
from mesh.v1 import revocation_pb2
from services.auth.database import Generation, OvertakenError, StoreError
from services.auth.directory import DataDirectory
from services.auth.errors import AuthError, ConflictError, RefusedError, StartError
from services.auth.founding import found
from services.auth.replicating import replicate
from services.auth.vouching import join_key
from tests.auth.world import DOMAIN, HOUR_MS, Attempt, Joined, World
from tests.postgres import Server

ORDERS_MAY: dict[str, object] = {
    "services": {
        "orders": {},
        "inventory": {"allow": [{"name": "all", "principals": ["orders"], "paths": ["*"]}]},
    }
}


@pytest.fixture
def worlds(tmp_path: Path, postgres: Server) -> Iterator[tuple[World, World]]:
    """Give two auths on one database."""
    first = World(tmp_path / "first", database=postgres.url(postgres.database()))
    second = first.beside(tmp_path / "second")
    yield first, second
    second.stop()
    first.stop()


def both_pass(worlds: tuple[World, World], ms: int) -> None:
    for world in worlds:
        world.time.pass_ms(ms)


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Give what each gives or raises, all begun together."""
    gate = threading.Barrier(len(works))
    outcomes: list[Any] = [None] * len(works)

    def run(number: int, work: Callable[[], Any]) -> None:
        gate.wait()
        try:
            outcomes[number] = work()
        except AuthError as error:
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=one) for one in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_a_token_made_at_one_is_good_at_the_other_once(worlds: tuple[World, World]) -> None:
    """It joins there, renews at the first, and is used up at both."""
    first, second = worlds
    token = first.token()
    joined = second.join(token)
    renewed = first.authority.renew(joined.peer, new_key()[1])
    assert renewed.instance == joined.credentials.instance
    for world in worlds:
        with pytest.raises(RefusedError):
            world.join(token)


def test_the_same_request_at_both_is_one_identity(worlds: tuple[World, World]) -> None:
    """A node that did not hear the first answer asks the other, and gets the same."""
    first, second = worlds
    attempt = Attempt(first.token())
    assert attempt.send(first).bundle.credentials.certificate_chain == (
        attempt.send(second).bundle.credentials.certificate_chain
    )


def test_all_have_one_join_key(worlds: tuple[World, World]) -> None:
    """Whoever is not the first to make it, or knows not yet what was changed meanwhile, takes the other's."""
    made = at_once(
        *(partial(world.authority.following.alone, partial(join_key, world.directory)) for world in worlds)
    )
    assert len({key.public for key in made}) == 1


def test_a_join_key_is_made_where_another_has_changed_keys(worlds: tuple[World, World]) -> None:
    """What another auth did since this one looked last is taken up, and it is tried again."""
    first, second = worlds
    overtaking = [lambda: first.authority.keys.rotate_epoch(first.operator())]

    def work(now_ms: int) -> JoinKey:
        while overtaking:
            overtaking.pop()()
        return join_key(second.directory, now_ms)

    assert second.authority.following.alone(work).public == join_key(first.directory, first.now_ms).public


def test_many_at_both_with_one_token_are_one_identity(worlds: tuple[World, World]) -> None:
    """Two hundred handshakes, in batches, at both at the same time: exactly one gets in."""
    token = worlds[0].token()

    def joining(world: World) -> list[Joined | Exception]:
        answers: list[Joined | Exception] = []
        for _ in range(10):
            answers += Attempt.send_all(world, [Attempt(token) for _ in range(10)])
        return answers

    answers = [
        one for each in at_once(*(lambda world=world: joining(world) for world in worlds)) for one in each
    ]
    assert len(answers) == 200
    assert len([one for one in answers if isinstance(one, Joined)]) == 1
    assert all(isinstance(one, Joined | RefusedError) for one in answers)
    assert worlds[0].count("SELECT count(*) FROM instance WHERE service = 'orders'") == 1


def test_keys_are_made_once(worlds: tuple[World, World]) -> None:
    """When epochs are due at both at once one makes them, and both derive the same keys."""
    for _ in range(6):
        both_pass(worlds, HOUR_MS // 2)
        at_once(*(world.authority.turn for world in worlds))
        nodes = [world.node("orders") for world in worlds]
        held = [[(key.epoch.number, key.key) for key in node.credentials.destination_keys] for node in nodes]
        assert held[0] == held[1]


def test_an_authority_follows_once(worlds: tuple[World, World]) -> None:
    """When the next CA is due at both at once one makes it; both sign with it and trust the same."""
    first, second = worlds
    for _ in range(30):
        both_pass(worlds, 30 * 24 * HOUR_MS)
        at_once(first.authority.turn, second.authority.turn)
        first.authority.turn()
        second.authority.turn()
        bundles = [list(world.node().credentials.trust_bundle) for world in (first, second)]
        assert bundles[0] == bundles[1]
        assert first.ca.certificate == second.ca.certificate
    made = [entry.detail.partition(",")[0] for world in (first, second) for entry in world.audit()
            if entry.event == "CA made"]  # fmt: skip
    assert len(made) == len(set(made)) > 0


def test_who_was_overtaken_while_it_turned_takes_up_what_was_made(
    worlds: tuple[World, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other makes the next epoch after this one has looked and before it writes: both have that one."""
    first, second = worlds
    before = first.authority._roots.epochs()
    both_pass(worlds, HOUR_MS)
    turns, look = [second.authority.turn], first.store._database.look

    def looking() -> Generation:
        found = look()
        while turns:
            turns.pop()()
        return found

    monkeypatch.setattr(first.store._database, "look", looking)
    first.authority.turn()
    epochs = [world.authority._roots.epochs() for world in worlds]
    assert epochs[0] == epochs[1]
    assert len(epochs[0]) == len(before) + 1


def test_a_policy_applied_at_one_is_in_force_at_the_other(worlds: tuple[World, World]) -> None:
    """From its next answer on, with nothing told to it: pair keys, the version, and what comes after."""
    first, second = worlds
    node = second.node("orders")
    assert not second.authority.pair_keys(node.peer, ["inventory"]).keys
    first.apply(ORDERS_MAY)
    assert second.authority.pair_keys(node.peer, ["inventory"]).keys
    assert second.authority.policy(second.operator()).version == 1
    assert second.apply({"services": {}}).version == 2
    assert not first.authority.pair_keys(node.peer, ["inventory"]).keys


def test_who_is_revoked_at_one_is_unknown_to_the_other(worlds: tuple[World, World]) -> None:
    """From its next answer on; and a service that is banned at one joins at neither until that is lifted."""
    first, second = worlds
    node, token, by = second.node("orders"), second.token("orders"), first.operator()
    told = second.authority.revoking.revision
    first.authority.revoking.ban(revocation_pb2.BanRequest(service="orders"), by)
    with pytest.raises(RefusedError):
        second.authority.renew(node.peer, new_key()[1])
    with pytest.raises(RefusedError):
        second.join(token)
    second.authority.turn()
    assert second.authority.revoking.revision > told
    assert list(second.authority.revoking.told().banned) == ["orders"]
    with pytest.raises(ConflictError, match="banned"):
        second.token("orders")
    second.authority.revoking.unban(revocation_pb2.UnbanRequest(service="orders"), by)
    assert first.node("orders").credentials.service == "orders"


def test_versions_of_the_policy_are_used_once(worlds: tuple[World, World]) -> None:
    """Two operators at once: each version is one policy, and who was slower is told."""
    operators = [world.operator() for world in worlds]
    policy = Policy.parse(json.dumps(ORDERS_MAY))
    given: list[int] = []
    for _ in range(10):
        outcomes = at_once(
            *(
                lambda world=world, by=by: world.authority.apply_policy(policy, by).version
                for world, by in zip(worlds, operators, strict=True)
            )
        )
        given += [one for one in outcomes if isinstance(one, int)]
        assert all(isinstance(one, int | ConflictError) for one in outcomes)
    assert len(given) == len(set(given))
    assert sorted(given) == list(range(1, max(given) + 1))


def test_each_has_audit_logs_of_its_own(worlds: tuple[World, World]) -> None:
    """What was done at one stands in its log, by its own key; both are whole, and both are known."""
    first, second = worlds
    first.node("orders"), second.node("inventory")
    services = [{entry.service for entry in world.audit() if entry.event == "joined"} for world in worlds]
    assert services == [{"mesh.operator", "orders"}, {"mesh.operator", "inventory"}]
    heads = [world.store.logs.rows() for world in worlds]
    assert [len(found) for found in heads] == [2, 2]
    assert len(first.store.logs.replicas()) == 2
    assert (first.path / "audit.key").read_bytes() != (second.path / "audit.key").read_bytes()
    for world in worlds:
        found = world.directory.store.logs.open.heads()["actions"]
        assert found.sequence > 0


def test_a_new_kek_is_asked_for_by_the_other(worlds: tuple[World, World]) -> None:
    """It answers nothing until it has it, seals nothing under the old one, and then goes on."""
    first, second = worlds
    first.authority.keys.rotate_kek(None, first.operator())
    with pytest.raises(StartError, match="kek is not the key of this database"):
        second.authority.turn()
    with pytest.raises(OvertakenError):
        second.store.mark(second.now_ms + HOUR_MS)
    (second.path / "kek.next").write_bytes((first.path / "kek").read_bytes())
    (second.path / "kek.next").chmod(0o600)
    second.authority.turn()
    assert (second.path / "kek").read_bytes() == (first.path / "kek").read_bytes()
    assert second.node().credentials.service == "orders"
    second.restart()
    assert first.join(second.token()).credentials.service == "orders"


def test_a_lost_connection_undoes_a_transaction(worlds: tuple[World, World], postgres: Server) -> None:
    """Cut while it runs, it has done nothing, in the log neither; the next one goes."""
    first, _ = worlds
    name = first.database.partition("@/")[2].partition("?")[0]
    before = first.audit()

    def work(connection: Connection) -> bool:
        connection.exec_driver_sql("DELETE FROM token")
        first.store.logs.open.append(connection, "actions", [replace(before[0], detail="cut")])
        postgres.cut(name)
        connection.exec_driver_sql("SELECT 1")
        return True

    with pytest.raises(StoreError):
        first.store.logs._settled(work)
    assert first.audit() == before
    assert first.node().credentials.service == "orders"


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_without_an_answer_is_asked_about(
    worlds: tuple[World, World], postgres: Server, monkeypatch: pytest.MonkeyPatch, *, committed: bool
) -> None:
    """What became of it counts, not what was heard: log and database stay of one mind."""
    first, _ = worlds
    operator, commit = first.operator(), Connection.commit
    name = first.database.partition("@/")[2].partition("?")[0]

    def cut(connection: Connection) -> None:
        if committed:
            commit(connection)
        postgres.cut(name)
        raise OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))

    before = len(first.audit())
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "commit", cut)
        if committed:
            first.authority.admission.create(ServiceName("orders"), 60_000, operator, first.now_ms)
        else:
            with pytest.raises(StoreError):
                first.authority.admission.create(ServiceName("orders"), 60_000, operator, first.now_ms)
    assert len(first.audit()) == before + committed
    assert first.count("SELECT count(*) FROM token WHERE kind = 'join'") == committed
    first.restart()
    assert first.examine().bad is None


class KilledError(BaseException):
    """Stands for the end of this process."""


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_that_the_server_knows_nothing_of_ends_auth(
    worlds: tuple[World, World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, committed: bool
) -> None:
    """Neither is guessed: it ends at once, and its next start finds log and database of one mind."""
    first, _ = worlds
    operator, commit = first.operator(), Connection.commit
    killed: list[tuple[int, int]] = []
    logs, left = first.path / "audit", tmp_path / "left"

    def cut(connection: Connection) -> None:
        if committed:
            commit(connection)
        raise OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))

    def kill(process: int, number: int) -> None:
        killed.append((process, number))
        shutil.copytree(logs, left)
        raise KilledError

    before = len(first.audit())
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "commit", cut)
        patched.setattr("services.auth.postgres.os.kill", kill)
        patched.setattr("services.auth.postgres._STATUS", text("SELECT nullif(:xid, :xid)"))
        with pytest.raises(KilledError):
            first.authority.admission.create(ServiceName("orders"), 60_000, operator, first.now_ms)
    assert killed == [(os.getpid(), signal.SIGKILL)]
    first.stop()
    # A process that was killed tidies nothing up.
    shutil.rmtree(logs)
    left.rename(logs)
    first.start()
    assert first.count("SELECT count(*) FROM token WHERE kind = 'join'") == committed
    after = first.audit()
    if committed:
        assert len(after) == before + 1
    else:
        assert "1 entries were written of" in after[-1].detail
    assert first.examine().bad is None


def test_a_server_that_was_away_is_found_again(tmp_path: Path) -> None:
    """Nothing is answered meanwhile, and nothing has to be started anew after it."""
    from tests.postgres import server  # noqa: PLC0415  one that can be stopped

    with server() as own:
        world = World(tmp_path / "mesh", database=own.url(own.database()))
        node = world.node()
        own.stop()
        with pytest.raises(StoreError):
            world.authority.renew(node.peer, new_key()[1])
        own.start()
        assert world.authority.renew(node.peer, new_key()[1]).service == "orders"
        world.stop()


def test_what_is_refused(worlds: tuple[World, World], tmp_path: Path, postgres: Server) -> None:
    """A second mesh in a database, an auth without the KEK, a newer schema, no database, a readable URL."""
    first, second = worlds
    with pytest.raises(StartError, match="holds a mesh already"):
        found(tmp_path / "again", DOMAIN, first.now_ms, database=first.database)
    (tmp_path / "kek").write_bytes(bytes(32))
    (tmp_path / "kek").chmod(0o600)
    with pytest.raises(StartError, match="not the key of this database"):
        replicate(tmp_path / "third", first.database, tmp_path / "kek", first.now_ms)
    with pytest.raises(StartError, match="nothing of a mesh"):
        replicate(tmp_path / "third", postgres.url(postgres.database()), first.path / "kek", first.now_ms)
    with pytest.raises(StartError, match="cannot use the database"):
        replicate(tmp_path / "third", postgres.url("nowhere"), first.path / "kek", first.now_ms)
    assert not (tmp_path / "third").exists()
    second.stop()
    (second.path / "database.json").chmod(0o644)
    with pytest.raises(StartError, match="chmod 600"):
        DataDirectory(second.path)
    (second.path / "database.json").chmod(0o600)
    first.sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StartError, match="of a newer sealmesh"):
        DataDirectory(second.path)
    first.sql("UPDATE alembic_version SET version_num = '0007'")


def test_an_epoch_that_another_has_just_made_is_not_made_again(worlds: tuple[World, World]) -> None:
    """Who looked before it was there is overtaken, as auths are that start at once, and takes it up."""
    both_pass(worlds, HOUR_MS)
    first, second = worlds
    first.authority._roots.turn(first.now_ms)
    with pytest.raises(OvertakenError):
        second.authority._roots.turn(second.now_ms)
    second.authority.turn()
    assert second.authority._roots.epochs() == first.authority._roots.epochs()


def test_who_follows_a_leap_later_goes_by_the_time_that_was_told(worlds: tuple[World, World]) -> None:
    """One that was started anew believes a leap at once and ends the old epochs; the other serves on."""
    first, second = worlds
    node = first.node("orders")
    for world in worlds:
        world.time.wall += 3 * 24 * HOUR_MS / 1000
    first.authority.turn()
    second.restart()
    leapt_ms = second.authority.turn()
    assert leapt_ms - first.clock.now_ms() > 2 * 24 * HOUR_MS
    assert first.authority.turn() >= leapt_ms - 1
    assert first.authority._roots.epochs() == second.authority._roots.epochs()
    assert first.node("orders").bundle.pair_keys
    with pytest.raises(RefusedError):
        first.authority.renew(node.peer, new_key()[1])
