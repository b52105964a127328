"""Where a test has auth killed on its way through a join. Inert in every other process.

It is armed by ``MESH_TEST_KILL_AT=STEP*COUNT:DATA``, once, by ``arm`` at the start: auth then kills itself
with SIGKILL at the COUNTth time that it comes to STEP. Nothing else can be had from it. DATA is the data
directory of the test: an auth that serves another one and finds the variable does not start, so it cannot be
left on by accident.
"""

import logging
import os
import signal
from pathlib import Path
from typing import Final

from services.auth.errors import StartError

log = logging.getLogger("mesh.auth")

VARIABLE: Final = "MESH_TEST_KILL_AT"
#: Of a join, in this order. ``used`` comes once for each of a batch, the others once for all of it.
STEPS: Final = ("taken", "judged", "used", "logged", "written", "answered")

_left: dict[str, int] = {}


def arm(data: Path) -> None:
    """Do as the environment says, loudly; raise ``StartError`` if that is not about this data directory."""
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return
    what, _, where = asked.partition(":")
    step, _, count = what.partition("*")
    if step not in STEPS or not count.isdecimal() or not where or Path(where).resolve() != data.resolve():
        raise StartError(f"{VARIABLE} is set, which is for tests alone: unset it")
    log.warning("%s: THIS AUTH IS UNDER TEST AND KILLS ITSELF at the step %r of a join", VARIABLE, step)
    _left[step] = int(count)


def reach(step: str) -> None:
    """Be killed here, if a test says so."""
    if _left and step in _left:
        _left[step] -= 1
        if _left[step] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
