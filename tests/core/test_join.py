"""The join handshake under attack: nothing but the true exchange gives an identity."""

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core import join
from mesh.core.errors import Cause, PeerError
from mesh.core.join import MAX_BODY, JoinRequester, JoinToken, read_request
from mesh.core.keys import Key, join_keys, lp
from mesh.v1 import auth_pb2

SECRET = Key(bytes(range(200, 232)))
TOKEN = JoinToken("0123456789abcdef", SECRET)
OTHER = JoinToken("0123456789abcdef", Key(b"o" * 32))
CSR, NONCE = b"certificate request", b"n" * 16
BUNDLE = auth_pb2.JoinBundle(auth_address="auth:7701")
REQUESTER = JoinRequester(TOKEN, CSR, NONCE)
REQUEST = REQUESTER.request()
RESPONSE = read_request(REQUEST).answer(SECRET, BUNDLE)


def flips(data: bytes, step: int = 1) -> Iterator[bytes]:
    """Give strings that differ from ``data`` in one bit: all, or one of every ``step``."""
    for bit in range(0, len(data) * 8, step):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def proven(request: auth_pb2.JoinRequest, secret: Key = SECRET) -> bool:
    """Do as auth does: read, then verify."""
    try:
        return read_request(request).proven_by(secret)
    except PeerError:
        return False


def opens(response: auth_pb2.JoinResponse, requester: JoinRequester = REQUESTER) -> bool:
    try:
        requester.open(response)
    except PeerError:
        return False
    return True


def body(**changes: object) -> bytes:
    """Give the good body with some fields changed."""
    made = auth_pb2.JoinBody.FromString(REQUEST.body)
    for name, value in changes.items():
        setattr(made, name, value)
    return made.SerializeToString(deterministic=True)


def signed(changed: bytes, token: JoinToken = TOKEN) -> auth_pb2.JoinRequest:
    """Prove a body with a token's secret, as its holder could."""
    return auth_pb2.JoinRequest(body=changed, mac=join_keys(token.secret)[0].mac(changed))


def cause_of(request: auth_pb2.JoinRequest) -> Cause:
    with pytest.raises(PeerError) as caught:
        read_request(request)
    return caught.value.cause


# The exchange


def test_exchange() -> None:
    """Request and answer give the node its bundle."""
    asked = read_request(REQUEST)
    assert asked.proven_by(SECRET)
    assert (asked.token_id, asked.csr) == (TOKEN.id, CSR)
    assert asked.digest == hashlib.sha256(REQUEST.body).digest()
    assert REQUESTER.open(RESPONSE) == BUNDLE


def test_repeat_is_the_same_request() -> None:
    """The same request sent again has the same digest, and either of two answers to it opens."""
    again = read_request(REQUESTER.request())
    assert again.digest == read_request(REQUEST).digest
    second = again.answer(SECRET, BUNDLE)
    assert second != RESPONSE
    assert opens(second)
    assert opens(RESPONSE)


def test_another_request_is_another() -> None:
    """A second request with the same token, CSR and nonce is told apart, for its key is fresh."""
    other = JoinRequester(TOKEN, CSR, NONCE)
    assert read_request(other.request()).digest != read_request(REQUEST).digest
    assert not opens(RESPONSE, other)


def test_secret_never_crosses() -> None:
    """Neither message holds the secret or a key made from it, in bytes or in base64."""
    wire = REQUEST.SerializeToString() + RESPONSE.SerializeToString()
    for secret in (SECRET, *join_keys(SECRET)):
        assert secret.reveal() not in wire
    assert TOKEN.text.rpartition(".")[2].encode() not in wire


def test_bundle_is_not_readable() -> None:
    """What the bundle says does not show in the answer."""
    assert BUNDLE.auth_address.encode() not in RESPONSE.SerializeToString()


# The request under attack


def test_request_with_any_bit_changed() -> None:
    """A request with any bit of body or mac changed proves nothing."""
    assert proven(REQUEST)
    for mac in flips(REQUEST.mac):
        assert not proven(auth_pb2.JoinRequest(body=REQUEST.body, mac=mac))
    # Every byte of the body, one bit each: 1,300 key checks are enough.
    for number, changed in enumerate(flips(REQUEST.body, 8)):
        with_bit = bytearray(changed)
        with_bit[number] = REQUEST.body[number] ^ 1 << number % 8
        assert not proven(auth_pb2.JoinRequest(body=bytes(with_bit), mac=REQUEST.mac))


def test_request_with_wrong_secret() -> None:
    """A request made with another secret for the same token id is not proven."""
    assert not proven(JoinRequester(OTHER, CSR, NONCE).request())
    assert not proven(REQUEST, OTHER.secret)


def test_reply_key_proves_no_request() -> None:
    """The key that proves answers does not prove requests."""
    mac = join_keys(SECRET)[1].mac(REQUEST.body)
    assert not proven(auth_pb2.JoinRequest(body=REQUEST.body, mac=mac))


