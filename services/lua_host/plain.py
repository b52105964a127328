"""Foreign text for a person's eyes: one line of what can be printed, and no longer than one reads."""

from __future__ import annotations

import re
from typing import Final

#: Characters that are shown; more is cut.
MAX_LINE: Final = 4096
#: What could make one line look like several, or a terminal do something.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Give a text as one line, its control characters spelt out, cut where it gets long."""
    shown = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text[: MAX_LINE + 1])
    return shown if len(text) <= MAX_LINE else shown + " …"
