"""How many files and connections a process may hold."""

from __future__ import annotations

import resource
from contextlib import suppress


def allow_many() -> None:
    """Raise this process's soft limit to its hard one.

    The soft limit is 1024 for the sake of programs that use ``select``: a server at that limit takes no more
    connections, and a thousand idle ones are easily made.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some systems allow less than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