def test_request_bounds() -> None:
    """An oversized body, or a mac of another length, is refused unread."""
    assert cause_of(signed(b"\xff" * (MAX_BODY + 1))) is Cause.TOO_LARGE
    assert cause_of(signed(b"\xff" * MAX_BODY)) is Cause.MALFORMED
    for mac in (b"", b"m" * 31, b"m" * 33):
        assert cause_of(auth_pb2.JoinRequest(body=REQUEST.body, mac=mac)) is Cause.TOO_LARGE


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"version": 0}, Cause.BAD_VERSION),
        ({"version": 2}, Cause.BAD_VERSION),
        ({"token_id": ""}, Cause.MALFORMED),
        ({"token_id": "0123456789ABCDEF"}, Cause.MALFORMED),
        ({"token_id": "0123456789abcdef\n"}, Cause.MALFORMED),
        ({"token_id": "0123456789abcde"}, Cause.MALFORMED),
        ({"token_id": "' or 1=1 --     "}, Cause.MALFORMED),
        ({"token_id": "\u0661" * 16}, Cause.MALFORMED),
        ({"nonce": b""}, Cause.MALFORMED),
        ({"nonce": b"n" * 15}, Cause.MALFORMED),
        ({"nonce": b"n" * 17}, Cause.MALFORMED),
        ({"hpke_public_key": b""}, Cause.MALFORMED),
        ({"hpke_public_key": b"\0" * 1215}, Cause.MALFORMED),
        ({"hpke_public_key": b"\0" * 1217}, Cause.MALFORMED),
        ({"hpke_public_key": b"\xff" * 1216}, Cause.MALFORMED),
    ],
)
def test_request_fields(changes: dict[str, object], cause: Cause) -> None:
    """A body outside its grammar is refused, even from a holder of the secret."""
    assert cause_of(signed(body(**changes))) is cause


# RFC 7748 section 6.1 and https://cr.yp.to/ecdh.html: points that give zero with every key.
LOW_ORDER = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]


@pytest.mark.parametrize("point", LOW_ORDER, ids=range(len(LOW_ORDER)))
def test_request_with_a_point_of_low_order(point: bytes) -> None:
    """A public key that no answer can be sealed to is found out before a token is used up for it."""
    raw = auth_pb2.JoinBody.FromString(REQUEST.body).hpke_public_key
    assert cause_of(signed(body(hpke_public_key=raw[:-32] + point))) is Cause.MALFORMED


def test_any_accepted_key_can_be_answered() -> None:
    """An all-zero ML-KEM key is a key, if a useless one; sealing to it does not fail."""
    raw = auth_pb2.JoinBody.FromString(REQUEST.body).hpke_public_key
    asked = read_request(signed(body(hpke_public_key=bytes(1184) + raw[-32:])))
    assert asked.answer(SECRET, BUNDLE).sealed_bundle


@pytest.mark.parametrize("tail", [b"\0", b"\x7a\0", b"\x7a\1x", b"\x08\1", b"\x2a\0", b"\xf8\x7f\1"])
def test_request_is_canonical(tail: bytes) -> None:
    """Nothing can be appended to a body, not even an unknown field: one request, one digest."""
    assert cause_of(signed(REQUEST.body + tail)) is Cause.MALFORMED


@pytest.mark.parametrize("text", [b"\xff", b"\xed\xa0\x80"])
def test_request_that_is_not_utf_8(text: bytes) -> None:
    """A token id that is not UTF-8 is malformed, whatever protobuf makes of it."""
    assert cause_of(signed(b"\x08\1\x12" + bytes([len(text)]) + text)) is Cause.MALFORMED


@given(st.binary(max_size=200), st.binary(min_size=32, max_size=32))
def test_garbage(data: bytes, mac: bytes) -> None:
    """Random bytes give a ``PeerError``, in front of the good body and behind it too."""
    for made in (data, REQUEST.body[: len(data)] + data, data + REQUEST.body):
        request = auth_pb2.JoinRequest(body=made, mac=mac)
        assert made == REQUEST.body or isinstance(cause_of(request), Cause)


# The answer under attack


def test_answer_with_any_bit_changed() -> None:
    """An answer with any bit of mac or ciphertext changed opens nothing."""
    assert opens(RESPONSE)
    for mac in (*flips(RESPONSE.mac), b"", RESPONSE.mac[:31], RESPONSE.mac + b"\0"):
        assert not opens(auth_pb2.JoinResponse(sealed_bundle=RESPONSE.sealed_bundle, mac=mac))
    for sealed in flips(RESPONSE.sealed_bundle):
        assert not opens(auth_pb2.JoinResponse(sealed_bundle=sealed, mac=RESPONSE.mac))


