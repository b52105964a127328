"""A policy that auth vouches for: verified before it is read, never older than the one in force.

Signed is Ed25519 over ``"mesh/v1/policy" lp(trust domain) version-as-8-bytes lp(document)``, as
``SignedPolicy`` in auth.proto says. Whatever is refused here leaves the policy in force as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mesh.core.keys import lp
from mesh.core.names import TrustDomain
from mesh.core.policy import Policy
from mesh.v1 import auth_pb2

_LABEL: Final = b"mesh/v1/policy"


class UntrustedPolicyError(ValueError):
    """A policy is not to be taken; the message says why."""


@dataclass(frozen=True, slots=True)
class VersionedPolicy:
    """A verified policy and the version that auth gave it."""

    version: int
    policy: Policy
    document: bytes


def verified(
    signed: auth_pb2.SignedPolicy,
    domain: TrustDomain,
    policy_key: bytes,
    in_force: VersionedPolicy | None,
) -> VersionedPolicy:
    """Give the policy to have in force: the signed one, or ``in_force`` itself if it is that again.

    ``policy_key`` is the raw Ed25519 public key of the credentials. Raises ``UntrustedPolicyError`` for a
    bad signature, an older version, a different document under the same version, and a document that is no
    policy.
    """
    covered = _LABEL + lp(domain.text.encode()) + signed.version.to_bytes(8, "big") + lp(signed.document)
    try:
        Ed25519PublicKey.from_public_bytes(policy_key).verify(signed.signature, covered)
    except (InvalidSignature, ValueError):
        raise UntrustedPolicyError(f"signature of policy {signed.version} does not verify") from None
    if in_force and signed.version == in_force.version and signed.document == in_force.document:
        return in_force
    if in_force and signed.version <= in_force.version:
        raise UntrustedPolicyError(f"policy {signed.version} is not newer than {in_force.version}, in force")
    try:
        return VersionedPolicy(signed.version, Policy.parse(signed.document), signed.document)
    except ValueError as error:
        raise UntrustedPolicyError(f"policy {signed.version} cannot be read: {error}") from None
