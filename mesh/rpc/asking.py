"""What a call asks before each of its steps that needs a key.

A node that has its keys asks nobody (``OwnKeys``); one whose keys auth keeps asks auth (``signer.KeptKeys``).
Both have the same steps, so that whoever seals or opens says what is next, and no more. What was answered is
there for one use (``core.signing.Answers``): nothing may wait between the answer and the step.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from mesh.rpc.signer import KeptKeys

    Asking: TypeAlias = "OwnKeys | KeptKeys"


class OwnKeys:
    """Every step may be done at once."""

    remote: Literal[False] = False
    """Whether auth is asked."""

    def read(self, raw: Any) -> Awaitable[Any]:
        """Give the next message of a request as it is there."""
        next_message: Awaitable[Any] = raw.read()
        return next_message

    async def _nothing(self, *_step: object, **_more: object) -> None:
        pass

    to_send = to_end = reply_seen = end_seen = _nothing
    request_seen = to_begin = to_reply = to_close = _nothing


OWN_KEYS: Final = OwnKeys()
