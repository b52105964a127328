"""A kernel without a layer, or one that only pretends: the worker says what is missing, and never runs Lua.

The kernel is faked with a filter around the worker that answers some syscalls in its stead.
"""

from __future__ import annotations

import errno
import os
from typing import Final

import pytest

from tests.lua_host.jail.child import USERS, worker

# Whatever the kernel, nobody may see this frame without a jail.
RAN: Final = "python.as_function((...))('!ran')"
#: Numbers that are the same everywhere, and those that are not: x86_64, aarch64.
SYSCALLS: Final = {
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
    "close_range": (436, 436),
    "seccomp": (317, 277),
    "prctl": (157, 167),
    "capset": (126, 91),
    "prlimit64": (302, 261),
    "chdir": (80, 49),
    "setresuid": (117, 147),
}
NO_NEW_PRIVS, SECCOMP = 38, 22
NONE, UNKNOWN, DISABLED, FORBIDDEN = errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM
#: An error of 0: the syscall does nothing, and says that it did.
LIE: Final = 0

# What is faked: syscall, first arguments if it matters, answer. Then the layer that is missing, and why.
Fake = tuple[str, dict[int, int], int]
KERNELS: Final[list[tuple[list[Fake], str]]] = [
    ([("landlock_create_ruleset", {}, NONE)], "landlock: Function not implemented"),
    ([("landlock_create_ruleset", {}, DISABLED)], "landlock: Operation not supported"),
    ([("landlock_create_ruleset", {2: 0}, UNKNOWN)], "landlock: Invalid argument"),
    ([("landlock_create_ruleset", {}, LIE)], "landlock: the kernel does not know its version"),
    ([("landlock_restrict_self", {}, FORBIDDEN)], "landlock: Operation not permitted"),
    ([("landlock_restrict_self", {}, LIE)], "landlock: files can still be opened"),
    ([("seccomp", {}, NONE)], "seccomp: Function not implemented"),
    ([("seccomp", {}, UNKNOWN)], "seccomp: Invalid argument"),
    ([("seccomp", {}, LIE)], "seccomp: the kernel took the filter, and does not apply it"),
    ([("seccomp", {}, NONE), ("prctl", {0: SECCOMP}, UNKNOWN)], "seccomp: Function not implemented"),
    ([("seccomp", {}, UNKNOWN), ("prctl", {0: SECCOMP}, NONE)], "seccomp: Invalid argument"),
    ([("landlock_create_ruleset", {}, NONE), ("seccomp", {}, NONE)], "landlock: Function not implemented"),
    ([("prctl", {0: NO_NEW_PRIVS}, UNKNOWN)], "no_new_privs: Invalid argument"),
    ([("prlimit64", {}, FORBIDDEN)], "rlimits: "),
    ([("prlimit64", {}, LIE)], "rlimits: "),
    ([("close_range", {}, NONE)], "descriptors: Function not implemented"),
    ([("close_range", {}, LIE)], "descriptors: more is open than the socket"),
    ([("chdir", {}, FORBIDDEN)], "directory: /: Operation not permitted"),
    ([("capset", {}, FORBIDDEN)], "user: Operation not permitted"),
]
AS_ROOT: Final[list[tuple[list[Fake], str]]] = [
    ([("setresuid", {}, UNKNOWN)], "user: root cannot become nobody: Invalid argument"),
    ([("setresuid", {}, LIE)], "user: the user or the group is still root's"),
]


def faked(fakes: list[Fake]) -> str:
    column = ["x86_64", "aarch64"].index(os.uname().machine)
    rules = [(SYSCALLS[name][column], given, 0x00050000 | answer) for name, given, answer in fakes]
    return f"""
kernel.prctl({NO_NEW_PRIVS}, 1)
seccomp.install(MACHINE, seccomp.assemble(seccomp.AUDIT[MACHINE], {rules}, seccomp.ALLOW))
"""


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(("fakes", "missing"), KERNELS)
def test_a_missing_layer_is_said_and_nothing_runs(user: int | None, fakes: list[Fake], missing: str) -> None:
    """One line that names the layer, then the end."""
    with worker(RAN, user=user, before=faked(fakes)) as child:
        (said,) = child.everything()
        assert said.startswith(f"mesh-lua/1 missing {missing}")
        assert child.end() == 3


@pytest.mark.parametrize(("fakes", "missing"), AS_ROOT if os.getuid() == 0 else KERNELS[:1])
def test_root_that_cannot_be_given_up_is_a_missing_layer(fakes: list[Fake], missing: str) -> None:
    """A worker that stays root is none; for anyone else there is nothing to give up."""
    with worker(RAN, before=faked(fakes)) as child:
        (said,) = child.everything()
        assert said.startswith(f"mesh-lua/1 missing {missing}")


def test_a_filter_that_fakes_nothing_changes_nothing() -> None:
    """The tests above fail for what they fake, not for the filter that fakes it."""
    with worker(RAN, before=faked([])) as child:
        assert child.everything() == ["mesh-lua/1 jailed", "ran"]
