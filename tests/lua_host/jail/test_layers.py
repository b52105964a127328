"""Each layer of the jail holds, for real; and each that does not hold is named, and ends it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from tests.lua_host.jail.child import USERS, Child, worker

ORDER: Final = [
    "machine",
    "environment",
    "thread",
    "memory",
    "descriptors",
    "directory",
    "user",
    "dumpable",
    "parent",
    "no_new_privs",
    "rlimits",
    "landlock",
    "spare descriptor",
    "seccomp",
]

# After the layer: what is tried, and what comes of it.
HOLDS: Final = [
    ("environment", "dict(os.environ)", "{}"),
    ("environment", "open('/proc/self/environ', 'rb').read()", "b''"),
    ("descriptors", "sorted(os.listdir('/proc/self/fd'))", "['0', '1']"),
    ("directory", "os.readlink('/proc/self/cwd')", "/"),
    ("user", "attempt(os.setuid, 0)", "EPERM"),
    ("user", "attempt(os.setgid, 0)", "EPERM"),
    ("user", "attempt(os.setgroups, [0])", "EPERM"),
    ("user", "0 in os.getresuid() + os.getresgid()", "False"),
    ("user", "attempt(os.chroot, '/')", "EPERM"),
    ("user", "status('CapEff') + status('CapPrm') + status('CapInh')", "0" * 48),
    ("dumpable", "kernel.prctl(3)", "0"),
    ("dumpable", "attempt(open, '/proc/self/mem', 'rb')", "EACCES"),
    ("dumpable", "attempt(open, '/proc/self/environ', 'rb')", "EACCES"),
    ("no_new_privs", "status('NoNewPrivs')", "1"),
    ("rlimits", "attempt(bytearray, MEMORY + 8 * MESSAGE + (36 << 20))", "MemoryError"),
    ("rlimits", "type(attempt(bytearray, MEMORY + 8 * MESSAGE + (28 << 20))).__name__", "bytearray"),
    ("rlimits", "attempt(os.fork)", "EAGAIN"),
    ("rlimits", "[attempt(os.dup, 0) for _ in range(2)]", "[1, 'EMFILE']"),
    ("landlock", "attempt(open, '/proc/self/statm', 'rb')", "EACCES"),
    ("landlock", "attempt(os.open, '/', 0)", "EACCES"),
    ("spare descriptor", "attempt(os.dup, 0)", "EMFILE"),
    ("spare descriptor", "attempt(socket.socket)", "EMFILE"),
]


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(("layer", "trial", "outcome"), HOLDS)
def test_each_layer_holds(tmp_path: Path, user: int | None, layer: str, trial: str, outcome: str) -> None:
    """A child that has put on the jail up to a layer tries what the layer is there to prevent."""
    code = f"layers.enter(jail({layer!r}))\nsay({trial})"
    with (
        (tmp_path / "open").open("w") as file,
        Child(code, user=user, cwd=str(tmp_path), pass_fds=(file.fileno(),)) as child,
    ):
        assert child.everything() == [outcome]
        assert child.end() == 0


def test_the_order_is_the_documented_one() -> None:
    """User, no_new_privs, rlimits, Landlock, seccomp; what has to be seen to before that, comes before."""
    with Child("say([name for name, _ in jail()])") as child:
        assert child.everything() == [str(ORDER)]


@pytest.mark.parametrize("user", USERS)
def test_a_worker_is_all_of_it(user: int | None) -> None:
    """What the kernel says of a worker that waits for its host."""
    with worker("python.as_function((...))('?')", user=user) as child:
        assert child.receive() == b"mesh-lua/1 jailed"
        own = user or 65534 if os.getuid() == 0 else os.getuid()
        assert child.status("Uid").split() == [str(own)] * 4
        assert child.status("Seccomp") == "2"
        assert child.status("NoNewPrivs") == "1"
        assert child.status("Threads") == "1"
        assert {child.status(name) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        if os.getuid() == 0:
            assert child.status("Groups") == ""
            assert (user is not None) or child.status("CapBnd") == "0" * 16
            assert [path.name for path in Path(f"/proc/{child.process.pid}/fd").iterdir()] == ["0"]
            assert Path(f"/proc/{child.process.pid}/cwd").readlink() == Path("/")


# A layer; what has to be wrong in the child's world, so that it is missing; and what is then said of it.
_LOWER: Final = "lower = layers._lower; layers._lower = lambda which, value: "
FAULTS: Final = [
    ("machine", "os.uname = lambda: os.uname_result(('Linux', '', '', '', 'riscv64'))", "riscv64"),
    ("machine", "os.uname = lambda: os.uname_result(('Darwin', '', '', '', 'x86_64'))", "Darwin"),
    ("machine", "sys.maxsize = 2**31 - 1", "64-bit"),
    ("thread", "import _thread; _thread.start_new_thread(libc.pause, ())", "threads"),
    ("memory", "import mmap; held = mmap.mmap(-1, 4096, prot=7)", "executed"),
    ("descriptors", "kernel.syscall = lambda *_: 0", "more is open"),
    ("directory", "os.chdir = lambda _: None", "another"),
    ("user", "os.setuid = lambda _: None", "taken back"),
    ("user", "kernel._libc.capget = lambda _, sets: ctypes.memset(sets, 1, 1) and 0", "a capability is left"),
    ("dumpable", "kernel.prctl = lambda *_: 1", "dumped"),
    ("parent", "PARENT += 1", "the host has ended"),
    ("no_new_privs", "kernel.prctl = lambda *_: 0", "not set"),
    ("rlimits", "layers.resource.setrlimit = lambda *_: None", "a limit is not"),
    ("rlimits", _LOWER + "None", "more memory"),
    (
        "rlimits",
        _LOWER + "which == layers.resource.RLIMIT_NPROC or lower(which, value)",
        "a process can be had",
    ),
    ("spare descriptor", _LOWER + "value == 1 or lower(which, value)", "a descriptor can be had"),
]
_AS_ROOT: Final = [
    ("user", "os.setresuid = lambda *_: None", "still root's"),
    ("user", "os.setresgid = lambda *_: None", "still root's"),
    ("user", "os.setgroups = lambda _: libc.setgroups(1, ctypes.byref(ctypes.c_int(7)))", "groups are left"),
    ("user", "os.setresuid = lambda *_: os.setgroups(())", "still root's"),
    (
        "user",
        "kernel.drop_capabilities(); kernel.drop_capabilities = lambda: None",
        "root cannot become nobody",
    ),
]
ENTER: Final = """
try:
    layers.enter(jail())
