"""Reading much at once without Python's search for cycles in between.

A large policy is some hundred thousand objects and no cycle. While they are made, Python looks for cycles
again and again, each time through all that the process holds: that takes longer than the reading. What was
made is searched like everything else afterwards.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Let nothing look for cycles for the length of the block; for moments only."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
