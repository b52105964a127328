"""Which service a call is made to, where a policy splits the calls to one among several.

The first share whose headers all match takes the call, else one by weight. A share of a service that cannot
take calls, for it is not to be known here or has no instance, is as if it were not there, so that its weight
falls to the others; where nothing is left the call goes where it was meant to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate

from mesh.core.metadata import Entries
from mesh.core.patterns import value_matches
from mesh.core.rules import HeaderRule
from mesh.core.traffic import Share


def destination(
    split: Iterable[Share], entries: Entries, takes: Callable[[str], bool], draw: Callable[[int], int]
) -> str | None:
    """Give the name of the service that takes a call, ``None`` for the one it was meant for.

    ``takes`` says of a name whether that service can take calls; ``draw`` gives a number from 0 to below the
    one it is given.
    """
    shares = [share for share in split if takes(share.service)]
    for share in shares:
        if share.headers and all(has(header, entries) for header in share.headers):
            return share.service
    return _weighed([share for share in shares if not share.headers], draw)


def has(header: HeaderRule, entries: Entries) -> bool:
    """Whether metadata has entries of a key, all of them matching: as for an allow rule."""
    values = [
        value_matches(value if isinstance(value, str) else value.decode("latin-1"), header.values)
        for key, value in entries
        if key == header.key
    ]
    return bool(values) and all(values)


def _weighed(shares: list[Share], draw: Callable[[int], int]) -> str | None:
    total = sum(share.weight for share in shares)
    drawn = draw(total) if total else 0
    ends = accumulate(share.weight for share in shares)
    return next((share.service for share, end in zip(shares, ends, strict=True) if drawn < end), None)
