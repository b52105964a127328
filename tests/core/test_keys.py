"""Keys: derivation against RFC vectors and a second implementation, and what a key never does."""

import copy
import hashlib
import hmac
import pickle

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.keys import Key, destination_key, expand, join_keys, lp, pair_key, session_keys
from mesh.core.names import InstanceId, ServiceName, TrustDomain

SECRET = bytes(range(32))
A, B = InstanceId(b"a" * 16), InstanceId(b"b" * 16)

# RFC 5869 appendix A.1 to A.3, from the PRK on: what comes before it is HKDF-Extract, which is not used.
RFC_5869 = [
    (
        "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
        "f0f1f2f3f4f5f6f7f8f9",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
        bytes(range(0xB0, 0x100)).hex(),
        (
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
        ),
    ),
    (
        "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
        "",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


@pytest.mark.parametrize(("prk", "info", "okm"), RFC_5869)
def test_expand_as_rfc_5869(prk: str, info: str, okm: str) -> None:
    """Expand gives what the RFC's vectors say."""
    expected = bytes.fromhex(okm)
    assert expand(Key(bytes.fromhex(prk)), bytes.fromhex(info), len(expected)) == expected


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.integers(1, 8160))
def test_expand_as_another_implementation(raw: bytes, info: bytes, length: int) -> None:
    """Expand gives, at every length, what another implementation of the RFC gives."""
    assert expand(Key(raw), info, length) == HKDFExpand(SHA256(), length, info).derive(raw)


@pytest.mark.parametrize("length", [-1, 0, 8161])
def test_expand_refuses_lengths(length: int) -> None:
    """Expand refuses to give nothing, or more than the RFC's 255 blocks."""
    with pytest.raises(ValueError, match="bad length"):
        expand(Key(SECRET), b"", length)


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_mac_is_hmac_sha256(parts: list[bytes]) -> None:
    """A mac over parts is HMAC-SHA256 over all of them, and verifies."""
    key, expected = Key(SECRET), hmac.new(SECRET, b"".join(parts), hashlib.sha256).digest()
    assert key.mac(*parts) == expected
    assert key.verify(expected, *parts)


@pytest.mark.parametrize("bit", range(256))
def test_mac_with_any_bit_changed(bit: int) -> None:
    """A mac with any one bit changed does not verify."""
    mac = bytearray(Key(SECRET).mac(b"data"))
    mac[bit // 8] ^= 1 << bit % 8
    assert not Key(SECRET).verify(bytes(mac), b"data")


@pytest.mark.parametrize("mac", [b"", b"\0" * 31, b"\0" * 33])
def test_mac_of_another_length(mac: bytes) -> None:
    """A mac of another length does not verify, and is no error either."""
    assert not Key(SECRET).verify(mac, b"data")


@given(st.binary(max_size=50), st.binary(max_size=50), st.binary(max_size=50), st.binary(max_size=50))
def test_length_prefix_is_injective(a: bytes, b: bytes, c: bytes, d: bytes) -> None:
    """Two pairs of prefixed strings are the same bytes only if they are the same pair."""
    assert (lp(a) + lp(b) == lp(c) + lp(d)) == ((a, b) == (c, d))


def test_derivation_separates() -> None:
    """Any change of root, domain, destination, source, instance or direction gives another key."""
    other = Key(b"o" * 32)
    domain, dst, src = TrustDomain("d"), ServiceName("dst"), ServiceName("src")
    d = destination_key(Key(SECRET), domain, dst)
    p = pair_key(d, src)
    keys = [
        Key(SECRET),
        d,
        destination_key(other, domain, dst),
        destination_key(Key(SECRET), TrustDomain("e"), dst),
        destination_key(Key(SECRET), domain, src),
        p,
        pair_key(d, dst),
        *session_keys(p, A, B),
        *session_keys(p, B, A),
        *session_keys(p, A, A),
        *join_keys(Key(SECRET)),
    ]
    assert len({key.reveal() for key in keys}) == len(keys)


def test_derivation_does_not_slide() -> None:
    """A boundary between domain and destination that is moved gives another key."""
    left = destination_key(Key(SECRET), TrustDomain("a.b"), ServiceName("c"))
    assert left != destination_key(Key(SECRET), TrustDomain("a"), ServiceName("b.c"))


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_key_of_another_length(length: int) -> None:
    """Only 32 bytes make a key, and the error does not repeat them."""
    with pytest.raises(ValueError, match="bad key") as caught:
        Key(b"s" * length)
    assert "ss" not in str(caught.value)


def test_key_hides_itself() -> None:
    """A key shows in no repr, text or format."""
    key = Key(SECRET)
    assert f"{key} {key!r} {[key]}" == "Key(...) Key(...) [Key(...)]"


def test_key_is_not_copied_out() -> None:
    """A key can be neither pickled, nor copied, nor hashed."""
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy, hash):
        with pytest.raises(TypeError):
            attempt(Key(SECRET))


def test_key_compares_by_value() -> None:
    """Keys are equal if their bytes are, and never equal to the bytes themselves."""
    assert Key(SECRET) == Key(SECRET)
    assert Key(SECRET) != Key(b"o" * 32)
    assert Key(SECRET) != SECRET


def test_key_keeps_its_own_bytes() -> None:
    """A buffer that the caller goes on to change does not change the key."""
    raw = bytearray(SECRET)
    key = Key(raw)  # type: ignore[arg-type]
    raw[0] ^= 1
    assert key == Key(SECRET)
