"""The names that some patterns tell apart: callers by their principals, or methods by their paths.

Names are without number, but to a list of patterns all are alike that the same patterns match. One of each
kind is given: what is written out, and for each wildcard the others that it matches, written as the wildcard
itself. A prefix and a suffix meet where they match the same names: ``a.*`` and ``*.b`` in ``a.*.b``, which is
every such name but those that are written out (``a.b`` may be one, and is not the same); ``/p.S/*`` and
``*/M`` in ``/p.S/M`` alone. Longer patterns hold shorter ones, so two that meet are all that there is to it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from mesh.core.patterns import ANY

#: Between a prefix and a suffix, by what joins labels: a label that no pattern has, or nothing.
_BETWEEN: Final = {".": f"{ANY}.", "/": ""}


class Apart:
    """The names that patterns joined by ``.`` or ``/`` tell apart."""

    __slots__ = ("_begins", "_between", "_ends", "_exact", "names")

    def __init__(self, patterns: Collection[str], joint: str) -> None:
        """Sort patterns into what is written out, prefixes and suffixes."""
        self._begins = sorted(pattern for pattern in patterns if pattern.endswith(joint + ANY))
        self._ends = sorted(pattern for pattern in patterns if pattern.startswith(ANY + joint))
        self._exact = {*patterns}.difference(self._begins, self._ends, [ANY])
        self._between = _BETWEEN[joint]
        #: All but where two of them meet.
        self.names = (*sorted(self._exact), *self._begins, *self._ends, ANY)

    def meetings(self, of: Collection[str], most: int) -> tuple[list[str], list[str]]:
        """Give the names in which one of some patterns meets another, or else, too many, those patterns."""
        begins = [begin for begin in self._begins if begin in of]
        ends = [end for end in self._ends if end in of]
        others = [begin for begin in self._begins if begin not in of]
        if len(begins) * len(self._ends) + len(others) * len(ends) > most:
            return [], [*begins, *ends]
        pairs = [(begin, end) for begin in begins for end in self._ends]
        pairs += [(begin, end) for begin in others for end in ends]
        met = dict.fromkeys(begin[:-1] + self._between + end[2:] for begin, end in pairs)
        return [name for name in met if name not in self._exact], []
