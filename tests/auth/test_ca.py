"""Certificates say what auth's record says, in the form that SPIFFE and DESIGN section 3 ask for."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.names import Identity, InstanceId, ServiceName
from services.auth.ca import BACKDATE, CA_LIFE_MS, CertificateAuthority, ends_ms, half_ms, read_csr
from services.auth.errors import AuthError, InvalidError
from tests.auth.world import DOMAIN, HOUR_MS, START_MS, Attempt, World, public_key

ORDERS = Identity(DOMAIN, ServiceName("team.orders"))
INSTANCE = InstanceId(bytes(range(16)))
START = datetime.fromtimestamp(START_MS / 1000, UTC)


@pytest.fixture(scope="module")
def ca() -> CertificateAuthority:
    """Make an authority."""
    return CertificateAuthority.create(DOMAIN, START_MS)[0]


def issue(ca: CertificateAuthority, now_ms: int = START_MS, life_ms: int = HOUR_MS) -> x509.Certificate:
    return x509.load_der_x509_certificate(ca.issue(ORDERS, INSTANCE, public_key(), now_ms, life_ms))


def csr(key: ec.EllipticCurvePrivateKey, name: str = "orders", *extensions: x509.ExtensionType) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_an_svid_is_as_designed(ca: CertificateAuthority) -> None:
    """One URI SAN, one DNS SAN, the instance as common name, digitalSignature alone, both TLS purposes."""
    svid = issue(ca)
    names = svid.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [
        x509.UniformResourceIdentifier("spiffe://shop.example/team.orders"),
        x509.DNSName("team.orders.shop.example"),
    ]
    assert [part.value for part in svid.subject] == [str(INSTANCE)]
    usage = svid.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    others = (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.key_agreement)
    assert not any(others)
    constraints = svid.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    purposes = svid.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    assert isinstance(svid.signature_hash_algorithm, hashes.SHA256)
    key = svid.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)


def test_the_ca_certificate_is_as_spiffe_asks(ca: CertificateAuthority) -> None:
    """A CA of depth nothing, for signing alone, named for its trust domain, good for a year."""
    root = x509.load_der_x509_certificate(ca.certificate)
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://shop.example")]
    assert root.not_valid_after_utc == START + timedelta(milliseconds=CA_LIFE_MS)
    root.verify_directly_issued_by(root)


def test_a_strict_verifier_takes_the_chain(ca: CertificateAuthority) -> None:
    """The chain passes a verifier by RFC 5280, for the DNS name and for a client."""
    root, svid = x509.load_der_x509_certificate(ca.certificate), issue(ca)
    svid.verify_directly_issued_by(root)
    verifier = PolicyBuilder().store(Store([root])).time(START)
    chain = verifier.build_server_verifier(x509.DNSName("team.orders.shop.example")).verify(svid, [])
    assert chain == [svid, root]
    assert verifier.build_client_verifier().verify(svid, []).chain == [svid, root]


def test_another_authority_of_the_same_domain_is_not_taken(ca: CertificateAuthority) -> None:
    """Two authorities of one domain have names of their own, and neither vouches for the other's SVIDs."""
    other = x509.load_der_x509_certificate(CertificateAuthority.create(DOMAIN, START_MS)[0].certificate)
    svid = issue(ca)
    assert other.subject != svid.issuer
    with pytest.raises(ValueError, match=r"[Ii]ssuer"):
        svid.verify_directly_issued_by(other)


@pytest.mark.parametrize(
    ("now_ms", "life_ms", "ends"),
    [(START_MS, HOUR_MS, 3600), (START_MS, 4000, 4), (START_MS + 1, 4000, 5), (START_MS + 999, 1, 1)],
)
def test_how_long_an_svid_lasts(ca: CertificateAuthority, now_ms: int, life_ms: int, ends: int) -> None:
    """It lasts as long as it is told, to the second above, and began a little while ago."""
    svid = issue(ca, now_ms, life_ms)
    assert svid.not_valid_before_utc == START - BACKDATE
    assert svid.not_valid_after_utc == START + timedelta(seconds=ends)


def test_no_svid_outlives_the_ca(ca: CertificateAuthority) -> None:
    """Near the end of the CA certificate, SVIDs end with it."""
    assert issue(ca, ca.ends_ms - 1000).not_valid_after_utc == START + timedelta(milliseconds=CA_LIFE_MS)


def test_an_ended_ca_issues_nothing(ca: CertificateAuthority) -> None:
    """Once the CA certificate has ended, nothing is issued, rather than something that nobody takes."""
    with pytest.raises(AuthError, match="has ended"):
        issue(ca, ca.ends_ms)


def test_its_half(ca: CertificateAuthority) -> None:
    """Half of its life counts from when it was issued, not from where it is backdated to."""
    svid = issue(ca).public_bytes(Encoding.DER)
    assert half_ms(svid) == START_MS + HOUR_MS // 2
    assert ends_ms(svid) == START_MS + HOUR_MS


