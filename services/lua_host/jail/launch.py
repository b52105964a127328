"""How the host starts a worker: the command, good for an empty environment and any working directory.

The worker's Python is this one, isolated (-I), without site (-S): its path is the standard library, then this
package's place, then lupa's. Neither can hide a module of the library.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_BOOT: Final = """\
import sys
sys.path += sys.argv[1:3]
from services.lua_host.jail.worker import main
main(*map(int, sys.argv[3:6]), jailed=sys.argv[6] == "jailed")
"""


def command(memory: int, message: int, *, jailed: bool) -> list[str]:
    """Give the arguments of a worker of this process; raise ``RuntimeError`` if lupa is missing.

    ``memory``, ``message``: bytes that its Lua and one message may take. To be started by a thread that lasts
    (its end ends the worker), with a socket as descriptor 0 and nothing in the environment.
    """
    options = ["-I", "-S", "-B", "-c", _BOOT]
    sizes = [str(memory), str(message), str(os.getpid())]
    return [sys.executable, *options, *roots(), *sizes, "jailed" if jailed else "unsafe"]


@cache
def roots() -> tuple[str, str]:
    """Give the directories that hold this package and lupa."""
    lupa = find_spec("lupa")
    if lupa is None or lupa.origin is None:
        raise RuntimeError('a Lua service needs lupa: pip install "sealmesh[lua]"')
    return str(Path(__file__).parents[3]), str(Path(lupa.origin).parents[1])
