"""How many joins that are refused one source, or one token, may bring about. In memory, bounded.

    a source            SOURCE: what it may be refused in all
    a source at a token PAIR: what it may be refused with one token id
    a token             TOKEN: what may be refused with it from all sources together; beyond that a source is
                        heard about it once in ``CLEAN_SECONDS``

So nobody locks an owner out from elsewhere: a source that was not refused with a token lately is always
heard about it, however many others guess at it. From behind the same address it can be done, until the
guessing ends. A source is an IPv4 address or an IPv6 network of 64 bits. Every refusal counts, whatever its
reason, and ids that do not exist count like others: to be limited says nothing about a token. Where more
sources guess than are kept count of, the one longest quiet is forgotten: that bounds the memory, and 256 bits
are not guessed by then either.
"""

import ipaddress
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote


@dataclass(frozen=True, slots=True)
class Limit:
    """Refusals at once, and how many more per second."""

    burst: float
    per_second: float


SOURCE: Final = Limit(1000, 20)
PAIR: Final = Limit(250, 2)
TOKEN: Final = Limit(1000, 5)
#: How long a source has to leave a token alone that many guess at, to be heard about it again.
CLEAN_SECONDS: Final = 60.0
#: Sources, pairs and tokens that are kept count of, each.
CAPACITY: Final = 4096
_IPV6_NETWORK: Final = 64


class Guesses:
    """Counts refusals. Any thread may ask."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._sources, self._pairs, self._tokens = Debts(SOURCE), Debts(PAIR), Debts(TOKEN)
        self._lock = threading.Lock()

    def may_try(self, source: str, token_id: str, now: float) -> bool:
        """Whether a source is heard about a token at a time, in seconds of a monotonic clock."""
        pair = f"{token_id} {source}"
        with self._lock:
            if self._sources.is_over(source, now) or self._pairs.is_over(pair, now):
                return False
            return not self._tokens.is_over(token_id, now) or self._pairs.quiet(pair, now) >= CLEAN_SECONDS

    def refused(self, source: str, token_id: str, now: float) -> None:
        """Count a refusal."""
        with self._lock:
            self._sources.add(source, now)
            self._pairs.add(f"{token_id} {source}", now)
            self._tokens.add(token_id, now)


class Debts:
    """Of each, how much it owed when it was last added to, and when that was; the longest quiet first."""

    def __init__(self, limit: Limit) -> None:
        """Begin with nothing."""
        self._limit = limit
        self._owed: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def is_over(self, key: str, now: float) -> bool:
        """Whether one more would be too many."""
        return self._of(key, now) > self._limit.burst - 1

    def quiet(self, key: str, now: float) -> float:
        """For how long nothing was added."""
        return now - self._owed[key][1] if key in self._owed else float("inf")

    def add(self, key: str, now: float) -> None:
        """Add one."""
        _, at = self._owed.get(key, (0.0, now))
        self._owed[key] = self._of(key, now) + 1, max(at, now)
        self._owed.move_to_end(key)
        if len(self._owed) > CAPACITY:
            self._owed.popitem(last=False)

    def _of(self, key: str, now: float) -> float:
        owed, at = self._owed.get(key, (0.0, now))
        # Requests are judged in batches, in which the times at which they came may go back and forth.
        return max(0.0, owed - max(0.0, now - at) * self._limit.per_second)


def source_of(peer: str) -> str:
    """Give the source of a peer of gRPC's, like ``ipv4:192.0.2.1:4711`` or ``ipv6:%5B::1%5D:4711``."""
    host = unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "elsewhere"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), _IPV6_NETWORK), strict=False))
    return str(address)
