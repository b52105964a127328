"""``python -m mesh.cli.leash FD MODULE ARGUMENTS…``: runs a module for as long as its parent lives.

FD is the reading end of a pipe whose other end only the parent holds. When that end closes, however the
parent ended, this process gets SIGTERM, and SIGKILL if that does not end it in time. So a supervisor that is
killed leaves nothing running. A pipe works on every POSIX system and, unlike a parent-death signal, does not
depend on which of the parent's threads started the child.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from typing import Final

#: Seconds to drain in, once the parent is gone.
GRACE: Final = 10.0


def main() -> None:
    """Watch the pipe beside the module that the arguments name."""
    pipe, module = int(sys.argv[1]), sys.argv[2]
    threading.Thread(target=_watch, args=(pipe,), name="leash", daemon=True).start()
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _watch(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
