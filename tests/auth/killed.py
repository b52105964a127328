"""What a kill leaves behind: a piece of work, killed with SIGKILL at every step at which it touches the disk.

Run as a script of its own: it forks, which a process with threads must not. A step is each call that opens,
syncs, renames, cuts or removes a file, and each statement and commit of the database; it is killed before and
after each.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from sqlalchemy import event
from sqlalchemy.engine import Engine

CALLS = ("open", "fsync", "fdatasync", "pwrite", "replace", "rename", "unlink", "truncate", "chmod", "link")


def at_every_step(path: Path, work: Callable[[Path], object], check: Callable[[Path], None]) -> int:
    """Do ``work`` on copies of a directory, killed one step later each time, and check what is left.

    Gives the number of kills. The last one is of work that ended by itself.
    """
    kills = 0
    while True:
        copy = path.with_name(f"{path.name}.{kills}")
        shutil.copytree(path, copy)
        status = _killed(copy, work, kills)
        assert status in (0, -signal.SIGKILL), f"step {kills}: {status}"
        check(copy)
        shutil.rmtree(copy)
        if status == 0:
            return kills
        kills += 1


def _killed(path: Path, work: Callable[[Path], object], step: int) -> int:
    child = os.fork()
    if child == 0:
        _child(path, work, step)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _child(path: Path, work: Callable[[Path], object], step: int) -> NoReturn:
    status = 1
    try:
        with dying_at(step):
            work(path)
        status = 0
    except BaseException as error:  # noqa: BLE001  whatever it is, it is told
        sys.stderr.write(f"step {step}: {error!r}\n")
        sys.stderr.flush()
    finally:
        os._exit(status)


@contextmanager
def dying_at(step: int) -> Iterator[None]:
    """Die at that step of what is done in the block."""
    left = step

    def passed(*_: object) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*args: Any, **more: Any) -> Any:
            passed()
            result = call(*args, **more)
            passed()
            return result

        return stepping

    names = ("before_cursor_execute", "after_cursor_execute", "commit")
    for name in names:
        event.listen(Engine, name, passed)
    patches = [mock.patch.object(os, name, wrapped(getattr(os, name))) for name in CALLS]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()
        for name in names:
            event.remove(Engine, name, passed)
