"""What nodes and operators ask of the authority: renewal, pair keys, listings, status, sweeping."""

import pytest
from cryptography import x509

from mesh.core.names import AUTH, GATEKEEPER, OPERATOR, InstanceId, ServiceName
from mesh.core.policy import Policy
from mesh.core.receiver import Peer
from mesh.rpc.svid import new_key
from mesh.v1 import auth_pb2, keys_pb2
from services.auth.audit_log import DENIALS
from services.auth.authority import Lives
from services.auth.epochs import Schedule
from services.auth.errors import InvalidError, RefusedError
from tests.auth.world import HOUR_MS, World, public_key

POLICY: dict[str, object] = {
    "services": {
        "frontend": {},
        "orders": {"allow": [{"principals": ["frontend"], "paths": ["*"]}]},
        "payments": {"allow": [{"principals": ["orders"], "paths": ["*"]}]},
    }
}


def test_renewal(world: World) -> None:
    """A node gets a new certificate over its new key, and stays who it was."""
    joined = world.node()
    world.time.pass_ms(HOUR_MS // 2)
    key, csr = new_key()
    renewed = world.authority.renew(joined.peer, csr)
    assert renewed.instance == joined.credentials.instance
    assert renewed.service == "orders"
    svid = x509.load_der_x509_certificate(renewed.certificate_chain[0])
    assert svid.public_key() == key.public_key()
    assert [part.value for part in svid.subject] == [renewed.instance.hex()]
    assert [held.epoch.number for held in renewed.destination_keys] == [1, 2]


def test_renewing_for_ever(world: World) -> None:
    """A node that keeps renewing stays known, across sweeps and restarts; one that does not is forgotten."""
    lasting, lapsed = world.node(), world.node()
    for _ in range(10):
        world.time.pass_ms(HOUR_MS // 2)
        world.authority.turn()
        world.restart()
        world.authority.renew(lasting.peer, new_key()[1])
    with pytest.raises(RefusedError, match="join again"):
        world.authority.renew(lapsed.peer, new_key()[1])
    assert world.store.instance(lapsed.peer.instance) is None


def strangers(world: World) -> list[Peer]:
    joined = world.node().peer
    return [
        Peer(ServiceName("payments"), joined.instance),
        Peer(joined.service, InstanceId(bytes(16))),
        Peer(OPERATOR, joined.instance),
    ]


def test_unknown_instances_get_nothing(world: World) -> None:
    """An instance that is not in the record, or not under that name, neither renews nor gets keys."""
    for peer in strangers(world):
        for ask in (
            lambda peer=peer: world.authority.renew(peer, new_key()[1]),
            lambda peer=peer: world.authority.pair_keys(peer, ["orders"]),
            lambda peer=peer: world.authority.check_known(peer),
            lambda peer=peer: world.authority.create_token("orders", 60, peer),
            lambda peer=peer: world.authority.list_tokens(peer),
            lambda peer=peer: world.authority.revoke_token("0123456789abcdef", peer),
            lambda peer=peer: world.authority.policy(peer),
            lambda peer=peer: world.authority.status(peer),
        ):
            with pytest.raises(RefusedError, match="not known here"):
                ask()


def test_a_bad_request_for_renewal(world: World) -> None:
    """A bad certificate request is told so."""
    with pytest.raises(InvalidError, match="certificate request"):
        world.authority.renew(world.node().peer, b"junk")


def names(response: auth_pb2.GetPairKeysResponse) -> set[str]:
    return {key.destination for key in response.keys}


def test_who_probes_for_names_is_told_of(world: World) -> None:
    """Names without keys leave one entry with how many, the same for forbidden and unknown ones."""
    world.apply(POLICY)
    peer = world.node("orders").peer
    world.authority.pair_keys(peer, ["payments"])
    assert [entry for entry in world.audit(DENIALS) if entry.event == "names refused"] == []
    world.authority.pair_keys(peer, ["payments", "frontend", "frontend", "absent", "no name"])
    (entry,) = [entry for entry in world.audit(DENIALS) if entry.event == "names refused"]
    assert (entry.service, entry.instance, entry.count) == ("orders", str(peer.instance), 3)
    assert entry.method == "/mesh.v1.AuthService/GetPairKeys"
    assert not any(name in world.log_of(DENIALS)[0] for name in (b"frontend", b"absent"))


def test_pair_keys_follow_the_policy(world: World) -> None:
    """A node gets keys for whom it may call; no word about others, be they forbidden, unknown or no names."""
    world.apply(POLICY)
    asked = ["orders", "payments", "frontend", "nobody", "Not A Name", "", "mesh.auth", "mesh.gatekeeper"]
    mesh = {"mesh.auth", "mesh.gatekeeper"}
    assert names(world.authority.pair_keys(world.node("frontend").peer, asked)) == mesh | {"orders"}
    assert names(world.authority.pair_keys(world.node("orders").peer, asked)) == mesh | {"payments"}
    assert names(world.authority.pair_keys(world.node("payments").peer, asked)) == mesh
    assert names(world.authority.pair_keys(world.operator(), asked)) == mesh
    assert names(world.authority.pair_keys(world.node("mesh.gatekeeper").peer, asked)) >= {"mesh.auth"}


def test_nobody_gets_a_key_to_the_operator(world: World) -> None:
    """The operator is called by nobody."""
    assert not world.authority.pair_keys(world.node().peer, ["mesh.operator", "mesh.other"]).keys


def test_without_a_policy_there_are_no_pairs(world: World) -> None:
    """A new trust domain denies everything, but lets nodes call auth and gatekeeper."""
    peer = world.node("frontend").peer
    assert world.authority.policy_of_record.version == 0
    assert not world.authority.pair_keys(peer, ["orders"]).keys
    assert names(world.authority.pair_keys(peer, ["mesh.auth"])) == {"mesh.auth"}


def test_a_policy_that_takes_a_pair_back(world: World) -> None:
    """Keys are for pairs that the policy of record allows now."""
    world.apply(POLICY)
    peer = world.node("frontend").peer
    assert names(world.authority.pair_keys(peer, ["orders"])) == {"orders"}
    world.apply({"services": {"frontend": {}, "orders": {}}})
    assert not world.authority.pair_keys(peer, ["orders"]).keys


def test_too_many_names(world: World) -> None:
    """A thousand names may be asked for at a time, and each is answered once."""
    world.apply(POLICY)
    peer = world.node("frontend").peer
    assert len(world.authority.pair_keys(peer, ["orders"] * 1000).keys) == 2
    with pytest.raises(InvalidError, match="too many"):
        world.authority.pair_keys(peer, ["orders"] * 1001)


def test_pair_keys_come_for_this_epoch_and_the_next(world: World) -> None:
    """The next epoch's key comes along from the start of the present one."""
    peer = world.node().peer

    def epochs() -> list[int]:
        return [key.epoch.number for key in world.authority.pair_keys(peer, ["mesh.auth"]).keys]

    assert epochs() == [1, 2]
    world.time.pass_ms(HOUR_MS - 1)
    assert epochs() == [1, 2]
    world.authority.renew(peer, new_key()[1])
    world.time.pass_ms(1)
    assert epochs() == [2, 3]


def held(world: World) -> list[int]:
    return [key.epoch.number for key in world.node().credentials.destination_keys]


def test_destination_keys_come_for_previous_current_and_next(world: World) -> None:
    """The previous epoch is held for its grace, the next from the start of the present one."""
    seen = []
    for ms in (0, HOUR_MS - 1, 1, 299_999, 1, HOUR_MS - 300_000):
        world.time.pass_ms(ms)
        seen.append(held(world))
    assert seen == [[1, 2], [1, 2], [1, 2, 3], [1, 2, 3], [2, 3], [2, 3, 4]]


def test_auth_accepts_its_own_keys_for_as_long_as_certificates_that_came_with_them(world: World) -> None:
    """Where they outlive epochs and grace, it says so with the keys, and to nobody else; over restarts."""
    world.lives = Lives(60_000, Schedule(2000, 1000))
    world.time.pass_ms(3 * HOUR_MS)
    world.restart()
    world.apply(POLICY)
    node, begun = world.node("frontend"), world.now_ms

    def until(destination: str) -> list[int]:
        keys = world.authority.pair_keys(node.peer, [destination]).keys
        return [key.epoch.accepted_until_ms - begun for key in keys]

    assert until("mesh.auth") == [61_000, 63_000]
    assert until("orders") == [3000, 5000]
    told = [key for key in node.bundle.pair_keys if key.destination == "mesh.auth"]
    world.time.pass_ms(59_999)
    world.restart()
    own = world.authority.credentials_for(AUTH, InstanceId(bytes(16)), public_key()).destination_keys
    held_by_auth = {key.epoch.number: key.epoch.accepted_until_ms for key in own}
    assert {key.epoch.number: key.epoch.accepted_until_ms for key in told}.items() <= held_by_auth.items()
    assert held(world) == [5, 6]
    assert len([key for key in world.authority.keys.list().keys if key.kind == keys_pb2.KEY_KIND_EPOCH]) == 2
    world.time.pass_ms(3001)
    world.authority.turn()
    assert min(world.authority._roots.epochs()).number.number == told[-1].epoch.number + 1


def test_epochs_survive_a_restart(world: World) -> None:
    """The same epoch has the same key before and after; forgotten roots are gone from the store."""
    before = world.node().credentials.destination_keys
    world.restart()
    assert world.node().credentials.destination_keys == before
    world.time.pass_ms(3 * HOUR_MS)
    world.restart()
    assert held(world) == [3, 4]
    assert [row.epoch.number.number for row in world.store.keys.roots()] == [3, 4]


def test_renewal_is_due_when_the_first_thing_is(world: World) -> None:
    """A node comes at half of its certificate's life, or when the next epoch can be had, if that is first."""
    credentials = world.node().credentials
    assert credentials.renew_at_ms == world.now_ms + HOUR_MS // 2
    world.time.pass_ms(HOUR_MS - 60_000)
    credentials = world.node().credentials
    epoch = credentials.destination_keys[-1].epoch
    assert credentials.renew_at_ms == epoch.begins_ms + HOUR_MS // 4


def test_timers_can_be_short(world: World) -> None:
    """Four seconds are a life, too: certificate, epoch and time of renewal follow."""
    world.lives = Lives(4000, Schedule(4000, 2000))
    world.time.pass_ms(3 * HOUR_MS)
    world.restart()
    credentials = world.node().credentials
    key, ahead = credentials.destination_keys
    assert (key.epoch.number, key.epoch.begins_ms) == (3, world.now_ms)
    assert (ahead.epoch.number, ahead.epoch.begins_ms) == (4, key.epoch.ends_ms)
    assert (key.epoch.ends_ms, key.epoch.accepted_until_ms) == (world.now_ms + 4000, world.now_ms + 6000)
    assert credentials.renew_at_ms == world.now_ms + 2000
    assert [credentials.destination_keys[0].epoch.number for credentials in [world.node().credentials]] == [3]


def test_listing_tokens(world: World) -> None:
    """Tokens are listed newest first, with their states and what became of them, and without secrets."""
    states = auth_pb2.TokenState
    expired = world.token("old", ttl_seconds=1)
    world.time.pass_ms(1000)
    used, revoked = world.token("used"), world.token("revoked")
    world.time.pass_ms(1)
    token = world.token("orders", ttl_seconds=90)
    joined = world.join(used)
    world.authority.revoke_token(revoked.id, world.operator())
    listed = world.authority.list_tokens(world.operator())
    seen = {info.id: (info.service, info.state) for info in listed}
    assert seen == {
        token.id: ("orders", states.TOKEN_STATE_OPEN),
        used.id: ("used", states.TOKEN_STATE_USED),
        revoked.id: ("revoked", states.TOKEN_STATE_REVOKED),
        expired.id: ("old", states.TOKEN_STATE_EXPIRED),
        world.credential.id: ("mesh.operator", states.TOKEN_STATE_OPEN),
    }
    assert [info.created_ms for info in listed] == sorted((i.created_ms for i in listed), reverse=True)
    assert {info.id: info.instance for info in listed}[used.id] == joined.credentials.instance
    assert listed[0].expires_ms - listed[0].created_ms == 90_000
    assert token.secret.reveal() not in b"".join(info.SerializeToString() for info in listed)


def test_old_tokens_are_swept(world: World) -> None:
    """A token is forgotten a day after it expired; the operator's credential is not."""
    token = world.token()
    world.time.pass_ms(60_000 + 24 * HOUR_MS)
    world.authority.turn()
    assert world.store.token(token.id) is not None
    world.time.pass_ms(60_001)
    world.authority.turn()
    assert world.store.token(token.id) is None
    assert world.store.token(world.credential.id) is not None


def test_status(world: World) -> None:
    """Status says what is in force."""
    world.apply(POLICY)
    status = world.authority.status(world.operator())
    assert (status.trust_domain, status.policy_version, status.now_ms) == ("shop.example", 1, world.now_ms)
    assert (status.epoch.number, status.epoch.begins_ms) == (1, world.now_ms)
    assert status.ca_expires_ms == world.now_ms + 365 * 24 * HOUR_MS


def test_auths_own_credentials(world: World) -> None:
    """Auth issues its own, under its own name."""
    key, _ = new_key()
    credentials = world.authority.credentials_for(GATEKEEPER, InstanceId(bytes(16)), key.public_key())
    assert credentials.service == "mesh.gatekeeper"
    assert credentials.instance == bytes(16)


def test_what_happened_is_in_the_audit_log(world: World) -> None:
    """Founding, epochs, tokens, joins and policies leave an entry each, with who did it."""
    operator = world.operator()
    token = world.authority.create_token("orders", 60, operator)[0]
    joined = world.join(token)
    world.authority.apply_policy(_parsed(), operator)
    events = [(entry.event, entry.service, entry.token_id) for entry in world.audit()]
    assert events == [
        ("trust domain made", "", world.credential.id),
        ("epoch made", "", ""),
        ("epoch made", "", ""),
        ("joined", "mesh.operator", world.credential.id),
        ("token created", "orders", token.id),
        ("joined", "orders", token.id),
        ("policy applied", "", ""),
    ]
    assert world.audit()[5].instance == joined.credentials.instance.hex()
    for entry in (world.audit()[4], world.audit()[6]):
        assert entry.by == f"mesh.operator/{operator.instance}"
    assert world.audit()[6].detail == "1"


def _parsed() -> Policy:
    return Policy.parse(b'{"services": {}}')
