"""A node's X.509-SVID with its private key, and what TLS has proved of a peer's.

What a certificate must hold is DESIGN section 3: the identity as its one URI SAN, the instance id in hex as
its common name. gRPC verifies the chain; this reads the names from what was verified.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from mesh.core.epochs import SKEW_MS
from mesh.core.errors import Cause, PeerError
from mesh.core.names import Identity, InstanceId, TrustDomain
from mesh.core.receiver import Peer


@dataclass(frozen=True, slots=True)
class Svid:
    """Certificate chain, private key and trust bundle, all PEM. The key never prints."""

    chain_pem: bytes
    bundle_pem: bytes
    not_before_ms: int
    not_after_ms: int
    key_pem: bytes = field(repr=False)

    @classmethod
    def build(cls, key: ec.EllipticCurvePrivateKey, chain: Iterable[bytes], bundle: Iterable[bytes]) -> Svid:
        """Put together a key and DER certificates, leaf first."""
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        begins = certificates[0].not_valid_before_utc.timestamp()
        ends = certificates[0].not_valid_after_utc.timestamp()
        return cls(
            chain_pem=b"".join(c.public_bytes(Encoding.PEM) for c in certificates),
            bundle_pem=b"".join(
                x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in bundle
            ),
            not_before_ms=int(begins * 1000),
            not_after_ms=int(ends * 1000),
            key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Give what a client shows and trusts."""
        return grpc.ssl_channel_credentials(self.bundle_pem, self.key_pem, self.chain_pem)

    def server_configuration(self) -> grpc.ServerCertificateConfiguration:
        """Give what a server shows and trusts."""
        return grpc.ssl_server_certificate_configuration([(self.key_pem, self.chain_pem)], self.bundle_pem)


def new_key() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """Make a P-256 key and a certificate request (PKCS#10, DER) that says nothing but its public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return key, request.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def tls_peer(auth_context: Mapping[str, Iterable[bytes]], identity: Identity, now_ms: int) -> Peer:
    """Say whom TLS proved to be there; raise ``PeerError`` unless it is a member of our trust domain now.

    TLS asks for the certificate once; a connection that stays open past its end proves nothing any more.
    """
    uris = list(auth_context.get("peer_uri", ()))
    names = list(auth_context.get("x509_common_name", ()))
    if len(uris) != 1 or len(names) != 1:
        raise PeerError(Cause.WRONG_PEER, "certificate is not an SVID of this mesh")
    if any(now_ms > _ends_ms(pem) + SKEW_MS for pem in auth_context.get("x509_pem_cert", (b"",))):
        raise PeerError(Cause.WRONG_PEER, "its certificate has ended since it connected")
    return _peer(uris[0], names[0], identity.domain)


@lru_cache(4096)
def _ends_ms(pem: bytes) -> float:
    # Without one nothing was proved, and it ended long ago.
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp() * 1000 if pem else -math.inf


@lru_cache(4096)
def _peer(uri: bytes, name: bytes, domain: TrustDomain) -> Peer:
    # The same few peers at every call. Only what a CA of ours has signed gets here.
    try:
        peer = Identity.parse(uri.decode())
        instance = InstanceId.parse(name.decode())
    except ValueError as error:
        raise PeerError(Cause.WRONG_PEER, str(error)) from None
    if peer.domain != domain:
        raise PeerError(Cause.WRONG_PEER, f"of trust domain {peer.domain}")
    return Peer(peer.service, instance)
