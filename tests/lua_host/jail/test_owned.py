"""A worker that is owned already: native code runs in it, knows every syscall, and gets nowhere.

Each attack is made from inside the whole jail. The kernel ends it with SIGSYS, the host's side of the socket
sees the end and nothing else, and outside nothing has changed.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.lua_host.jail.attacks import ATTACKS
from tests.lua_host.jail.child import USERS, Child

OWNED: Final = """
VICTIM = bystander()
memory = ctypes.create_string_buffer(8192)
PAGE = ctypes.addressof(memory) + 4095 & ~4095
IOV = (ctypes.c_uint64 * 2)(PAGE, 8)
CODE = ctypes.cast(libc.getpid, ctypes.c_void_p).value & ~4095
ADDRESS = (2).to_bytes(2, "little") + PORT.to_bytes(2) + bytes([127, 0, 0, 1]) + bytes(8)
# A message of one byte that hands over descriptor 0 (SCM_RIGHTS).
held = [ctypes.create_string_buffer(b"x", 1), (ctypes.c_int32 * 5)(20, 0, 1, 1, 0)]
held.append((ctypes.c_uint64 * 2)(ctypes.addressof(held[0]), 1))
RIGHTS = (ctypes.c_uint64 * 7)(0, 0, ctypes.addressof(held[2]), 1, ctypes.addressof(held[1]), 24, 0)
code = ctypes.create_string_buffer(seccomp.assemble(seccomp.AUDIT[MACHINE], [], seccomp.ALLOW))
FILTER = (ctypes.c_uint64 * 2)(len(code.raw) // 8, ctypes.addressof(code))
arguments = ARGUMENTS
layers.enter(jail())
say("jailed")
try:
    result = raw(NUMBER, *arguments)
except OSError as error:
    result = error
say(result)
"""


COLUMN: Final = ["x86_64", "aarch64"].index(os.uname().machine)
HERE: Final = [line for line in ATTACKS.strip().splitlines() if line.split()[1 + COLUMN] != "-"]


class Outside:
    """What there is to harm, within reach of anyone."""

    def __init__(self, folder: Path, listener: socket.socket) -> None:
        self.folder, self.listener = folder, listener
        folder.chmod(0o777)
        (folder / "file").write_text("untouched")
        (folder / "file").chmod(0o666)

    def names(self) -> str:
        """Give the Python that names it all for an attack."""
        file, new, folder = (
            str(path).encode() for path in (self.folder / "file", self.folder / "new", self.folder)
        )
        port = self.listener.getsockname()[1]
        return f"FILE, NEW, FOLDER, PORT = {file!r}, {new!r}, {folder!r}, {port}\n"

    def state(self) -> list[object]:
        """Give all that could have changed."""
        file = self.folder / "file"
        status = file.stat()
        return [
            sorted(path.name for path in self.folder.iterdir()),
            (file.read_text(), status.st_mode, status.st_mtime_ns, status.st_nlink),
            self._mounts(),
            [_queued(kind) for kind in ("shm", "msg", "sem")],
            os.uname().nodename,
            select.select([self.listener], [], [], 0)[0],
        ]

    def _mounts(self) -> list[str]:
        # Only where an attack would mount: what others on this machine do elsewhere is theirs.
        places = ("/", str(self.folder))
        lines = Path("/proc/self/mounts").read_text().splitlines()
        return [line for line in lines if line.split()[1] in places]


def _queued(kind: str) -> list[str]:
    # Of System V's, only what has the key that an attack asks for.
    lines = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()
    return [line for line in lines if line.split()[0] == "4711"]


@pytest.fixture
def outside() -> Iterator[Outside]:
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        yield Outside(Path(folder), listener)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("attack", HERE)
def test_an_attack_ends_the_worker_and_nothing_else(outside: Outside, user: int | None, attack: str) -> None:
    """It says that it is jailed, and is dead before it can say what came of it."""
    _, *numbers, arguments = [*attack.split(maxsplit=3), ""][:4]
    given = f"({arguments},)" if arguments else "()"
    before = outside.state()
    code = OWNED.replace("NUMBER", numbers[COLUMN]).replace("ARGUMENTS", given)
    with Child(outside.names() + code, user=user) as child:
        assert child.everything() == ["jailed"]
        assert child.end() == -signal.SIGSYS
    assert outside.state() == before


def test_an_attack_would_be_seen(outside: Outside) -> None:
    """The same process without the jail changes what is outside, and lives to tell."""
    number = ["257", "56"][COLUMN]
    code = OWNED.replace("NUMBER", number).replace("ARGUMENTS", "(-100, NEW, 0o101, 0o666)")
    before = outside.state()
    with Child(outside.names() + code.replace("layers.enter(jail())", "")) as child:
        assert child.receive() == b"jailed"
        assert child.receive() is not None
        assert child.end() == 0
    assert outside.state() != before
