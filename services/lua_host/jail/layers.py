"""The jail: its layers in the order in which they are put on. Each is tried, and none may be missing.

What needs root or the file system comes before these are given up, and the syscalls go last. A jailed process
stays so until it ends. It is the caller's to import all that it needs before, and to run nothing of a script
until ``enter`` has returned.

A layer raises ``OSError`` where the kernel refuses, and ``NotHeldError`` where a trial shows that it does not
hold.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
import sys
from collections.abc import Callable

from services.lua_host.jail import kernel, landlock, seccomp, user
from services.lua_host.jail.kernel import NotHeldError

#: Memory besides Lua's and the messages': for Python and malloc.
SLACK = 32 << 20
#: Copies of a message that may exist at once, outside of Lua.
COPIES = 8

#: The one descriptor, a socket; and one more, until Landlock is there.
_SOCKET, _SPARE = 0, 1
_CLOSE_RANGE = 436  # on every architecture
_SET_PDEATHSIG, _GET_DUMPABLE, _SET_DUMPABLE, _SET_NO_NEW_PRIVS, _GET_NO_NEW_PRIVS = 1, 3, 4, 38, 39
_SIGKILL = 9

#: What to do about a kernel that refuses.
_NEEDS = {
    "landlock": "; it needs Linux 5.13 or newer, booted with landlock among its LSMs",
    "seccomp": "; it needs a kernel with CONFIG_SECCOMP_FILTER",
}

Layer = tuple[str, Callable[[], None]]


class MissingLayerError(Exception):
    """The process is not jailed, and must not go on. ``layer``: its name in ``layers``; ``why``: one line."""

    def __init__(self, layer: str, why: str) -> None:
        """Take what is missing and why."""
        super().__init__(f"{layer}: {why}")
        self.layer, self.why = layer, why


def layers(memory: int, message: int, parent: int) -> tuple[Layer, ...]:
    """Give a worker's jail: bytes that its Lua and one message may take, the host's process id."""
    return (
        ("machine", known_machine),
        ("environment", empty_environment),
        ("thread", one_thread),
        ("memory", no_writable_code),
        ("descriptors", one_socket),
        ("directory", root_directory),
        ("user", user.become_nobody),
        ("dumpable", no_dumps),
        ("parent", lambda: end_with(parent)),
        ("no_new_privs", no_new_privileges),
        ("rlimits", lambda: limit(memory + COPIES * message + SLACK)),
        ("landlock", landlock.restrict),
        ("spare descriptor", no_spare_descriptor),
        ("seccomp", lambda: seccomp.confine(os.uname().machine)),
    )


def enter(jail: tuple[Layer, ...]) -> None:
    """Put on every layer; raise ``MissingLayerError`` at the first that cannot be, or does not hold."""
    for name, put_on in jail:
        try:
            put_on()
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise MissingLayerError(name, f"{where}{error.strerror}{_NEEDS.get(name, '')}") from None
        except Exception as error:  # noqa: BLE001  whatever it was, the layer is not there
            raise MissingLayerError(name, str(error) or type(error).__name__) from None


def known_machine() -> None:
    """See that the syscalls of this system are known."""
    system = os.uname()
    if system.sysname != "Linux" or system.machine not in seccomp.AUDIT or sys.maxsize < 2**63 - 1:
        known = " and ".join(seccomp.AUDIT)
        raise NotHeldError(f"made for 64-bit Linux on {known}, not for {system.sysname} on {system.machine}")


def empty_environment() -> None:
    """See that the process was given no environment, and drop what Python adds by itself (LC_CTYPE)."""
    if _read("/proc/self/environ"):
        raise NotHeldError("the process was started with an environment")
    os.environ.clear()


def one_thread() -> None:
    """See that nothing else runs here: Landlock and the user's capabilities are a thread's own."""
    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208  pathlib is a big import
        raise NotHeldError("the process has threads")


def no_writable_code() -> None:
    """See that no memory can be both written and executed. Nothing becomes executable later: ``seccomp``."""
    for mapping in _read("/proc/self/maps").splitlines():
        if {*b"wx"} <= {*mapping.split()[1]}:
            raise NotHeldError("memory that can be written can be executed")


def one_socket() -> None:
    """Close all descriptors but the socket."""
    kernel.syscall(_CLOSE_RANGE, _SOCKET + 1, 2**32 - 1, 0)
    if not stat.S_ISSOCK(os.fstat(_SOCKET).st_mode):
        raise NotHeldError("descriptor 0 is not a socket")
    if {*os.listdir("/proc/self/fd")} != {str(_SOCKET), str(_SPARE)}:  # noqa: PTH208  one is the listing's own
        raise NotHeldError("more is open than the socket")


def root_directory() -> None:
    """Stand in the root directory, and so keep no other in use."""
    os.chdir("/")
    if os.getcwd() != "/":  # noqa: PTH109  pathlib is a big import
        raise NotHeldError("the working directory is another")


def no_dumps() -> None:
    """Write no core, and be closed to processes of the same user. A change of user undoes it: after that."""
    kernel.prctl(_SET_DUMPABLE, 0)
    if kernel.prctl(_GET_DUMPABLE) != 0:
        raise NotHeldError("the process can be dumped")


def end_with(parent: int) -> None:
    """Be killed when the host ends. A change of user undoes it: after that."""
    kernel.prctl(_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        raise NotHeldError("the host has ended")


def no_new_privileges() -> None:
    """Gain nothing from any program."""
    kernel.prctl(_SET_NO_NEW_PRIVS, 1)
    if kernel.prctl(_GET_NO_NEW_PRIVS) != 1:
        raise NotHeldError("it is not set")


def limit(more: int) -> None:
    """Take this many bytes of addresses more, and none of what else the kernel counts (getrlimit(2))."""
    pages = int(_read("/proc/self/statm").split()[0])
    most = pages * resource.getpagesize() + more
    limits = {
        resource.RLIMIT_AS: most,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_NOFILE: 2,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_SIGPENDING: 0,
    }
    for which, value in limits.items():
        _lower(which, value)
    _try_limits(most)


def no_spare_descriptor() -> None:
    """Have room for the socket alone."""
    _lower(resource.RLIMIT_NOFILE, 1)
    try:
        os.dup(_SOCKET)
    except OSError as error:
        if error.errno == errno.EMFILE:
            return
    raise NotHeldError("a descriptor can be had")


def _lower(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))
    if resource.getrlimit(which) != (value, value):
        raise NotHeldError("a limit is not what it was set to")


def _try_limits(most: int) -> None:
    try:
        bytearray(most)
    except MemoryError:
        pass
    else:
        raise NotHeldError("more memory can be had")
    try:
        child = os.fork()
    except BlockingIOError:
        return
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    raise NotHeldError("a process can be had")


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123  pathlib is a big import
        return file.read()
