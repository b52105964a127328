"""The life of a join token, and what a proven request for one gets. Pure.

            expires                              swept, KEEP_MS after it expired
    open ──────────────▶ expired
     │ │  revoked
     │ └───────────────▶ revoked
     │  first proven request
     └─────────────────▶ used

The operator's credential is a token too, of its own kind: never used up, good for a year, each request a new
instance. A request is good once, and its repeats for as long as the certificate that it got: nobody gains by
recording one and sending it later. Whether a request is proven is ``core.join``'s; that only one is first is
the store's.
"""

from enum import Enum
from typing import Final

from mesh.core.names import GATEKEEPER, OPERATOR, ServiceName
from services.auth.errors import InvalidError
from services.auth.records import Kind, Token

DEFAULT_TTL_SECONDS: Final = 60
MAX_TTL_SECONDS: Final = 86_400
OPERATOR_LIFE_MS: Final = 365 * 86_400_000
#: A token is remembered for a day after it expired: its later use, though refused, still raises an alarm.
KEEP_MS: Final = 86_400_000


class State(Enum):
    """Where a token is in its life."""

    OPEN = "open"
    USED = "used"
    EXPIRED = "expired"
    REVOKED = "revoked"


class Verdict(Enum):
    """What a proven request for a token gets. All but the first two look the same from outside."""

    ISSUE = "a new instance"
    REPEAT = "the instance that it got before"
    ENDED = "refused: the certificate that this request got has ended"
    REUSED = "refused: another request used the token"
    EXPIRED = "refused: the token expired"
    REVOKED = "refused: the token was revoked"


def state(token: Token, now_ms: int) -> State:
    """Say where a token is in its life."""
    if token.revoked_ms is not None:
        return State.REVOKED
    if token.kind is not Kind.OPERATOR and token.used_ms is not None:
        return State.USED
    return State.EXPIRED if now_ms >= token.expires_ms else State.OPEN


def judge(token: Token, *, known: bool, alive: bool, now_ms: int) -> Verdict:
    """Say what a proven request gets.

    ``known``: whether this very request got an instance before; ``alive``: whether that one's certificate is
    still good.
    """
    now = state(token, now_ms)
    if now is State.REVOKED:
        return Verdict.REVOKED
    if now is State.USED and not known:
        return Verdict.REUSED
    if now_ms >= token.expires_ms:
        return Verdict.EXPIRED
    if known:
        return Verdict.REPEAT if alive else Verdict.ENDED
    return Verdict.ISSUE


def life_ms(ttl_seconds: int) -> int:
    """Give the life of a token in milliseconds, 0 being the default; raise ``InvalidError``."""
    if not 0 <= ttl_seconds <= MAX_TTL_SECONDS:
        raise InvalidError(f"bad ttl of {ttl_seconds} s: a token lives for 1 to {MAX_TTL_SECONDS} seconds")
    return (ttl_seconds or DEFAULT_TTL_SECONDS) * 1000


def joinable(service: str, *, remote_keys: bool = False) -> ServiceName:
    """Give the name of a service that tokens are made for; raise ``InvalidError`` for any other."""
    try:
        name = ServiceName(service)
    except ValueError as error:
        raise InvalidError(str(error)) from None
    if name.reserved and name != GATEKEEPER:
        instead = (
            "use the operator credential of the data directory" if name == OPERATOR else "choose another"
        )
        raise InvalidError(f"no tokens are made for {name}, a name of the mesh itself: {instead}")
    if name.reserved and remote_keys:
        raise InvalidError(f"{name} cannot leave its keys to auth: make a token without that")
    return name
