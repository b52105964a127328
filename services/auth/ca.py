"""The certificate authority: reads certificate requests, issues X.509-SVIDs.

A certificate says what auth's record says. Of a request it uses the public key alone, and only if the
request is signed with the private one. An SVID is what the SPIFFE X509-SVID standard and DESIGN section 3
ask for: ECDSA P-256, one URI SAN (the identity), one DNS SAN (``<name>.<trust-domain>``), the instance id in
hex as common name, ``digitalSignature`` alone, for TLS clients and servers, no CA.

The authority's own certificate is self-signed; no SVID outlives it. When it signs, and which comes after it,
is ``succession``'s; what is served to whom is ``admission``'s and ``authority``'s to decide.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.core.names import Identity, InstanceId, TrustDomain
from services.auth.errors import AuthError, InvalidError

CA_LIFE_MS: Final = 365 * 86_400_000
#: How far a verifier's clock may lag behind auth's before a fresh certificate looks unborn to it. It costs
#: nothing: a certificate over a new key gives no power over the past.
BACKDATE: Final = timedelta(minutes=5)
MAX_CSR: Final = 8192
ENDED: Final = "the CA certificate has ended"

_CURVE: Final = ec.SECP256R1
_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


class CertificateAuthority:
    """Signs certificates of one trust domain."""

    def __init__(self, certificate: bytes, private_key: bytes) -> None:
        """Take both as DER (the key as PKCS #8, empty of one that is to sign no more).

        Raises ``ValueError`` if they do not belong together.
        """
        self.certificate = certificate
        self._certificate = x509.load_der_x509_certificate(certificate)
        self._key = _private(private_key) if private_key else None
        public = self._certificate.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey) or (
            self._key and self._key.public_key() != public
        ):
            raise ValueError("CA certificate is not for the CA key")
        self.begins_ms, self.ends_ms = begins_ms(certificate), ends_ms(certificate)
        self._issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(public)

    @property
    def can_sign(self) -> bool:
        """Whether its private key is still there."""
        return self._key is not None

    @classmethod
    def create(cls, domain: TrustDomain, from_ms: int, life_ms: int = CA_LIFE_MS) -> tuple[Self, bytes]:
        """Make a new authority that signs from a time on; give it and its private key as PKCS #8."""
        key = ec.generate_private_key(_CURVE())
        serial = x509.random_serial_number()
        # Two authorities of one domain need different names, or verifiers may take one for the other.
        name = _name(f"Sealmesh CA {serial:x}"[:64])
        begins = _moment(from_ms).replace(microsecond=0)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .serial_number(serial)
            .public_key(key.public_key())
            .not_valid_before(begins - BACKDATE)
            .not_valid_after(begins + timedelta(milliseconds=life_ms))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_names(x509.UniformResourceIdentifier(f"spiffe://{domain}")), critical=False)
            .sign(key, hashes.SHA256())
        )
        private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return cls(certificate.public_bytes(Encoding.DER), private), private

    def issue(
        self,
        identity: Identity,
        instance: InstanceId,
        public_key: ec.EllipticCurvePublicKey,
        now_ms: int,
        life_ms: int,
    ) -> bytes:
        """Issue an SVID over a public key, as DER. It ends ``life_ms`` from now, to the second above.

        Raises ``AuthError`` once the authority's own certificate has ended, or its key is destroyed.
        """
        if self._key is None or now_ms >= self.ends_ms:
            raise AuthError(ENDED)
        now = _moment(now_ms)
        ends = now + timedelta(milliseconds=life_ms)
        if ends.microsecond:
            ends = ends.replace(microsecond=0) + timedelta(seconds=1)
        names = _names(x509.UniformResourceIdentifier(identity.uri), x509.DNSName(identity.dns))
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(str(instance)))
            .issuer_name(self._certificate.subject)
            .serial_number(x509.random_serial_number())
            .public_key(public_key)
            .not_valid_before(now - BACKDATE)
            .not_valid_after(min(ends, self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(names, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(self._issuer_id, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.DER)


def read_csr(der: bytes) -> ec.EllipticCurvePublicKey:
    """Give the public key of a certificate request, and nothing else that it says.

    Raises ``InvalidError`` unless the request is signed with its own key, on P-256.
    """
    if len(der) > MAX_CSR:
        raise InvalidError("certificate request is too large")
    try:
        request = x509.load_der_x509_csr(der)
        key, signed = request.public_key(), request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion):
        raise InvalidError("certificate request cannot be read: send PKCS #10, DER") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVE):
        raise InvalidError("certificate request is not over a P-256 key")
    if not signed:
        raise InvalidError("certificate request is not signed with its own key")
    return key


def ends_ms(certificate: bytes) -> int:
    """When a certificate (DER) ends, in milliseconds of Unix time."""
    return int(x509.load_der_x509_certificate(certificate).not_valid_after_utc.timestamp() * 1000)


def begins_ms(certificate: bytes) -> int:
    """When a certificate (DER) begins, but for what it is dated back."""
    begins = x509.load_der_x509_certificate(certificate).not_valid_before_utc + BACKDATE
    return int(begins.timestamp() * 1000)


def half_ms(certificate: bytes) -> int:
    """When half of the life of an SVID (DER) is over."""
    read = x509.load_der_x509_certificate(certificate)
    issued = read.not_valid_before_utc + BACKDATE
    return int((issued + (read.not_valid_after_utc - issued) / 2).timestamp() * 1000)


def _private(der: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_der_private_key(der, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("CA key is not an elliptic curve key")  # noqa: TRY004  a value from the store
    return key


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _names(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


def _usage(*used: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in used for usage in _USAGES})
