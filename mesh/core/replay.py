"""The sliding window of sequence numbers (RFC 6479): each number passes once.

Numbers up to ``WINDOW`` behind the highest seen may arrive in any order. The bits live in a ring of words
one word larger than the window, so that moving on clears whole words and never shifts. The caller
authenticates first: this takes any number that it is given.
"""

from __future__ import annotations

from typing import Final

WINDOW: Final = 8192
MAX_SEQUENCE: Final = 2**63 - 1

_BITS: Final = 64
_WORDS: Final = WINDOW // _BITS + 1


class ReplayWindow:
    """Which of the sequence numbers 1 to 2^63 - 1 of one sender were seen."""

    __slots__ = ("_highest", "_ring")

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._highest = 0
        self._ring = [0] * _WORDS

    def accept(self, sequence: int) -> bool:
        """Mark a number as seen. False, and nothing changed, if it was seen, is too old or out of range."""
        if not 0 < sequence <= MAX_SEQUENCE or sequence + WINDOW <= self._highest:
            return False
        word, bit = divmod(sequence, _BITS)
        if sequence > self._highest:
            highest_word = self._highest // _BITS
            for passed in range(highest_word + 1, min(word, highest_word + _WORDS) + 1):
                self._ring[passed % _WORDS] = 0
            self._highest = sequence
        mask = 1 << bit
        if self._ring[word % _WORDS] & mask:
            return False
        self._ring[word % _WORDS] |= mask
        return True