def test_what_a_request_says_is_ignored(world: World) -> None:
    """A request with another's names, as a CA, gets a certificate that says what auth's record says."""
    key = ec.generate_private_key(ec.SECP256R1())
    lies = csr(
        key,
        "payments",
        x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier("spiffe://shop.example/payments"), x509.DNSName("evil.example")]
        ),
        x509.BasicConstraints(ca=True, path_length=None),
    )
    joined = Attempt(world.token("orders"), lies).send(world)
    svid = x509.load_der_x509_certificate(joined.credentials.certificate_chain[0])
    names = svid.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [
        x509.UniformResourceIdentifier("spiffe://shop.example/orders"),
        x509.DNSName("orders.shop.example"),
    ]
    assert [part.value for part in svid.subject] == [joined.credentials.instance.hex()]
    assert not svid.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert svid.public_key() == key.public_key()


def wrong_keys() -> dict[str, bytes]:
    subject = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return {
        "P-384": csr(ec.generate_private_key(ec.SECP384R1())),
        "secp256k1": csr(ec.generate_private_key(ec.SECP256K1())),
        "RSA": subject.sign(rsa.generate_private_key(65537, 2048), hashes.SHA256()).public_bytes(
            Encoding.DER
        ),
        "Ed25519": subject.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(Encoding.DER),
    }


WRONG_KEYS = wrong_keys()


@pytest.mark.parametrize("kind", WRONG_KEYS)
def test_other_kinds_of_keys_are_refused(kind: str) -> None:
    """Only keys on P-256 are certified."""
    with pytest.raises(InvalidError, match="P-256"):
        read_csr(WRONG_KEYS[kind])


def test_a_request_that_its_key_did_not_sign_is_refused() -> None:
    """Somebody else's public key cannot be certified: its owner signs the request."""
    request = bytearray(csr(ec.generate_private_key(ec.SECP256R1())))
    request[-1] ^= 1
    with pytest.raises(InvalidError, match="not signed with its own key"):
        read_csr(bytes(request))


def test_a_signature_by_another_key_is_refused() -> None:
    """A request over a victim's public key, signed by a thief, certifies nothing."""
    victim = csr(ec.generate_private_key(ec.SECP256R1()))
    theirs = x509.load_der_x509_csr(victim).signature
    ours = b""
    while len(ours) != len(theirs):  # DER makes some signatures a byte shorter
        ours = ec.generate_private_key(ec.SECP256R1()).sign(b"another request", ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidError, match="not signed with its own key"):
        read_csr(victim.replace(theirs, ours))


@pytest.mark.parametrize(
    "junk", [b"", b"\0", b"\x30\x80", b"x" * 8193, b"-----BEGIN CERTIFICATE REQUEST-----"]
)
def test_what_is_no_request_is_refused(junk: bytes) -> None:
    """Anything but PKCS #10 in DER is refused with one line."""
    with pytest.raises(InvalidError, match="certificate request"):
        read_csr(junk)


GOOD_CSR = csr(ec.generate_private_key(ec.SECP256R1()))


def reads_as(der: bytes) -> ec.EllipticCurvePublicKey | None:
    """Give the key that a request is read as, ``None`` if it is refused; anything else fails the test."""
    with suppress(InvalidError):
        return read_csr(der)
    return None


@pytest.mark.parametrize("bit", range(8))
def test_every_bit_counts(bit: int) -> None:
    """Whatever bit of a request is changed, it is refused, or at any rate no other key is certified.

    DER leaves one freedom: bits at the end of the signature that are zero may be declared unused.
    """
    good = read_csr(GOOD_CSR)
    for at in range(len(GOOD_CSR)):
        changed = bytearray(GOOD_CSR)
        changed[at] ^= 1 << bit
        assert reads_as(bytes(changed)) in (None, good), at


@given(st.lists(st.tuples(st.integers(0, len(GOOD_CSR) - 1), st.integers(0, 255)), min_size=1), st.binary())
def test_garbage_is_refused_as_such(changes: list[tuple[int, int]], tail: bytes) -> None:
    """A request that was written over is refused or what it was; one with something behind it is refused."""
    changed = bytearray(GOOD_CSR)
    for at, byte in changes:
        changed[at] = byte
    assert reads_as(bytes(changed)) in (None, read_csr(GOOD_CSR))
    assert reads_as(GOOD_CSR + tail) == (None if tail else read_csr(GOOD_CSR))


def test_a_certificate_for_another_key_is_no_ca() -> None:
    """A CA certificate that was put beside another's key is refused."""
    one, _ = CertificateAuthority.create(DOMAIN, START_MS)
    _, key = CertificateAuthority.create(DOMAIN, START_MS)
    with pytest.raises(ValueError, match="not for the CA key"):
        CertificateAuthority(one.certificate, key)
