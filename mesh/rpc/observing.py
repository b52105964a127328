"""Who watches calls: the one seam between ``mesh.rpc`` and telemetry.

An ``Observer`` is told of each call once when it begins and once when it ends, on either side, and may
give it other metadata to carry: the trace that it belongs to. It never raises and never waits, and nothing
hangs on what it does. Messages do not pass here.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

from mesh.core.errors import Denied, PeerError
from mesh.core.metadata import Entries
from mesh.core.names import FullMethod, ServiceName
from mesh.core.receiver import Admitted
from mesh.core.seal import CallSeal
from mesh.rpc.status import Outcome


class Serving(Protocol):
    """A call from another node, from its admission to its end."""

    entries: Entries
    """The metadata that the application sees."""

    def __enter__(self) -> Self:
        """Begin to work on it, in the task that does."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, however it ended."""

    def refused(self, why: Denied | PeerError, call_id: str) -> None:
        """Take note that the mesh refused it, and of the id that the caller was given."""

    def ended(self, outcome: Outcome) -> None:
        """Take note of what the caller is told."""


class Calling(Protocol):
    """A call to another node, from the application's making it to its outcome."""

    entries: Entries
    """The metadata to send."""

    def attempt(self, address: str, sealed: bytes, seal: CallSeal, *, hedge: bool = False) -> None:
        """Take note of where it is sent, of the sealed header (``mesh-call-bin``), and of its seal.

        ``hedge``: it is made beside another one that may yet be answered.
        """

    def disturbed(self, fault: str) -> None:
        """Take note that policy does this to it on purpose: ``delay`` or ``abort``."""

    def refused(self, why: PeerError, call_id: str) -> None:
        """Take note that the reply was not believed, and of the id that the application is given."""

    def ended(self, outcome: Outcome) -> None:
        """Take note of what the application is told. The first time counts."""


class Observer(Protocol):
    """Watches the calls of one node."""

    def serving(self, admitted: Admitted, peer: Callable[[], str], *, known: bool) -> Serving:
        """Begin with a call; ``peer`` gives whence, as gRPC writes it; ``known``: there is a handler."""

    def rejected(self, why: PeerError, method: str, peer: Callable[[], str], call_id: str) -> None:
        """Take note of a call that was not believed: nothing in it is anybody's word."""

    def calling(self, destination: ServiceName, method: FullMethod, entries: Entries) -> Calling:
        """Begin with a call that the application makes."""

    def passed_over(self, endpoints: int) -> None:
        """Take note of instances that a call did not go to because they could not be reached."""

    def ejected(self, destination: ServiceName) -> None:
        """Take note of an instance that is left out because it failed."""

    def overloaded(self, destination: ServiceName) -> None:
        """Take note of a call that was not made, because too many are open."""

    def limited(self, source: str) -> None:
        """Take note of a call that was not served, because its caller makes too many."""


class Tap(Protocol):
    """Looks at single calls to one node, for as long as somebody wants to see them."""

    def ended(self, admitted: Admitted, outcome: Outcome, seconds: float) -> None:
        """Take note of a call that was judged and has ended, and after how long."""

    def rejected(self, why: PeerError, method: str, call_id: str) -> None:
        """Take note of a call that was not believed."""


class _Unwatched:
    """A call that nobody watches, on either side."""

    __slots__ = ("entries",)

    def __init__(self, entries: Entries) -> None:
        self.entries = entries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def refused(self, why: Denied | PeerError, call_id: str) -> None:
        pass

    def attempt(self, address: str, sealed: bytes, seal: CallSeal, *, hedge: bool = False) -> None:
        pass

    def disturbed(self, fault: str) -> None:
        pass

    def ended(self, outcome: Outcome) -> None:
        pass


class _Nobody:
    def serving(self, admitted: Admitted, _peer: Callable[[], str], *, known: bool) -> Serving:  # noqa: ARG002
        return _Unwatched(admitted.metadata)

    def rejected(self, _why: PeerError, _method: str, _peer: Callable[[], str], _call_id: str) -> None:
        pass

    def calling(self, _destination: ServiceName, _method: FullMethod, entries: Entries) -> Calling:
        return _Unwatched(entries)

    def passed_over(self, endpoints: int) -> None:
        pass

    def ejected(self, destination: ServiceName) -> None:
        pass

    def overloaded(self, destination: ServiceName) -> None:
        pass

    def limited(self, source: str) -> None:
        pass


NOBODY: Final[Observer] = _Nobody()
