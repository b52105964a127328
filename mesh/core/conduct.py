"""What a listener puts up with: from one connection, and from one address.

    a connection  bytes without calls  STRANGE at once and CREEP more in each look, in LOOKS looks in a row in
                                       which no call of it was taken
    an address    refused calls        BURST at once, REFILL more a second; one for as long as it is shut out
                  is shut out          FIRST_OUT seconds, twice as long each time, at most LONGEST_OUT;
                                       forgotten after FORGOTTEN seconds of quiet
    a member's    refused calls        as much, of each connection by itself
                  is not shut out      for MEMBER seconds after a call of a member's came from it

Many stand behind one address: whoever is behind a member's cannot have the member shut out. A call that was
taken (sealed, known, permitted) has all the bytes it likes as long as it is open: how much of it waits is for
HTTP/2's flow control. So what is bounded is all that is sent and is no call: floods of frames, headers
without end, calls that are reset before they begin. Who looks, hangs up and shuts out is ``rpc.warden``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

#: Refused calls of an address at once, and how many more a second.
BURST: Final = 20.0
REFILL: Final = 5.0
#: Bytes of a connection without any call: a thousand calls that begin at once, on a machine too busy to take
#: the first of them for a while, are a few hundred KiB of headers; what they send waits for HTTP/2's windows.
STRANGE: Final = 1024 * 1024
CREEP: Final = 4096
LOOKS: Final = 3
FIRST_OUT: Final = 10.0
LONGEST_OUT: Final = 300.0
FORGOTTEN: Final = 900.0
#: As long as gRPC keeps a connection without calls: a member's that is open has had one lately.
MEMBER: Final = 900.0
#: Addresses that are kept account of; beyond that the one longest quiet is forgotten. Members' are counted
#: apart, so that no number of strangers has one of them forgotten.
ADDRESSES: Final = 512
MEMBERS: Final = 16_384


#: Fewer than these cannot be STRANGE bytes: what HPACK repeats is in a table of 4 KiB (RFC 7541 section 4).
FEW: Final = STRANGE // 4096


def swollen(metadata: Sequence[tuple[str, str | bytes]]) -> bool:
    """Say whether the metadata of one call is more than a connection may send without one."""
    return len(metadata) > FEW and sum(len(key) + len(value) for key, value in metadata) > STRANGE


class _Refused:
    __slots__ = ("_at", "_count")

    def __init__(self) -> None:
        self._at = self._count = 0.0

    def one_more(self, now: float) -> bool:
        self._count = max(0.0, self._count - (now - self._at) * REFILL) + 1
        self._at = now
        return self._count > BURST


class Line:
    """One connection, as far as its calls tell. ``gone``: it was hung up on."""

    __slots__ = ("_base", "_members", "_over", "_refused", "_taken", "gone", "open")

    def __init__(self) -> None:
        """Begin without a call."""
        self.open = self._base = self._over = 0
        self._taken = self._members = self.gone = False
        self._refused = _Refused()

    def begin(self) -> None:
        """Take a call of a member's."""
        self.open += 1
        self._taken = self._members = True

    def end(self) -> None:
        """Count a call out that was taken."""
        self.open -= 1

    def heard(self) -> None:
        """Take a call that is over at once, and that anybody may make: it says nothing of a member."""
        self._taken = True

    def refuse(self, now: float) -> bool:
        """Count a refused call; whether that was one too many of this connection."""
        return self._refused.one_more(now)

    def vouches(self) -> bool:
        """Say whether a call of a member's was taken since this was last asked."""
        vouching, self._members = self._members or self.open > 0, False
        return vouching

    def look(self, received: int) -> bool:
        """See how many bytes have come in all; whether that is too much for what was taken."""
        if self.open or self._taken:
            self._taken, self._base, self._over = False, received, 0
            return False
        self._base = min(received, self._base + CREEP)
        self._over = self._over + 1 if received - self._base > STRANGE else 0
        return self._over >= LOOKS


class _Address:
    __slots__ = ("at", "refused", "strikes", "until")

    def __init__(self, now: float) -> None:
        self.refused, self.strikes = _Refused(), 0
        self.at = self.until = now

    def out(self, now: float) -> bool:
        return self.strikes > 0 and now < self.until


class Addresses:
    """Who was refused and struck off lately, and who is shut out now. Times are a monotonic clock's."""

    def __init__(self, always: frozenset[str] = frozenset()) -> None:
        """Begin with nobody. ``always``: addresses behind which members stand, whoever called."""
        self._always = always
        self._found: OrderedDict[str, _Address] = OrderedDict()
        self._members: OrderedDict[str, float] = OrderedDict()

    def vouch(self, name: str, now: float) -> None:
        """Take note of a member's call. Whatever was held against the address is forgotten."""
        self._members[name] = now
        self._members.move_to_end(name)
        self._found.pop(name, None)
        if len(self._members) > MEMBERS:
            self._members.popitem(last=False)

    def members(self, name: str, now: float) -> bool:
        """Say whether a member stands behind an address."""
        return name in self._always or now - self._members.get(name, -math.inf) < MEMBER

    def refuse(self, name: str, line: Line, now: float) -> bool:
        """Count a refused call of a connection; whether that was one too many."""
        much = line.refuse(now)
        if self.members(name, now):
            return much
        found = self._kept(name, now)
        found.at = now
        return found.refused.one_more(now) or found.out(now)

    def strike(self, name: str, now: float) -> bool:
        """Shut an address out for a while, unless it is a member's; whether it is out.

        While it is out, nothing more is counted against it.
        """
        if self.members(name, now):
            return False
        found = self._kept(name, now)
        if not found.out(now):
            found.until = now + min(LONGEST_OUT, FIRST_OUT * 2.0 ** min(found.strikes, 16))
            found.strikes += 1
        return True

    def out(self, now: float) -> frozenset[str]:
        """Give those who are shut out."""
        return frozenset(name for name, one in self._found.items() if one.out(now))

    def _kept(self, name: str, now: float) -> _Address:
        found = self._found.get(name)
        if found is None or now > max(found.at, found.until) + FORGOTTEN:
            found = self._found[name] = _Address(now)
        self._found.move_to_end(name)
        if len(self._found) > ADDRESSES:
            self._found.popitem(last=False)
        return found
