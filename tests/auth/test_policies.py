"""The policy of record: signed, only ever replaced by a newer one, refused as a whole or not at all."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mesh.core.document import MAX_DOCUMENT
from mesh.core.keys import lp
from mesh.core.names import AUTH, GATEKEEPER, ServiceName
from mesh.core.policy import Policy, Section
from mesh.core.receiver import Peer
from services.auth import policies, store
from services.auth.errors import ConflictError, InvalidError, MissingError, StartError
from services.auth.policies import MAX_GUARD, parse
from services.gatekeeper.signed import verified
from tests.auth.world import DOMAIN, World, on_sqlite

ORDERS = {"frontend": {}, "orders": {"allow": [{"principals": ["frontend"], "paths": ["*"]}]}}


def test_it_starts_with_nothing(world: World) -> None:
    """A new trust domain has version 0, signed, which allows nothing."""
    signed = world.authority.policy_of_record
    assert signed.version == 0
    assert not Policy.parse(signed.document).services
    assert verified(signed, DOMAIN, world.directory.signer.public_key, None).version == 0


def test_versions_count_up(world: World) -> None:
    """Each policy gets the next number, over a restart too."""
    assert world.apply({"services": ORDERS}).version == 1
    world.restart()
    assert world.authority.policy_of_record.version == 1
    assert world.apply({"services": {}}).version == 2


def test_the_signature_is_as_in_the_proto(world: World) -> None:
    """Ed25519 over label, trust domain, version and document; gatekeeper takes it."""
    signed = world.apply({"services": ORDERS})
    key = world.directory.signer.public_key
    covered = b"mesh/v1/policy" + lp(b"shop.example") + (1).to_bytes(8, "big") + lp(signed.document)
    Ed25519PublicKey.from_public_bytes(key).verify(signed.signature, covered)
    assert verified(signed, DOMAIN, key, None).version == 1


def test_what_is_kept_is_canonical(world: World) -> None:
    """However it was written, the document on record is the canonical one."""
    policy = parse(json.dumps({"services": ORDERS}, indent=8).encode())
    assert world.authority.apply_policy(policy, world.operator()).document == policy.encode()


SECRET = {"allow": [{"principals": ["frontend"], "paths": ["/a.B/*"]}] * 20}


def test_a_forbidden_name_is_not_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time does not tell whether a forbidden service exists: no rule is read, whatever is asked for."""
    world.apply({"services": {**ORDERS, "evil": {}, "payments": {"allow": [], **SECRET}}})
    evil, frontend = world.node("evil").peer, world.node("frontend").peer
    for peer in (evil, frontend):
        world.authority.pair_keys(peer, [])

    def admits(section: Section, source: ServiceName) -> bool:
        raise AssertionError(f"{source} makes auth read {section}")

    monkeypatch.setattr(Section, "admits", admits)

    def asked(peer: Peer, *names: str) -> list[str]:
        return sorted({key.destination for key in world.authority.pair_keys(peer, names).keys})

    assert asked(evil, "payments", "absent", "orders", "mesh.auth") == ["mesh.auth"]
    assert asked(frontend, "payments", "absent", "orders") == ["orders", "payments"]


def test_keys_follow_the_policy(world: World) -> None:
    """What is remembered of whom a service may call is of the policy in force."""
    peer = world.node("frontend").peer
    for services, keys in (({}, 0), (ORDERS, 2), ({"frontend": {}}, 0)):
        world.apply({"services": services})
        assert len(world.authority.pair_keys(peer, ["orders"]).keys) == keys


