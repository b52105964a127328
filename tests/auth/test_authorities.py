"""CAs that follow each other: by the clock, by an operator, over restarts; keys destroyed in time."""

import pytest
from cryptography import x509

from services.auth.ca import CA_LIFE_MS
from services.auth.errors import AuditError, AuthError
from services.auth.vault import TamperedError
from tests.auth.test_rekey import _full, rotate
from tests.auth.world import HOUR_MS, Joined, World, on_sqlite

SIXTH = CA_LIFE_MS // 6


def issuer(joined: Joined) -> str:
    return x509.load_der_x509_certificate(joined.credentials.certificate_chain[0]).issuer.rfc4514_string()


def names(joined: Joined) -> list[str]:
    bundle = joined.credentials.trust_bundle
    return [x509.load_der_x509_certificate(der).subject.rfc4514_string() for der in bundle]


def to(world: World, ms: int) -> Joined:
    """Let time pass until so long after the beginning, and have a node join."""
    world.time.pass_ms(ms - (world.now_ms - world.directory.authorities[1].begins_ms))
    return world.node()


def test_a_year_goes_by(world: World) -> None:
    """Published at half, signing in the last sixth, the old one gone an SVID's life later; over restarts."""
    first = world.node()
    [one] = names(first)
    assert issuer(first) == one
    assert names(to(world, CA_LIFE_MS // 2 - 1000)) == [one]
    published = to(world, CA_LIFE_MS // 2)
    two, _ = names(published)
    assert (names(published), issuer(published)) == ([two, one], one)
    world.restart()
    before = to(world, 5 * SIXTH - 1000)
    assert (names(before), issuer(before)) == ([two, one], one)
    after = to(world, 5 * SIXTH)
    assert (names(after), issuer(after)) == ([two, one], two)
    world.restart()
    later = to(world, 5 * SIXTH + HOUR_MS + 2000)
    assert (names(later), issuer(later)) == ([two], two)
    assert [entry.event for entry in world.audit() if entry.event.startswith("CA ")] == [
        "CA made",
        "CA key destroyed",
        "CA forgotten",
    ]


@on_sqlite
def test_the_key_of_one_that_signs_no_more_is_destroyed(world: World) -> None:
    """Nobody can sign with it again, not even auth."""
    to(world, CA_LIFE_MS // 2)
    [before, _] = [secret.sealed for secret in world.store.keys.secrets("ca")]
    to(world, 5 * SIXTH)
    [old, new] = world.store.keys.secrets("ca")
    assert world.directory._opened(world.directory.vault, old) == b""
    assert world.directory._opened(world.directory.vault, new) != b""
    old_reign, _ = world.authority._authorities.reigns
    with pytest.raises(AuthError, match="ended"):
        world.authority._authorities._held[old_reign].issue(*[None] * 5)  # type: ignore[arg-type]
    world.stop()
    assert before not in (world.path / "auth.db").read_bytes()


def test_after_a_long_sleep_there_is_a_new_ca(world: World) -> None:
    """All certificates have ended, auth's own included: it starts with a new CA that signs at once."""
    old = list(world.node().credentials.trust_bundle)
    world.stop()
    world.time.pass_ms(CA_LIFE_MS * 9 // 10)
    world.start()
    world.stop()
    world.time.pass_ms(3 * CA_LIFE_MS)
    world.start()
    [reign] = world.authority._authorities.reigns
    assert reign.begins_ms <= world.authority._now() < reign.ends_ms
    assert reign.number > 1
    assert list(world.node().credentials.trust_bundle) == [world.ca.certificate] != old


def test_an_operator_forces_the_next(world: World) -> None:
    """It signs an SVID's life from now, and is in every bundle until then; who did it is in the log."""
    [one] = names(world.node())
    operator = world.operator()
    made = world.authority.keys.rotate_ca(operator)
    assert made.id == "2"
    assert HOUR_MS <= made.begins_ms - world.now_ms <= HOUR_MS + 1000
    two, _ = names(world.node())
    [entry] = [entry for entry in world.audit() if entry.event == "CA made"]
    assert (entry.by, entry.detail) == (
        f"mesh.operator/{operator.instance}",
        f"2, signs from {made.begins_ms}",
    )
    world.time.pass_ms(HOUR_MS + 1000)
    assert issuer(world.node()) == two
    world.restart()
    assert names(world.node()) == [two, one]
    world.time.pass_ms(HOUR_MS + 1000)
    assert names(world.node()) == [two]


def test_forcing_twice_replaces_one_that_has_not_begun(world: World) -> None:
    """There is one next, and its number was never used before."""
    first = world.authority.keys.rotate_ca(world.operator())
    second = world.authority.keys.rotate_ca(world.operator())
    assert (first.id, second.id) == ("2", "3")
    assert [reign.number for reign in world.authority._authorities.reigns] == [1, 3]
    world.restart()
    assert [reign.number for reign in world.authority._authorities.reigns] == [1, 3]


def test_forcing_needs_the_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be logged is not done."""
    operator = world.operator()
    with monkeypatch.context() as patched:
        patched.setattr("os.fdatasync", _full)
        with pytest.raises(AuditError):
            world.authority.keys.rotate_ca(operator)
    assert len(world.authority._authorities.reigns) == 1
    assert len(world.store.keys.secrets("ca")) == 1


def test_all_of_them_are_under_the_kek(world: World) -> None:
    """A rotation of the KEK takes the next and the old one along."""
    world.authority.keys.rotate_ca(world.operator())
    rotate(world)
    world.restart()
    assert len(world.node().credentials.trust_bundle) == 2


def test_generations_do_not_change_places(world: World) -> None:
    """A CA's key moved to another generation, or an older one put back, does not open."""
    world.authority.keys.rotate_ca(world.operator())
    one, two = world.store.keys.secrets("ca")
    world.sql("UPDATE secret SET sealed = ? WHERE name = 'ca' AND version = 2", one.sealed)
    moved = world.store.keys.secrets("ca")[1]
    assert moved.sealed != two.sealed
    with pytest.raises(TamperedError):
        world.directory._opened(world.directory.vault, moved)
