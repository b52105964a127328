"""The join handshake: how a short-lived secret turns into an identity in one round trip.

    node → auth   JoinRequest { body, HMAC(K_req, body) }
    auth → node   JoinResponse{ HPKE.seal(node key, bundle), HMAC(K_rep, lp(body) lp(sealed)) }

The secret is a key and never crosses the wire; the bundle can be read only by the holder of the ephemeral
HPKE key, so a token stolen later opens nothing recorded earlier. HPKE is RFC 9180 base mode with
ML-KEM-768 + X25519, HKDF-SHA256 and AES-256-GCM, from ``cryptography``.

Who has no token but somebody that vouches for him sends the secret along, see ``vouching``.

What this leaves to others: whether a token exists, is in time and unused, and what the bundle says (auth).
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from google.protobuf.message import DecodeError

from mesh.core.errors import Cause, PeerError
from mesh.core.keys import MAC_BYTES, Key, join_keys, lp
from mesh.v1 import auth_pb2

VERSION: Final = 1
NONCE_BYTES: Final = 16
MAX_BODY: Final = 8192
MAX_PROOF: Final = 7680
MAX_SEALED: Final = 4 * 1024 * 1024

_TOKEN = re.compile(r"mesh1\.([0-9a-f]{16})\.([A-Za-z0-9_-]{43})")
_INFO: Final = b"mesh/v1/join/bundle"
_MLKEM_PUBLIC: Final = 1184
_X25519_PUBLIC: Final = 32
_ANY_X25519: Final = X25519PrivateKey.from_private_bytes(bytes(_X25519_PUBLIC))
SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class JoinToken:
    """``mesh1.<id>.<secret>``: a public id of 16 hex digits and a secret of 32 bytes, base64url."""

    id: str
    secret: Key

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Read a token; raise ``ValueError``, without repeating any of it, if it is none."""
        match = _TOKEN.fullmatch(text.strip())
        if not match:
            msg = "not a join token: it looks like mesh1.<id>.<secret>; make one with mesh token create"
            raise ValueError(msg)
        # 43 digits and one of padding are 32 bytes, whatever the digits.
        return cls(match[1], Key(base64.urlsafe_b64decode(match[2] + "=")))

    @property
    def text(self) -> str:
        """The whole token, secret included, to be handed to its owner once."""
        secret = base64.urlsafe_b64encode(self.secret.reveal()).decode().rstrip("=")
        return f"mesh1.{self.id}.{secret}"


class JoinRequester:
    """The node's side: one request, and the opening of its answer."""

    def __init__(self, token: JoinToken, csr: bytes, nonce: bytes, *, remote_keys: bool = False) -> None:
        """Make an ephemeral HPKE key and the request. ``csr`` is DER, ``nonce`` 16 random bytes.

        ``remote_keys``: whether auth is to keep the node's keys.
        """
        self._request_key, self._reply_key = join_keys(token.secret)
        mlkem, x25519 = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
        self._private = MLKEM768X25519PrivateKey(mlkem, x25519)
        self._body = auth_pb2.JoinBody(
            version=VERSION,
            token_id=token.id,
            hpke_public_key=mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw(),
            csr=csr,
            nonce=nonce,
            remote_keys=remote_keys,
        ).SerializeToString(deterministic=True)

    def request(self) -> auth_pb2.JoinRequest:
        """Give the request; sending it again within the token's life gives the same identity."""
        return auth_pb2.JoinRequest(body=self._body, mac=self._request_key.mac(self._body))

    def open(self, response: auth_pb2.JoinResponse) -> auth_pb2.JoinBundle:
        """Verify and open the answer; raise ``PeerError`` for one that auth did not make for this request."""
        covered = lp(self._body) + lp(response.sealed_bundle)
        if len(response.mac) != MAC_BYTES or not self._reply_key.verify(response.mac, covered):
            raise PeerError(Cause.BAD_PROOF, "reply")
        try:
            opened = SUITE.decrypt(response.sealed_bundle, self._private, info=_info(self._body))
            return auth_pb2.JoinBundle.FromString(opened)
        except (InvalidTag, ValueError, DecodeError):
            raise PeerError(Cause.MALFORMED, "sealed bundle") from None


@dataclass(frozen=True, slots=True)
class JoinAsked:
    """A request within its bounds, not yet proven. ``digest`` tells a repeat from another request."""

    body: bytes
    mac: bytes
    token_id: str
    csr: bytes
    digest: bytes
    hpke: MLKEM768X25519PublicKey
    sealed_proof: bytes = b""
    remote_keys: bool = False

    def proven_by(self, secret: Key) -> bool:
        """Whether the sender holds the join secret."""
        return join_keys(secret)[0].verify(self.mac, self.body)

    def answer(self, secret: Key, bundle: auth_pb2.JoinBundle) -> auth_pb2.JoinResponse:
        """Seal a bundle for the sender of this request alone, and prove that it is the answer to it."""
        sealed = SUITE.encrypt(bundle.SerializeToString(), self.hpke, info=_info(self.body))
        mac = join_keys(secret)[1].mac(lp(self.body) + lp(sealed))
        return auth_pb2.JoinResponse(sealed_bundle=sealed, mac=mac)


def read_request(request: auth_pb2.JoinRequest) -> JoinAsked:
    """Check bounds and grammar of a request; raise ``PeerError``."""
    too_large = len(request.body) > MAX_BODY or len(request.sealed_proof) > MAX_PROOF
    if too_large or len(request.mac) != MAC_BYTES:
        raise PeerError(Cause.TOO_LARGE, "join request")
    body = auth_pb2.JoinBody()
    try:
        body.ParseFromString(request.body)
    except (DecodeError, ValueError):
        # ValueError: protobuf in pure Python says so of text that is not UTF-8.
        raise PeerError(Cause.MALFORMED, "join request") from None
    # Unknown fields would be encoded again just as they came.
    body.DiscardUnknownFields()
    if body.SerializeToString(deterministic=True) != request.body:
        raise PeerError(Cause.MALFORMED, "not the canonical encoding")
    if body.version != VERSION:
        raise PeerError(Cause.BAD_VERSION, str(body.version))
    if len(body.nonce) != NONCE_BYTES or not re.fullmatch(r"[0-9a-f]{16}", body.token_id):
        raise PeerError(Cause.MALFORMED, "nonce or token id")
    return JoinAsked(
        request.body,
        request.mac,
        body.token_id,
        body.csr,
        hashlib.sha256(request.body).digest(),
        read_hpke_key(body.hpke_public_key),
        request.sealed_proof,
        body.remote_keys,
    )


def read_hpke_key(raw: bytes) -> MLKEM768X25519PublicKey:
    """Read a public HPKE key, 1184 bytes of ML-KEM and 32 of X25519; raise ``PeerError``."""
    if len(raw) != _MLKEM_PUBLIC + _X25519_PUBLIC:
        raise PeerError(Cause.MALFORMED, "hpke key length")
    try:
        mlkem = MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC])
        x25519 = X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC:])
        # A point of low order gives no secret with any key (RFC 7748 section 6.1): found out here, before a
        # token is used up, and not when the answer is sealed.
        _ANY_X25519.exchange(x25519)
        return MLKEM768X25519PublicKey(mlkem, x25519)
    except ValueError:
        raise PeerError(Cause.MALFORMED, "hpke key") from None


def _info(body: bytes) -> bytes:
    return _INFO + hashlib.sha256(body).digest()