def test_what_is_remembered_of_callers_has_a_bound(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past it, remembering starts afresh; answers stay the same."""
    monkeypatch.setattr(policies, "REMEMBERED", 2)
    world.apply({"services": ORDERS})
    own, held = frozenset({AUTH, GATEKEEPER}), world.authority._policies
    for name in ("a", "b", "c", "frontend"):
        orders = {ServiceName("orders")} if name == "frontend" else set()
        assert held.permitted(ServiceName(name)) == own | orders
        assert len(held._permitted) <= 2


@pytest.mark.parametrize(("guard", "version"), [(1, 1), (7, 7), (MAX_GUARD, MAX_GUARD)])
def test_a_guard_is_the_version(world: World, guard: int, version: int) -> None:
    """A document that names its version gets that one, if it is newer; the next goes on from there."""
    assert world.apply({"version": guard, "services": {}}).version == version
    assert world.apply({"services": {}}).version == version + 1


@pytest.mark.parametrize("guard", [1, 4, 5])
def test_a_guard_that_is_not_newer_is_refused(world: World, guard: int) -> None:
    """An older policy never replaces a newer one."""
    world.apply({"version": 5, "services": ORDERS})
    before = world.authority.policy_of_record
    with pytest.raises(ConflictError, match="is not newer than 5"):
        world.apply({"version": guard, "services": {}})
    assert world.authority.policy_of_record == before


def test_a_guard_cannot_use_up_the_numbers(world: World) -> None:
    """A version so high that nothing could follow is refused."""
    with pytest.raises(InvalidError, match="too large"):
        world.apply({"version": MAX_GUARD + 1, "services": {}})


@pytest.mark.parametrize(
    ("document", "where"),
    [
        (b"", "policy"),
        (b"\xff", "policy"),
        (b"services: {}", "policy"),
        (b"{}", "services"),
        (b'{"services": {}, "servces": {}}', "servces"),
        (b'{"services": {"Bad Name": {}}}', "Bad Name"),
        (b'{"services": {"mesh.auth": {}}}', "mesh.auth"),
        (b'{"services": {"a": {"allow": [{"principals": ["b"], "paths": ["*"]}]}}}', "principals"),
        (b'{"services": {"a": {"alow": []}}}', "alow"),
        (b'{"services": {}}' + b" " * MAX_DOCUMENT, "too many"),
        (
            (
                b'{"services": {"a": {"deny": [{"principals": ["*"], "paths": ["*"]}],'
                b' "allow": [{"principals": ["a"], "paths": ["*"]}]}}}'
            ),
            "allow[0]: is never reached",
        ),
        (
            json.dumps(
                {"services": {}, "groups": {f"g{number}": ["*"] for number in range(10_001)}}
            ).encode(),
            "policy.groups: 10001 are too many",
        ),
    ],
)
def test_what_is_no_policy_is_refused(document: bytes, where: str) -> None:
    """A document with anything wrong in it is refused as a whole, in one line that says where."""
    with pytest.raises(InvalidError) as refused:
        parse(document)
    assert where in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_misspelt_time_zone_is_refused() -> None:
    """So nobody gets one in force by leaving ``mesh policy check`` out."""
    rule = {"principals": ["a"], "paths": ["*"], "when": 'time.getHours("Europe/Berln") > 7'}
    document = json.dumps({"services": {"a": {"allow": [rule]}}}).encode()
    with pytest.raises(
        InvalidError, match=r"allow\[0\]\.when: there is no time zone 'Europe/Berln': did you"
    ):
        parse(document)


def test_a_write_that_lost_the_race_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store holds a newer one already, the one in hand is refused."""
    monkeypatch.setattr(world.store, "replace_policy", lambda *_: False)
    with pytest.raises(ConflictError, match="not newer"):
        world.apply({"services": ORDERS})
    assert world.authority.policy_of_record.version == 0


@on_sqlite
@pytest.mark.parametrize(
    "change",
    [
        'document = CAST(\'{"services":{"evil":{}}}\' AS BLOB)',
        "document = '{\"services\":{}}'",
        "version = 9",
        "version = -1",
        "signature = zeroblob(64)",
        "signature = 0",
    ],
)
def test_a_policy_changed_in_the_database_is_not_served(world: World, change: str) -> None:
    """A policy that is not what was signed keeps auth from starting."""
    world.apply({"services": ORDERS})
    world.sql(f"UPDATE policy SET {change} WHERE version = 1")
    world.stop()
    with pytest.raises(StartError, match="was changed"):
        world.start()


def test_an_earlier_policy_does_not_come_back(world: World) -> None:
    """Those that are kept are signed as well, but they are not taken for the one of record."""
    for services in (ORDERS, {}):
        world.apply({"services": services})
    world.sql("DELETE FROM policy WHERE version = 2")
    world.stop()
    with pytest.raises(StartError, match="policy 2 was changed or is missing"):
        world.start()


def test_earlier_policies_are_kept(world: World) -> None:
    """With their versions, sizes, times and who applied them; signed as they were, over a restart too."""
    by = world.operator()
    first = world.authority.apply_policy(parse(json.dumps({"services": ORDERS}).encode()), by)
    world.apply({"services": {}})
    world.restart()
    by_version = {info.version: info for info in world.authority.list_policies(by)}
    assert list(by_version) == [2, 1, 0]
    assert by_version[1].instance == str(by.instance)
    assert by_version[1].size == len(first.document)
    assert by_version[1].applied_ms >= by_version[0].applied_ms > 0
    assert by_version[0].instance == ""
    assert world.authority.policy(by, 1) == first
    assert world.authority.policy(by, 2) == world.authority.policy(by)
    with pytest.raises(MissingError, match="policy 3 is not kept"):
        world.authority.policy(by, 3)


def test_a_kept_policy_that_was_changed_is_not_given(world: World) -> None:
    """The signature covers what is kept as well, and the one of record is not concerned."""
    world.apply({"services": ORDERS})
    world.apply({"services": {}})
    world.sql("UPDATE policy SET document = ? WHERE version = 1", b'{"services":{"evil":{}}}')
    with pytest.raises(MissingError, match="policy 1 was changed"):
        world.authority.policy(world.operator(), 1)
    world.restart()
    assert world.authority.policy_of_record.version == 2


@pytest.mark.parametrize(
    ("count", "size", "kept"), [(2, 10**9, [5, 4]), (100, 250, [5, 4, 3]), (100, 0, [5])]
)
def test_not_all_policies_are_kept(
    world: World, monkeypatch: pytest.MonkeyPatch, count: int, size: int, kept: list[int]
) -> None:
    """The newest are, up to a number of them and a number of bytes beside the one of record."""
    monkeypatch.setattr(store, "KEPT_POLICIES", count)
    monkeypatch.setattr(store, "KEPT_BYTES", size)
    document: dict[str, object] = {"services": {"a": {}, "b" * 60: {}}}
    for _ in range(5):
        assert len(world.apply(document).document) < 125
    assert [info.version for info in world.authority.list_policies(world.operator())] == kept


def test_two_operators_at_once(world: World) -> None:
    """Who means to replace what is not of record any more is told, and nothing is lost."""
    seen = world.apply({"services": ORDERS}).version
    policy = parse(b'{"services": {}}')
    assert world.authority.apply_policy(policy, world.operator(), seen).version == seen + 1
    for other in (seen, seen + 2, 0):
        with pytest.raises(ConflictError, match=f"policy {seen + 1} is in force, not {other} any more"):
            world.authority.apply_policy(policy, world.operator(), other)
    assert world.authority.policy_of_record.version == seen + 1


def test_a_rollback_says_whose_text_it_is(world: World) -> None:
    """It is listed and logged; a version that is not kept cannot be the one."""
    world.apply({"services": ORDERS})
    world.apply({"services": {}})
    policy, by = parse(json.dumps({"services": ORDERS}).encode()), world.operator()
    with pytest.raises(MissingError, match="policy 9 is not kept"):
        world.authority.apply_policy(policy, by, 2, 9)
    assert world.authority.policy_of_record.version == 2
    guarded = json.dumps({"version": 9, "services": ORDERS}).encode()
    for other in (b'{"services": {}}', b'{"services": {"orders": {}}}', guarded):
        with pytest.raises(InvalidError, match="this is not the text of policy 1: "):
            world.authority.apply_policy(parse(other), by, 2, 1)
    assert world.authority.policy_of_record.version == 2
    world.authority.apply_policy(policy, by, 2, 1)
    listed = world.authority.list_policies(by)
    assert [(info.version, info.restores) for info in listed if info.HasField("restores")] == [(3, 1)]


def test_a_rollback_to_a_text_with_a_guard(world: World) -> None:
    """The guard is no part of the text that comes back: it would refuse it."""
    guarded = world.apply({"version": 5, "services": ORDERS}).version
    world.apply({"services": {}})
    policy = parse(json.dumps({"services": ORDERS}).encode())
    assert world.authority.apply_policy(policy, world.operator(), 6, guarded).version == 7
