"""What a node holds at the moment: who it is, its keys and certificate, the time, and who may call it.

It is filled by ``mesh.enrol`` (or, for auth, by auth itself) and read by channels and servers. It holds no
connection. Nothing is permitted until somebody sets ``authorize``.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from mesh.core.epochs import Epoch
from mesh.core.errors import Cause, Denied
from mesh.core.keys import Key, Withheld
from mesh.core.matcher import Permit
from mesh.core.metadata import Entries
from mesh.core.names import Identity, InstanceId, KeyEpoch, ServiceName, TrustDomain
from mesh.core.receiver import Admitted, Receiver
from mesh.core.revoked import Revoked
from mesh.core.sender import Sender
from mesh.rpc.observing import NOBODY, Observer, Tap
from mesh.rpc.status import Outcome
from mesh.rpc.svid import Svid
from mesh.v1 import auth_pb2

if TYPE_CHECKING:
    from mesh.rpc.signer import Signer

log = logging.getLogger("mesh")


def since_boot() -> float:
    """Give the seconds since some moment, those asleep included where the system tells them."""
    # monotonic(7): Linux leaves suspended time out of CLOCK_MONOTONIC alone.
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class Clock:
    """Auth's clock, as far as this node can tell: set at joining and renewing, from the boot in between."""

    def __init__(self, now_ms: int | None = None) -> None:
        """Follow auth's time, or (auth itself) the machine's."""
        self._offset_ms = 0.0
        self.set(now_ms if now_ms is not None else int(time.time() * 1000))

    def set(self, now_ms: int) -> None:
        """Take over what auth just said."""
        self._offset_ms = now_ms - since_boot() * 1000

    def now_ms(self) -> int:
        """Milliseconds of Unix time by auth's clock."""
        return int(since_boot() * 1000 + self._offset_ms)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A call that was not believed or not permitted: what operators see and the caller does not."""

    id: str
    cause: Cause | str
    detail: str
    method: str
    peer: str
    rule: str = ""


RejectionObserver: TypeAlias = Callable[[Rejection], None]


async def nowhere() -> None:
    """Wait for nothing: what a node rejects is written to no audit log."""


def nobody_counts(_admitted: Admitted, _now_ms: int) -> None:
    """Let calls go uncounted."""


def nobody_times(_admitted: Admitted, _outcome: Outcome, _seconds: float) -> None:
    """Let calls go untimed."""


def unlimited(_source: str, _method: str) -> Outcome | None:
    """Take as many calls as come."""
    return None


def deny_all(source: str, method: str, _entries: Entries) -> Permit:
    """Judge of a node that has no slice."""
    raise Denied(source, method, None)


class Membership:
    """One instance's place in the mesh."""

    def __init__(self, identity: Identity, instance: InstanceId, svid: Svid, clock: Clock) -> None:
        """Start with keys for nothing and permits for nobody."""
        self.identity, self.instance, self.clock = identity, instance, clock
        self._svid = svid
        self._rolled: list[Callable[[], None]] = []
        self.sender = Sender(identity.service, instance)
        self.receiver = Receiver(identity.service, instance)
        self.authorize: Callable[[str, str, Entries], Permit] = deny_all
        self.decided: Callable[[Admitted, int], None] = nobody_counts
        """Told of each call that was judged, and when, in Unix milliseconds (``mesh.decisions``)."""
        self.ended: Callable[[Admitted, Outcome, float], None] = nobody_times
        """Told of each call that was judged, once it has ended, and after how many seconds."""
        self.tap: Tap | None = None
        """Who looks at calls as they end, while an operator does (``mesh.taps``)."""
        self.limited: Callable[[str, str], Outcome | None] = unlimited
        """Asked of each call that has a permit, by source and method: what it ends with if it is too many."""
        self.standing: Callable[[Permit], float] = lambda _permit: math.inf
        """Until when, by ``now``, a permit of ``authorize`` needs no judging again."""
        self.now: Callable[[], float] = time.monotonic
        """Seconds that never run backwards."""
        self.policy_key = b""
        self.signer: Signer | None = None
        """Seals and verifies where auth keeps the keys, but for calls to the mesh's own services."""
        self.observer: Observer = NOBODY
        """Who watches its calls (``mesh.telemetry``)."""
        self._observers: list[RejectionObserver] = []
        self.written: Callable[[], Awaitable[None]] = nowhere
        """Waits, within bounds, until what was rejected so far is in the audit log (``mesh.reports``)."""

    @property
    def name(self) -> ServiceName:
        """The service name."""
        return self.identity.service

    @property
    def svid(self) -> Svid:
        """The certificate in force, with its key."""
        return self._svid

    @svid.setter
    def svid(self, svid: Svid) -> None:
        self._svid = svid
        for rolled in self._rolled:
            rolled()

    def revoke(self, revoked: Revoked) -> None:
        """Deal with revoked instances no more, in neither direction. Calls in progress are the server's."""
        self.receiver.revoke(revoked)
        self.sender.revoke(revoked)

    def on_svid(self, rolled: Callable[[], None]) -> None:
        """Call ``rolled`` whenever the certificate was replaced, in the event loop that did it."""
        self._rolled.append(rolled)

    def on_rejected(self, observer: RejectionObserver) -> None:
        """Call ``observer`` with every call that this node rejects or denies."""
        self._observers.append(observer)

    def rejected(
        self, cause: Cause | str, detail: str, method: str, peer: str, call_id: str = "", rule: str = ""
    ) -> str:
        """Tell log and observers the truth; give the id that the caller may have."""
        rejection = Rejection(call_id or secrets.token_hex(8), cause, detail, method, peer, rule)
        log.warning(
            "call rejected: id=%s cause=%r detail=%r method=%r peer=%s",
            rejection.id,
            str(cause),
            detail[:200],
            method[:200],
            peer,
        )
        for observer in self._observers:
            observer(rejection)
        return rejection.id


def epoch_of(epoch: auth_pb2.Epoch) -> Epoch:
    """Read an epoch from auth; raise ``ValueError`` if its number is out of range."""
    return Epoch(KeyEpoch(epoch.number), epoch.begins_ms, epoch.ends_ms, epoch.accepted_until_ms)


def learn_credentials(membership: Membership, credentials: auth_pb2.Credentials) -> None:
    """Take over the clock and the destination keys of joined or renewed credentials; forget what is over."""
    membership.clock.set(credentials.now_ms)
    membership.policy_key = credentials.policy_key
    for held in credentials.destination_keys:
        key = Withheld() if credentials.remote_keys else Key(held.key)
        membership.receiver.learn(epoch_of(held.epoch), key)
    membership.receiver.expire(credentials.now_ms)


def learn_pair_keys(membership: Membership, keys: Iterable[auth_pb2.PairKey], now_ms: int) -> None:
    """Take over pair keys, and forget those that are over."""
    for held in keys:
        membership.sender.learn(ServiceName(held.destination), epoch_of(held.epoch), Key(held.key))
    membership.sender.expire(now_ms)


def identity_of(credentials: auth_pb2.Credentials) -> Identity:
    """Read who auth says that this node is."""
    return Identity(TrustDomain(credentials.trust_domain), ServiceName(credentials.service))