def test_answer_tampered_by_a_holder_of_the_secret() -> None:
    """Even with a right mac, a changed ciphertext does not open: the seal is HPKE's as well."""
    for sealed in (*flips(RESPONSE.sealed_bundle, 97), b"", b"x", RESPONSE.sealed_bundle[:-1], bytes(1136)):
        mac = join_keys(SECRET)[1].mac(lp(REQUEST.body) + lp(sealed))
        with pytest.raises(PeerError) as caught:
            REQUESTER.open(auth_pb2.JoinResponse(sealed_bundle=sealed, mac=mac))
        assert caught.value.cause is Cause.MALFORMED


def test_answer_of_another_secret() -> None:
    """An answer by somebody who has the request but not the secret is not believed."""
    with pytest.raises(PeerError) as caught:
        REQUESTER.open(read_request(REQUEST).answer(OTHER.secret, BUNDLE))
    assert caught.value.cause is Cause.BAD_PROOF


def test_answer_to_another_request() -> None:
    """An answer to another request with the same token is not believed, nor can it be opened."""
    other = JoinRequester(TOKEN, CSR, NONCE)
    answer = read_request(other.request()).answer(SECRET, BUNDLE)
    assert not opens(answer)
    covered = lp(REQUEST.body) + lp(answer.sealed_bundle)
    answer.mac = join_keys(SECRET)[1].mac(covered)
    with pytest.raises(PeerError) as caught:
        REQUESTER.open(answer)
    assert caught.value.cause is Cause.MALFORMED


def test_answer_is_bound_to_its_request() -> None:
    """A ciphertext for this node's key, made for another body, does not open."""
    asked = read_request(signed(body(nonce=b"m" * 16)))
    answer = asked.answer(SECRET, BUNDLE)
    answer.mac = join_keys(SECRET)[1].mac(lp(REQUEST.body) + lp(answer.sealed_bundle))
    assert not opens(answer)


def test_request_mac_is_no_answer() -> None:
    """A request sent back is no answer, nor is one proven by the key for requests."""
    assert not opens(auth_pb2.JoinResponse(sealed_bundle=REQUEST.body, mac=REQUEST.mac))
    mac = join_keys(SECRET)[0].mac(lp(REQUEST.body) + lp(RESPONSE.sealed_bundle))
    assert not opens(auth_pb2.JoinResponse(sealed_bundle=RESPONSE.sealed_bundle, mac=mac))


def test_bundle_that_is_none() -> None:
    """A bundle that is properly sealed but is no bundle gives a ``PeerError``."""
    asked = read_request(REQUEST)
    sealed = join.SUITE.encrypt(b"\xff\xff", asked.hpke, info=join._info(REQUEST.body))
    mac = join_keys(SECRET)[1].mac(lp(REQUEST.body) + lp(sealed))
    with pytest.raises(PeerError) as caught:
        REQUESTER.open(auth_pb2.JoinResponse(sealed_bundle=sealed, mac=mac))
    assert caught.value.cause is Cause.MALFORMED


# The token


@given(st.binary(min_size=32, max_size=32), st.from_regex(r"[0-9a-f]{16}", fullmatch=True))
def test_token_there_and_back(secret: bytes, ident: str) -> None:
    """Every token reads as it was written, with the line's end that a file gives it."""
    token = JoinToken(ident, Key(secret))
    assert JoinToken.parse(token.text) == JoinToken.parse(f" {token.text}\n") == token


BAD_TOKENS = {
    "empty": "",
    "no version": TOKEN.text.removeprefix("mesh1."),
    "other version": TOKEN.text.replace("mesh1", "mesh2"),
    "upper case": TOKEN.text.replace("mesh1", "Mesh1"),
    "upper case id": TOKEN.text.replace("abcdef", "ABCDEF"),
    "short id": TOKEN.text.replace("abcdef", "abcde"),
    "short secret": TOKEN.text[:-1],
    "long secret": TOKEN.text + "A",
    "padded secret": TOKEN.text + "=",
    "plus in the secret": TOKEN.text[:-1] + "+",
    "blank inside": TOKEN.text.replace(".", ". "),
    "two tokens": f"{TOKEN.text}\n{TOKEN.text}",
    "NUL": TOKEN.text + "\0",
    "other digits": TOKEN.text.replace("0", "\u0660"),
    "four parts": TOKEN.text + ".x",
}


@pytest.mark.parametrize("text", BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_bad_token(text: str) -> None:
    """A token outside the grammar is refused, and the error says nothing of what it was."""
    with pytest.raises(ValueError, match=r"^not a join token") as caught:
        JoinToken.parse(text)
    assert TOKEN.text.rpartition(".")[2][:20] not in str(caught.value)
    assert caught.value.__context__ is None


def test_secret_does_not_show() -> None:
    """Neither token nor requester nor request as read shows the secret when printed."""
    printed = f"{TOKEN} {TOKEN!r} {REQUESTER!r} {read_request(REQUEST)!r}"
    assert TOKEN.text.rpartition(".")[2] not in printed
    assert repr(SECRET.reveal()) not in printed
    assert SECRET.reveal().hex() not in printed
    assert "Key(...)" in printed
