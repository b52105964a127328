"""The webhook's certificate, where no cert-manager makes it: a CA of its own and one certificate by it.

The API server trusts the CA through the webhook's ``caBundle``. Each renewal makes both anew, and the CA
before stays in the bundle until the next, for replicas change over one after the other. Pure but for chance.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE: Final = dt.timedelta(days=90)
#: What is left of a certificate's life when it is renewed.
RENEW_BEFORE: Final = dt.timedelta(days=30)
_SKEW: Final = dt.timedelta(minutes=5)
_PEM: Final = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class Certificate:
    """Certificate, key, and the CAs that the API server has to trust, newest first; all PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    authorities: bytes

    def due(self, name: str, now: dt.datetime) -> bool:
        """Whether it has to be made anew: for another name, at its end, or in parts that do not fit."""
        try:
            leaf = x509.load_pem_x509_certificate(self.chain)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            key = serialization.load_pem_private_key(self.key, None)
            leaf.verify_directly_issued_by(x509.load_pem_x509_certificates(self.authorities)[0])
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
            return True
        is_one = key.public_key() == leaf.public_key() and name in names.get_values_for_type(x509.DNSName)
        return not is_one or leaf.not_valid_after_utc - now < RENEW_BEFORE


def renewed(name: str, now: dt.datetime, before: Certificate | None = None) -> Certificate:
    """Make a CA and a certificate by it for a DNS name; the CA before it stays trusted."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sealmesh-injector-ca")])
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certify=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        _builder(x509.Name([]), ca_name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certify=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    private = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Certificate(leaf.public_bytes(_PEM), private, ca.public_bytes(_PEM) + _newest(before))


def _newest(before: Certificate | None) -> bytes:
    try:
        found = x509.load_pem_x509_certificates(before.authorities) if before else []
    except ValueError:
        return b""
    return found[0].public_bytes(_PEM) if found else b""


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + LIFE)
    )


def _usage(*, certify: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certify,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certify,
        crl_sign=certify,
        encipher_only=False,
        decipher_only=False,
    )
