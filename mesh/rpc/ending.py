"""How a call ends where it was served: what the handler said, sealed with all that was sent before it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from mesh.core.metadata import END, PUSHBACK, digest
from mesh.core.seal import CallSeal, End
from mesh.rpc.context import MeshContext
from mesh.rpc.status import CallFailedError, Outcome


def end_of(context: MeshContext, outcome: Outcome, count: int) -> End:
    """Give the end of a reply of so many messages, as its seal covers it."""
    # The text of an OK is not carried by gRPC.
    details = "" if outcome.ok else outcome.details.encode(errors="replace").decode()
    initial = context.initial_digest or digest(())
    return End(count, outcome.code.value[0], details, initial, digest(outcome.trailing))


async def end(raw: Any, seal: CallSeal, context: MeshContext, outcome: Outcome, count: int) -> None:
    """End a call of the transport; raise what gRPC ends it with, unless it is OK."""
    sealed = end_of(context, outcome, count)
    await _ask(context, sealed)
    if context.unanswered is not None:
        # Without auth, which keeps the keys, there is no seal.
        outcome = context.unanswered
        await raw.abort(outcome.code, outcome.details, outcome.trailing)
    pushed = tuple((PUSHBACK, value) for value in context.pushback)
    trailing = (*outcome.trailing, *pushed, (END, seal.seal_end(sealed)))
    if not outcome.ok:
        await raw.abort(outcome.code, sealed.message, trailing)
    raw.set_trailing_metadata(trailing)


async def _ask(context: MeshContext, sealed: End) -> None:
    if context.unanswered is None:
        with suppress(CallFailedError):
            await context.asked(context.asking.to_close(sealed))