except layers.MissingLayerError as missing:
    say(missing)
"""


@pytest.mark.parametrize(("layer", "fault", "why"), FAULTS + (_AS_ROOT if os.getuid() == 0 else []))
def test_a_layer_that_does_not_hold_is_named(tmp_path: Path, layer: str, fault: str, why: str) -> None:
    """Whether the kernel says so, or only a trial of it shows."""
    with Child(f"{fault}\n{ENTER}", cwd=str(tmp_path)) as child:
        (said,) = child.everything()
    assert said.startswith(f"{layer}: ")
    assert why in said


def test_an_environment_is_a_missing_layer() -> None:
    """Whatever is in it: the worker's is empty, or it was not the host that started it."""
    with Child(ENTER, env={"A": "b"}) as child:
        assert child.everything() == ["environment: the process was started with an environment"]


def test_a_descriptor_that_is_no_socket_is_a_missing_layer(tmp_path: Path) -> None:
    """The worker's one way out has to be what the host reads."""
    with (tmp_path / "said").open("w+b") as file:
        with Child(ENTER, stdin=file.fileno()) as child:
            child.end()
        file.seek(0)
        assert b"descriptors: descriptor 0 is not a socket" in file.read()


SPIN: Final = """
if os.fork():
    libc.pause()
PARENT = os.getppid()
main = b"local host = python.as_function((...)) host('!spinning') while true do end"
worker.serve([main], MEMORY, MESSAGE, PARENT, jailed=True)
"""


@pytest.mark.parametrize("user", USERS)
def test_it_ends_with_the_host(user: int | None) -> None:
    """Even if it never looks at its socket again: a child of the child computes, its parent is killed."""
    with Child(SPIN, user=user) as child:
        assert child.receive() == b"mesh-lua/1 jailed"
        assert child.receive() == b"spinning"
        child.process.kill()
        assert child.receive() is None
