"""Attacks from between orders and payments, by one who holds the TLS keys of both.

Each is one row: an honest call, what is done to it on its way, who notices, and how. Nothing in it depends on
TLS, so it is the seal that stops it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc

from examples.shop.demo import tricks, victims
from examples.shop.demo.attack import BOOKED, NOTHING, UNBOOKED, Attack, Reached, Seen, Stop, seen
from examples.shop.demo.forgery import forged_refusal, in_another_name, speak
from examples.shop.demo.tap import End, Frames, Recording, Tamper
from mesh.core import wire as wire_format
from mesh.core.errors import Cause, Reason
from mesh.core.metadata import CALL, END

if TYPE_CHECKING:
    from examples.shop.demo.stage import Stage

_C = grpc.StatusCode
_HOUR = 3600.0


def wire(
    name: str,
    victim: Callable[[Stage], Awaitable[Any]],
    tamper: Tamper,
    stop: Stop,
    reached: Reached = NOTHING,
) -> Attack:
    """Make an attack of one honest call that is tampered with."""

    async def run(stage: Stage) -> Seen:
        with stage.tap.tampering(tamper):
            return await seen(victim(stage))

    return Attack(name, run, stop, reached)


#: What payments' node tells its operator of a call, and what orders' node tells of a reply.
_SEEN_BEFORE = Stop("payments", Cause.REPLAYED, "its sequence number was seen before")
_BAD_MAC = Stop("payments", Cause.BAD_MAC, "the header's mac does not verify")
_BAD_METADATA = Stop("payments", Cause.BAD_METADATA, "metadata is not what was sealed")
_BAD_METHOD = Stop("payments", Cause.BAD_METHOD, "another method was sealed")
_BAD_DEADLINE = Stop("payments", Cause.BAD_DEADLINE, "another deadline was sealed")
_NO_SEAL = Stop("payments", Cause.MALFORMED, "no seal")
_BAD_FRAME = Stop("payments", Cause.BAD_FRAME, "the frame's mac does not verify")
_NO_END = Stop("payments", Cause.CUT_SHORT, "no sealed end")
_BAD_REPLY = Stop("orders", Cause.BAD_FRAME, "the frame's mac does not verify")
_BAD_END = Stop("orders", Reason.UNSEALED, "the end is not what was sealed")
_BAD_INITIAL = Stop("orders", Cause.BAD_METADATA, "metadata is not what was sealed")
_NO_PROOF = Stop("orders", Reason.STALE_PEER, "no proof of that, so not made again")


async def _recorded(stage: Stage, victim: Awaitable[Any]) -> Recording:
    await victim
    return stage.tap.recorded[-1]


async def send_again(stage: Stage) -> Seen:
    """Record a charge that was made, and make it again, byte for byte, straight at payments."""
    said = await _recorded(stage, victims.charge(stage))
    return await speak(stage.payments_at, stage.payments.membership, stage.orders.membership.svid, said)


async def frames_of_another(stage: Stage) -> Seen:
    """Put the frames of a charge of 10.00 under the header of one of 1 cent."""
    said = await _recorded(stage, victims.charge(stage, 1000))
    with stage.tap.tampering(Tamper(requests=tricks.put(said.requests))):
        return await seen(victims.charge(stage, 1))


async def reply_of_another(stage: Stage) -> Seen:
    """Answer a quote with the whole reply, its sealed end too, that an earlier and cheaper one got."""
    said = await _recorded(stage, victims.quote(stage, 1))
    end = said.end
    assert end is not None
    splice = Tamper(initial=lambda _: said.initial, replies=tricks.put(said.replies), end=lambda _: end)
    with stage.tap.tampering(splice):
        return await seen(victims.quote(stage, 99_000))


async def pretend_it_was_refused(stage: Stage) -> Seen:
    """Deliver a charge, then tell the caller it was not, so that the caller's mesh makes it again."""
    refusal = forged_refusal(stage.payments.membership)

    def lie(end: End) -> End:
        return replace(end, code=_C.UNAVAILABLE, details="peer restarted", trailing=refusal)

    swallow = Tamper(replies=tricks.keep(0), end=lie)
    with stage.tap.tampering(swallow):
        return await seen(victims.charge(stage))


def forge_the_end(frames: Frames) -> Frames:
    """Swallow all but two frames, and set the end flag in the second."""
    return tricks.change_frame(1, tricks.set_flags(wire_format.END))(tricks.keep(2)(frames))


