"""Joining on another's word: who is vouched for, as by Kubernetes, agrees on a join secret with auth.

    secret       32 random bytes, made by the node for this request
    token id     HKDF-Expand(secret, "mesh/v1/join/id"), the first 8 bytes in hex
    sealed proof HPKE.seal(auth's join key, JoinProof{secret, token}, info)
    info         "mesh/v1/join/proof" SHA-256(body)

HPKE is that of ``join``, and so is the handshake from here on: the secret proves the request and its reply.
The id comes from the secret, so nobody can take another's; the proof is sealed for one body, so it goes with
no other request; and only who has the join key's private half ever sees the token.

What this leaves to others: whether the token is true (auth asks who made it), and whom it makes its owner.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey
from google.protobuf.message import DecodeError

from mesh.core.errors import Cause, PeerError
from mesh.core.join import SUITE, JoinAsked, JoinToken, read_hpke_key
from mesh.core.keys import KEY_BYTES, Key, join_id
from mesh.v1 import auth_pb2

#: The longest token that is sealed, in characters: a service account's has about 1200.
MAX_TOKEN: Final = 6144
_INFO: Final = b"mesh/v1/join/proof"
_SEED_BYTES: Final = 64
#: A join key at rest: what ``JoinKey`` takes. Any such bytes are a key.
PRIVATE_BYTES: Final = _SEED_BYTES + 32


@dataclass(frozen=True, slots=True)
class Proof:
    """What a node sends sealed: the secret it chose, and the token that says who it is."""

    secret: Key
    token: str = field(repr=False)

    @property
    def join_token(self) -> JoinToken:
        """The join token that the secret makes."""
        return JoinToken(join_id(self.secret), self.secret)

    def seal(self, key: MLKEM768X25519PublicKey, body: bytes) -> bytes:
        """Seal it for auth, to go with one request's body; raise ``ValueError`` if the token is too long."""
        if not 0 < len(self.token) <= MAX_TOKEN or not self.token.isascii():
            msg = f"not a token: it has 1 to {MAX_TOKEN} characters of ASCII"
            raise ValueError(msg)
        proof = auth_pb2.JoinProof(secret=self.secret.reveal(), service_account_token=self.token)
        return SUITE.encrypt(proof.SerializeToString(), key, info=_info(body))


class JoinKey:
    """Auth's own: opens what nodes seal."""

    def __init__(self, raw: bytes) -> None:
        """Take the private key: the seed of ML-KEM (64 bytes) and that of X25519 (32); or ``ValueError``."""
        if len(raw) != PRIVATE_BYTES:
            msg = f"bad join key: {len(raw)} bytes, not {PRIVATE_BYTES}"
            raise ValueError(msg)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(raw[:_SEED_BYTES])
        x25519 = X25519PrivateKey.from_private_bytes(raw[_SEED_BYTES:])
        self._private = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    @property
    def text(self) -> str:
        """The public half, as it is published."""
        return base64.b64encode(self.public).decode()

    def open(self, asked: JoinAsked) -> Proof:
        """Open the proof of a request; raise ``PeerError`` unless it is this one's."""
        try:
            opened = SUITE.decrypt(asked.sealed_proof, self._private, info=_info(asked.body))
            found = auth_pb2.JoinProof.FromString(opened)
        except (InvalidTag, ValueError, DecodeError):
            raise PeerError(Cause.MALFORMED, "sealed proof") from None
        if len(found.secret) != KEY_BYTES or not found.service_account_token:
            raise PeerError(Cause.MALFORMED, "proof")
        proof = Proof(Key(found.secret), found.service_account_token)
        if proof.join_token.id != asked.token_id or not asked.proven_by(proof.secret):
            raise PeerError(Cause.BAD_PROOF, "secret")
        return proof


def read_join_key(text: str) -> MLKEM768X25519PublicKey:
    """Read a published join key; raise ``ValueError`` if it is none."""
    try:
        return read_hpke_key(base64.b64decode(text.strip(), validate=True))
    except (ValueError, PeerError):
        msg = "not a join key: take it from the ConfigMap that auth publishes"
        raise ValueError(msg) from None


def _info(body: bytes) -> bytes:
    return _INFO + hashlib.sha256(body).digest()
