"""What auth hands to its members: certificates and keys. Who may have which was decided before."""

from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric import ec

from mesh.core.names import Identity, InstanceId, ServiceName, TrustDomain
from mesh.v1 import auth_pb2
from services.auth import messages
from services.auth.authorities import Authorities
from services.auth.ca import half_ms
from services.auth.epochs import fetch_at_ms
from services.auth.roots import Roots


class Issuing:
    """Makes credentials."""

    def __init__(
        self, domain: TrustDomain, roots: Roots, authorities: Authorities, svid_ms: int, policy_key: bytes
    ) -> None:
        """Take keys, who signs certificates, how long those last, and what policies are signed with."""
        self._domain, self._roots, self._authorities = domain, roots, authorities
        self._svid_ms, self._policy_key = svid_ms, policy_key

    def certificate(
        self, service: ServiceName, instance: InstanceId, key: ec.EllipticCurvePublicKey, now_ms: int
    ) -> bytes:
        """Issue a certificate, DER."""
        authority = self._authorities.signing(now_ms)
        return authority.issue(Identity(self._domain, service), instance, key, now_ms, self._svid_ms)

    def credentials(
        self,
        service: ServiceName,
        instance: InstanceId,
        certificate: bytes,
        now_ms: int,
        *,
        remote_keys: bool = False,
    ) -> auth_pb2.Credentials:
        """Give what an instance holds; ``remote_keys``: without its destination keys, which auth keeps."""
        keys = self._roots.destination_keys(service, now_ms)
        return auth_pb2.Credentials(
            trust_domain=self._domain.text,
            service=service.text,
            instance=instance.raw,
            certificate_chain=[certificate],
            trust_bundle=self._authorities.bundle(now_ms),
            destination_keys=[
                messages.destination_key(epoch, None if remote_keys else key) for epoch, key in keys
            ],
            now_ms=now_ms,
            policy_key=self._policy_key,
            renew_at_ms=min(half_ms(certificate), fetch_at_ms(self._roots.epochs())),
            remote_keys=remote_keys,
        )

    def pair_keys(
        self, source: ServiceName, destinations: Iterable[ServiceName], now_ms: int
    ) -> list[auth_pb2.PairKey]:
        """Give the keys for calling destinations; who may call them was asked before."""
        return [
            messages.pair_key(name, epoch, key)
            for name in destinations
            for epoch, key in self._roots.pair_keys(source, name, now_ms)
        ]