REQUESTS = (
    Attack("a captured call sent again", send_again, _SEEN_BEFORE, BOOKED),
    wire(
        "a bit of a request turned over",
        victims.charge,
        Tamper(requests=tricks.change_frame(0, tricks.flip_payload)),
        _BAD_FRAME,
    ),
    wire(
        "a bit of a header turned over",
        victims.charge,
        Tamper(metadata=tricks.change_entry(CALL, tricks.flip)),
        _BAD_MAC,
    ),
    wire(
        "the header made to say another service",
        victims.charge,
        Tamper(metadata=tricks.change_entry(CALL, in_another_name("frontend"))),
        _BAD_MAC,
    ),
    wire(
        "an application's metadata changed",
        victims.charge,
        Tamper(metadata=tricks.change_entry("x-tenant", lambda _: b"evil")),
        _BAD_METADATA,
    ),
    wire(
        "metadata added",
        victims.charge,
        Tamper(metadata=tricks.add("x-limit", "none")),
        _BAD_METADATA,
    ),
    wire(
        "a quote led to the method that charges",
        victims.quote,
        Tamper(method=lambda method: method.replace("Quote", "Charge")),
        _BAD_METHOD,
    ),
    wire(
        "the deadline put off by an hour",
        victims.charge,
        Tamper(timeout=lambda _: _HOUR),
        _BAD_DEADLINE,
    ),
    wire(
        "the seal taken off",
        victims.charge,
        Tamper(metadata=tricks.without(CALL)),
        _NO_SEAL,
    ),
    Attack("one call's message put into another", frames_of_another, _BAD_FRAME, BOOKED),
    wire(
        "a frame of a stream dropped",
        victims.settle,
        Tamper(requests=tricks.drop(1)),
        _BAD_FRAME,
        UNBOOKED,
    ),
    wire(
        "two frames of a stream swapped",
        victims.settle,
        Tamper(requests=tricks.swap(0)),
        _BAD_FRAME,
        UNBOOKED,
    ),
    wire(
        "a frame of a stream sent twice",
        victims.settle,
        Tamper(requests=tricks.repeat(0)),
        _BAD_FRAME,
        UNBOOKED,
    ),
    wire(
        "a request stream cut short",
        victims.settle,
        Tamper(requests=tricks.keep(2)),
        _NO_END,
        UNBOOKED,
    ),
    wire(
        "a request stream cut short, its end forged",
        victims.settle,
        Tamper(requests=forge_the_end),
        _BAD_FRAME,
        UNBOOKED,
    ),
)

REPLIES = (
    wire(
        "a bit of a reply turned over",
        victims.charge,
        Tamper(replies=tricks.change_frame(0, tricks.flip_payload)),
        _BAD_REPLY,
        BOOKED,
    ),
    Attack("another call's reply given instead", reply_of_another, _BAD_REPLY, Reached(2, 0)),
    wire(
        "a frame of a reply dropped",
        victims.statement,
        Tamper(replies=tricks.drop(0)),
        _BAD_REPLY,
        UNBOOKED,
    ),
    wire(
        "two frames of a reply swapped",
        victims.statement,
        Tamper(replies=tricks.swap(0)),
        _BAD_REPLY,
        UNBOOKED,
    ),
    wire(
        "a reply cut short, its sealed end kept",
        victims.statement,
        Tamper(replies=tricks.keep(1)),
        _BAD_END,
        UNBOOKED,
    ),
    wire(
        "a reply cut short, ended with a bare OK",
        victims.statement,
        Tamper(replies=tricks.keep(1), end=tricks.trailing(tricks.without(END))),
        _BAD_END,
        UNBOOKED,
    ),
    wire(
        "an OK turned into an error",
        victims.charge,
        Tamper(end=tricks.say(_C.FAILED_PRECONDITION, "card declined")),
        _BAD_END,
        BOOKED,
    ),
    wire(
        "an error turned into an OK",
        victims.statement_of_nobody,
        Tamper(end=tricks.say(_C.OK)),
        _BAD_END,
        UNBOOKED,
    ),
    wire(
        "a reply's initial metadata changed",
        victims.charge,
        Tamper(initial=tricks.change_entry("x-currency", lambda _: b"USD")),
        _BAD_INITIAL,
        BOOKED,
    ),
    wire(
        "a reply's trailing metadata changed",
        victims.charge,
        Tamper(end=tricks.trailing(tricks.change_entry("x-receipt", lambda _: b"1"))),
        _BAD_END,
        BOOKED,
    ),
    Attack(
        "a made-up 'not delivered, make it again'",
        pretend_it_was_refused,
        _NO_PROOF,
        BOOKED,
    ),
)
