"""Calls to a node as they end, for operators who look on: those that are wanted, and only so many.

Gatekeeper says on a stream of ``Watch`` which calls are wanted there, and the heartbeats of that stream bear
them. While nobody looks, ``membership.tap`` is ``None`` and calls cost a look at that. Names, numbers and
times are told; metadata and messages do not pass here. What is over ``RATE`` is counted, and how many is
told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from time import monotonic
from typing import Final

from mesh.core.decided import said
from mesh.core.errors import Denied, PeerError
from mesh.core.receiver import Admitted
from mesh.rpc.membership import Membership
from mesh.rpc.status import Outcome, mesh_info
from mesh.v1 import tap_pb2

#: Calls that a node tells of in a second, and at once.
RATE: Final = 100.0
#: Seconds in which calls are gathered before they are sent; how many may wait; bytes of one heartbeat.
GATHER: Final = 0.2
WAITING: Final = 200
BYTES: Final = 32 * 1024
MAX_METHOD: Final = 512
REJECT: Final = "reject"


def takes(wanted: tap_pb2.TapFilter, call: tap_pb2.TappedCall) -> bool:
    """Whether a filter takes a call."""
    return (
        wanted.source in ("", call.source)
        and wanted.method in ("", call.method)
        and wanted.verdict in ("", call.verdict)
    )


class _Stream:
    """What one stream is to tell, and has not told yet."""

    def __init__(self, filters: Sequence[tap_pb2.TapFilter]) -> None:
        self.filters = filters
        self.calls: list[tap_pb2.TappedCall] = []
        self.untold = 0


class NodeTaps:
    """The taps on one node: ``mesh.rpc.observing.Tap``."""

    def __init__(self, membership: Membership, tell: Callable[[], None]) -> None:
        """Take the node, and what makes every stream send a heartbeat."""
        self._membership, self._tell = membership, tell
        self._streams: dict[Hashable, _Stream] = {}
        self._left, self._at = RATE, monotonic()
        self._due: asyncio.TimerHandle | None = None

    def order(self, stream: Hashable, orders: tap_pb2.TapOrders) -> None:
        """Tell on a stream what is ordered there, and nothing else any more."""
        self._streams.pop(stream, None)
        if orders.filters:
            self._streams[stream] = _Stream(list(orders.filters))
        self._membership.tap = self if self._streams else None

    def forget(self, stream: Hashable) -> None:
        """Tell nothing on a stream that has ended."""
        self.order(stream, tap_pb2.TapOrders())

    def take(self, stream: Hashable) -> tuple[list[tap_pb2.TappedCall], int]:
        """Take out what there is to tell on a stream, as much as fits, and how many more there were."""
        held = self._streams.get(stream)
        if held is None:
            return [], 0
        size = number = 0
        while number < len(held.calls) and size < BYTES:
            size += held.calls[number].ByteSize()
            number += 1
        taken, held.calls = held.calls[:number], held.calls[number:]
        untold, held.untold = held.untold, 0
        if held.calls:
            self._soon()
        return taken, untold

    def ended(self, admitted: Admitted, outcome: Outcome, seconds: float) -> None:
        """Tell of a call that has ended, if it is wanted."""
        header, judged = admitted.header, admitted.verdict
        verdict, rule = (REJECT, None) if isinstance(judged, PeerError) else said(judged)[:2]
        reason, call_id = ("", "") if outcome.ok else mesh_info(outcome.trailing)
        # Another id is that of a call that the application made, whose error it has passed on.
        refused = call_id == admitted.seal.id
        if refused and not isinstance(judged, (Denied, PeerError)):
            verdict, rule = "deny" if outcome.code.name == "PERMISSION_DENIED" else REJECT, None
        self._offer(
            tap_pb2.TappedCall(
                source=header.source.text,
                source_instance=header.source_instance.raw,
                method=header.method.text[:MAX_METHOD],
                verdict=verdict,
                rule=rule or "",
                reason=judged.cause if isinstance(judged, PeerError) else reason if refused else "",
                status=outcome.code.name,
                duration_us=int(seconds * 1e6),
                call_id=admitted.seal.id,
                key_epoch=header.epoch.number,
                sequence=header.sequence,
            )
        )

    def rejected(self, why: PeerError, method: str, call_id: str) -> None:
        """Tell of a call that was not believed, if such are wanted: whose it is nobody knows."""
        self._offer(
            tap_pb2.TappedCall(
                method=method[:MAX_METHOD], verdict=REJECT, reason=str(why.cause), call_id=call_id
            )
        )

    def _offer(self, call: tap_pb2.TappedCall) -> None:
        call.at_ms = self._membership.clock.now_ms()
        wanting = [
            one for one in self._streams.values() if any(takes(wanted, call) for wanted in one.filters)
        ]
        allowed = bool(wanting) and self._allowed()
        for stream in wanting:
            if allowed and len(stream.calls) < WAITING:
                stream.calls.append(call)
            else:
                stream.untold += 1
        if wanting:
            self._soon()

    def _allowed(self) -> bool:
        now = monotonic()
        self._left, self._at = min(RATE, self._left + (now - self._at) * RATE), now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def _soon(self) -> None:
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(GATHER, self._now)

    def _now(self) -> None:
        self._due = None
        self._tell()
