"""What a command shows on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.cli.command import TIMEOUT, command, environment


def on_terminal(*arguments: str | Path, columns: int = 80, status: int = 0) -> str:
    """Run a command whose output is a terminal of so many columns, and give all that it printed there."""
    mine, other = pty.openpty()
    env = environment(COLUMNS=str(columns), TERM="xterm")
    done = subprocess.Popen(command(*arguments), stdout=other, env=env, close_fds=True)
    os.close(other)
    said = b""
    with suppress(OSError):  # the end of a terminal
        while part := os.read(mine, 4096):
            said += part
    os.close(mine)
    assert done.wait(TIMEOUT) == status
    return said.decode().replace("\r\n", "\n")
