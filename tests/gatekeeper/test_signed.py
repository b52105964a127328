"""Signed policies, as attacks: nothing but a newer policy that auth signed is ever taken."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh.core.keys import lp
from mesh.core.names import ServiceName, TrustDomain
from mesh.v1 import auth_pb2
from services.gatekeeper.signed import UntrustedPolicyError, VersionedPolicy, verified

DOMAIN = TrustDomain("shop.example")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
EMPTY = b'{"services":{}}'
ORDERS = json.dumps({"services": {"orders": {}}}).encode()


def sign(
    version: int, document: bytes = EMPTY, domain: TrustDomain = DOMAIN, key: Ed25519PrivateKey = KEY
) -> auth_pb2.SignedPolicy:
    covered = b"mesh/v1/policy" + lp(domain.text.encode()) + version.to_bytes(8, "big") + lp(document)
    return auth_pb2.SignedPolicy(version=version, document=document, signature=key.sign(covered))


def take(signed: auth_pb2.SignedPolicy, in_force: VersionedPolicy | None = None) -> VersionedPolicy:
    return verified(signed, DOMAIN, PUBLIC, in_force)


def test_a_signed_policy_is_taken() -> None:
    """The first policy that verifies is in force, whatever its version."""
    policy = take(sign(7, ORDERS))
    assert policy.version == 7
    assert list(policy.policy.services) == [ServiceName("orders")]


def test_a_newer_one_replaces_it() -> None:
    """Versions only go up."""
    assert take(sign(8, ORDERS), take(sign(7))).version == 8


def test_the_same_again_is_the_one_in_force() -> None:
    """After a reconnect auth says the same again, and nothing changes."""
    held = take(sign(7))
    assert take(sign(7), held) is held


@pytest.mark.parametrize(("version", "document"), [(6, EMPTY), (6, ORDERS), (7, ORDERS), (0, ORDERS)])
def test_an_older_or_second_one_is_not(version: int, document: bytes) -> None:
    """An older policy, or another one under the same number, is refused though auth did sign it."""
    with pytest.raises(UntrustedPolicyError, match="not newer than 7"):
        take(sign(version, document), take(sign(7)))


def test_every_changed_byte_is_seen() -> None:
    """Version, document and signature are covered to the last bit."""
    good = sign(7, ORDERS).SerializeToString()
    for at in range(len(good)):
        changed = auth_pb2.SignedPolicy()
        try:
            changed.ParseFromString(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        except Exception:  # noqa: BLE001  not protobuf any more
            continue
        with pytest.raises(UntrustedPolicyError, match="does not verify"):
            take(changed)


@pytest.mark.parametrize(
    "signed",
    [
        sign(7, domain=TrustDomain("other.example")),
        sign(7, key=Ed25519PrivateKey.generate()),
        auth_pb2.SignedPolicy(version=7, document=EMPTY),
        auth_pb2.SignedPolicy(),
    ],
    ids=["another trust domain", "another key", "no signature", "nothing"],
)
def test_a_foreign_signature_is_not_taken(signed: auth_pb2.SignedPolicy) -> None:
    """Only this trust domain's auth signs its policy."""
    with pytest.raises(UntrustedPolicyError, match="does not verify"):
        take(signed)


@pytest.mark.parametrize("key", [b"", b"short", bytes(31), bytes(33)])
def test_without_a_policy_key_nothing_is_taken(key: bytes) -> None:
    """A missing or broken key fails closed."""
    with pytest.raises(UntrustedPolicyError, match="does not verify"):
        verified(sign(7), DOMAIN, key, None)


def test_what_is_no_policy_is_not_taken() -> None:
    """A signature does not make a policy of what this version cannot read; the error names the field."""
    with pytest.raises(UntrustedPolicyError, match=r"policy\.later: unknown field"):
        take(sign(7, b'{"services":{},"later":1}'))
