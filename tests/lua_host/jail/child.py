"""Processes started as the host starts a worker, that run what a test says: jailed, owned, on a faked kernel.

``USERS`` are those that a child may start as: who runs the tests, and for root somebody else too, who has no
rights to give up. The latter changes user after its imports, since root's files may be closed to it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from types import TracebackType
from typing import Final, Self

from services.lua_host.jail.launch import roots

SOMEBODY: Final = 12345
USERS: Final = [None, SOMEBODY] if os.getuid() == 0 else [None]
SECONDS: Final = 20
MEMORY: Final = 8 << 20
MESSAGE: Final = 64 << 10

# What a child's code may use: `say` sends a frame, `raw` makes a syscall by number, `attempt` names what went
# wrong. Everything is imported before the jail is entered.
_PRELUDE: Final = """
import ctypes, errno, os, sys
sys.path += sys.argv[1:3]
import _socket as socket
from services.lua_host.jail import kernel, landlock, layers, seccomp, user, worker
MACHINE = os.uname().machine
MEMORY, MESSAGE, PARENT, OVER = map(int, sys.argv[3:7])
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def say(text):
    body = str(text).encode()
    os.write(0, len(body).to_bytes(4) + body)

def raw(number, *arguments):
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *given)
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result

def attempt(function, *arguments):
    try:
        return function(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    except Exception as error:
        return type(error).__name__

def status(name):
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith(name + ":"))

def jail(last=None):
    whole = layers.layers(MEMORY, MESSAGE, PARENT)
    names = [name for name, _ in whole]
    return whole[: names.index(last) + 1] if last else whole

def bystander():
    # A process of this user's, that waits until the test is over.
    child = os.fork()
    if child == 0:
        os.close(0)
        os.read(OVER, 1)
        os._exit(0)
    return child

def become(somebody):
    os.setgroups([])
    os.setresgid(somebody, somebody, somebody)
    os.setresuid(somebody, somebody, somebody)
    libc.prctl(4, 1)
"""


class Child:
    """A running child. Ends when the ``with`` does, whatever became of it."""

    def __init__(
        self,
        code: str,
        *,
        user: int | None = None,
        env: dict[str, str] | None = None,
        cwd: str = "/",
        pass_fds: tuple[int, ...] = (),
        stdin: int | None = None,
        argv: list[str] | None = None,
    ) -> None:
        """Start one. ``stdin``: what it gets instead of its socket; ``argv``: a whole command of its own."""
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(SECONDS)
        become = f"become({user})\n" if user is not None else ""
        options = ["-I", "-S", "-B", "-c", _PRELUDE + become + code]
        over, self._over = os.pipe()
        numbers = map(str, (MEMORY, MESSAGE, os.getpid(), over))
        with theirs:
            self.process = subprocess.Popen(
                argv or [sys.executable, *options, *roots(), *numbers],
                stdin=theirs.fileno() if stdin is None else stdin,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if argv else None,
                cwd=cwd,
                env=env or {},
                pass_fds=(*pass_fds, over),
            )
        os.close(over)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
        os.close(self._over)
        self.process.kill()
        self.process.wait()

    def receive(self) -> bytes | None:
        """Give the next frame, or ``None`` if the child ends instead."""
        header = self._exactly(4)
        return None if header is None else self._exactly(int.from_bytes(header))

    def _exactly(self, count: int) -> bytes | None:
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except ConnectionResetError:
                more = b""
            if not more:
                return None
            data += more
        return data

    def send(self, body: bytes) -> None:
        """Send a frame."""
        self.socket.sendall(len(body).to_bytes(4) + body)

    def everything(self) -> list[str]:
        """Give all that it says until it ends."""
        said = []
        while (body := self.receive()) is not None:
            said.append(body.decode())
        return said

    def end(self) -> int:
        """Wait for its end; give its status, below 0 for a signal's number."""
        return self.process.wait(SECONDS)

    def status(self, name: str) -> str:
        """Read a line of its /proc status."""
        with open(f"/proc/{self.process.pid}/status") as file:  # noqa: PTH123
            return next(line.split(":")[1].strip() for line in file if line.startswith(name + ":"))


def worker(main: str, *, user: int | None = None, before: str = "", jailed: bool = True) -> Child:
    """Start a worker whose main.lua is ``main``, after ``before``, in Python, has run in its process."""
    sources = f"[{main.encode()!r}, b'first', b'second', b'third']"
    run = f"worker.serve({sources}, MEMORY, MESSAGE, PARENT, jailed={jailed})"
    return Child(f"{before}\n{run}", user=user)
