"""A proof goes with one request, opens for auth alone, and tells nobody else anything."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import PeerError
from mesh.core.join import MAX_PROOF, SUITE, JoinAsked, JoinRequester, read_request
from mesh.core.keys import Key, expand, join_id
from mesh.core.vouching import MAX_TOKEN, PRIVATE_BYTES, JoinKey, Proof, read_join_key
from mesh.v1 import auth_pb2

KEY = JoinKey(bytes(range(PRIVATE_BYTES)))
OTHER = JoinKey(bytes(PRIVATE_BYTES))
SECRET = Key(bytes(range(100, 132)))
PROOF = Proof(SECRET, "header.payload.signature")


def requested(proof: Proof = PROOF, key: JoinKey = KEY) -> auth_pb2.JoinRequest:
    """Ask as a node does."""
    request = JoinRequester(proof.join_token, b"csr", bytes(16)).request()
    request.sealed_proof = proof.seal(read_join_key(key.text), request.body)
    return request


REQUEST = requested()


def opens(request: auth_pb2.JoinRequest, key: JoinKey = KEY) -> bool:
    try:
        key.open(read_request(request))
    except PeerError:
        return False
    return True


def sealed(body: bytes, message: bytes, label: bytes = b"mesh/v1/join/proof") -> bytes:
    """Seal anything for auth, as anybody can."""
    return SUITE.encrypt(message, read_join_key(KEY.text), info=label + hashlib.sha256(body).digest())


def test_a_proof_opens() -> None:
    """Auth gets the secret and the token, and the secret proves the request."""
    found = KEY.open(read_request(REQUEST))
    assert (found.secret.reveal(), found.token) == (SECRET.reveal(), PROOF.token)
    assert read_request(REQUEST).token_id == found.join_token.id == join_id(SECRET)
    assert read_request(REQUEST).proven_by(found.secret)


def test_the_id_is_derived_from_the_secret() -> None:
    """By a label of its own, so that it tells nothing of the keys."""
    assert join_id(SECRET) == expand(SECRET, b"mesh/v1/join/id")[:8].hex()


def test_neither_secret_nor_token_crosses_or_prints() -> None:
    """In the clear they are nowhere."""
    sent = REQUEST.SerializeToString()
    assert SECRET.reveal() not in sent
    assert PROOF.token.encode() not in sent
    assert PROOF.token not in repr(PROOF)
    assert "100" not in repr(PROOF)


def test_it_opens_for_its_own_key_alone() -> None:
    """A key of another trust domain sees nothing."""
    assert opens(REQUEST)
    assert not opens(REQUEST, OTHER)


def test_every_change_of_a_byte_is_seen() -> None:
    """Of the proof (one bit of every third byte) and of the mac."""
    for place in range(0, len(REQUEST.sealed_proof), 3):
        changed = bytearray(REQUEST.sealed_proof)
        changed[place] ^= 1
        assert not opens(
            auth_pb2.JoinRequest(body=REQUEST.body, mac=REQUEST.mac, sealed_proof=bytes(changed))
        )
    for place in range(len(REQUEST.mac)):
        mac = bytearray(REQUEST.mac)
        mac[place] ^= 1
        changed_mac = auth_pb2.JoinRequest(
            body=REQUEST.body, mac=bytes(mac), sealed_proof=REQUEST.sealed_proof
        )
        assert not opens(changed_mac)


def test_a_proof_goes_with_no_other_request() -> None:
    """Even of the same secret: whoever records one cannot use it for a key of his own."""
    other = requested()
    other.sealed_proof = REQUEST.sealed_proof
    assert not opens(other)


def test_another_secret_does_not_make_the_same_id() -> None:
    """A proof whose secret is not that of the id is refused, whatever its mac."""
    stranger = Proof(Key(b"s" * 32), "t")
    request = JoinRequester(PROOF.join_token, b"csr", bytes(16)).request()
    request.sealed_proof = stranger.seal(read_join_key(KEY.text), request.body)
    assert not opens(request)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        auth_pb2.JoinProof(secret=SECRET.reveal()).SerializeToString(),
        auth_pb2.JoinProof(secret=b"short", service_account_token="t").SerializeToString(),
    ],
)
def test_what_is_sealed_and_no_proof_is_refused(message: bytes) -> None:
    """Sealing takes no secret, so anything may be inside."""
    request = auth_pb2.JoinRequest(body=REQUEST.body, mac=REQUEST.mac)
    request.sealed_proof = sealed(request.body, message)
    assert not opens(request)


def test_a_proof_under_another_label_is_refused() -> None:
    """Each seal has one use."""
    message = auth_pb2.JoinProof(secret=SECRET.reveal(), service_account_token="t").SerializeToString()
    request = auth_pb2.JoinRequest(body=REQUEST.body, mac=REQUEST.mac)
    request.sealed_proof = sealed(request.body, message, b"mesh/v1/join/bundle")
    assert not opens(request)
    request.sealed_proof = sealed(request.body, message)
    assert opens(request)


@given(st.binary(max_size=2000))
def test_rubbish_is_the_peers_fault(rubbish: bytes) -> None:
    """Whatever comes, there is a value or the peer's error."""
    asked = read_request(REQUEST)
    with pytest.raises(PeerError):
        KEY.open(
            JoinAsked(asked.body, asked.mac, asked.token_id, asked.csr, asked.digest, asked.hpke, rubbish)
        )


@pytest.mark.parametrize("token", ["", "x" * (MAX_TOKEN + 1), "tökën"])
def test_what_is_no_token_is_not_sealed(token: str) -> None:
    """A node that was given a wrong file says so at once."""
    with pytest.raises(ValueError, match="not a token"):
        Proof(SECRET, token).seal(read_join_key(KEY.text), b"body")


def test_the_longest_token_fits() -> None:
    """Within the bound that auth has for a proof."""
    request = requested(Proof(SECRET, "x" * MAX_TOKEN))
    assert len(request.sealed_proof) <= MAX_PROOF
    assert opens(request)
    request.sealed_proof = bytes(MAX_PROOF + 1)
    with pytest.raises(PeerError, match="join request"):
        read_request(request)


def test_a_published_key_reads_back() -> None:
    """With the white space that files end in; anything else is told."""
    assert base64.b64decode(KEY.text) == KEY.public
    assert read_join_key(KEY.text + "\n") is not None
    for text in ("", "x", KEY.text[:-8], base64.b64encode(bytes(1216)).decode(), "ü"):
        with pytest.raises(ValueError, match="not a join key"):
            read_join_key(text)


def test_a_key_at_rest_has_one_length() -> None:
    """Any bytes of that length are one."""
    with pytest.raises(ValueError, match="bad join key: 5 bytes"):
        JoinKey(b"short")
