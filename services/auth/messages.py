"""Domain values as the messages of auth.proto."""

from typing import Final

from mesh.core.epochs import Epoch
from mesh.core.keys import Key
from mesh.core.names import ServiceName
from mesh.v1 import auth_pb2
from services.auth.records import Kind, PolicyNote, Token
from services.auth.tokens import State, state

_STATES: Final = {
    State.OPEN: auth_pb2.TOKEN_STATE_OPEN,
    State.USED: auth_pb2.TOKEN_STATE_USED,
    State.EXPIRED: auth_pb2.TOKEN_STATE_EXPIRED,
    State.REVOKED: auth_pb2.TOKEN_STATE_REVOKED,
}


def epoch(of: Epoch) -> auth_pb2.Epoch:
    """Give an epoch."""
    return auth_pb2.Epoch(
        number=of.number.number,
        begins_ms=of.begins_ms,
        ends_ms=of.ends_ms,
        accepted_until_ms=of.accepted_until_ms,
    )


def destination_key(of: Epoch, key: Key | None) -> auth_pb2.DestinationKey:
    """Give a destination key, to be handed over; or, for ``None``, that there is one."""
    return auth_pb2.DestinationKey(epoch=epoch(of), key=key.reveal() if key else b"")


def pair_key(destination: ServiceName, of: Epoch, key: Key) -> auth_pb2.PairKey:
    """Give a pair key, to be handed over."""
    return auth_pb2.PairKey(destination=destination.text, epoch=epoch(of), key=key.reveal())


def token(of: Token, now_ms: int) -> auth_pb2.TokenInfo:
    """Give what may be told of a token."""
    return auth_pb2.TokenInfo(
        id=of.id,
        service=of.service.text,
        state=_STATES[state(of, now_ms)],
        created_ms=of.created_ms,
        expires_ms=of.expires_ms,
        instance=of.instance.raw if of.instance else b"",
        remote_keys=of.kind is Kind.REMOTE,
    )


def policy(of: PolicyNote) -> auth_pb2.PolicyInfo:
    """Give what is listed of a policy."""
    return auth_pb2.PolicyInfo(
        version=of.version,
        applied_ms=of.applied_ms,
        instance=of.instance,
        size=of.size,
        restores=of.restores,
    )
