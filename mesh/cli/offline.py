"""The data directory of an auth that does not run, opened by a command to work on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mesh.cli.errors import CliError, Exit

if TYPE_CHECKING:
    from services.auth.directory import DataDirectory


@contextmanager
def opened(data: Path) -> Iterator[tuple[DataDirectory, int]]:
    """Open it, with its logs ready to be written, and give the time; end with ``CliError`` if that fails."""
    # services is there only where auth is to run.
    from services.auth.directory import DataDirectory  # noqa: PLC0415
    from services.auth.errors import AuthError, StartError  # noqa: PLC0415

    try:
        with DataDirectory(data) as directory:
            now_ms = max(
                directory.store.logs.newest_ms(), directory.store.marked_ms(), time.time_ns() // 1_000_000
            )
            directory.store.logs.recover(now_ms)
            yield directory, now_ms
    except StartError as error:
        raise CliError(str(error), Exit.DATA) from None
    except AuthError as error:
        raise CliError(str(error), Exit.REFUSED) from None
