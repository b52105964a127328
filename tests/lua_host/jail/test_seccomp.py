"""The filter does what the table says, for every syscall there is: on paper, and in this kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from itertools import product
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.lua_host.jail import seccomp
from tests.lua_host.jail.bpf import ALLOW, KILL, instructions, run
from tests.lua_host.jail.child import Child

PROBED: Final = 0x00050000 | errno.EBADE
X86_64, AARCH64, I386, ARM = 0xC000003E, 0xC00000B7, 0x40000003, 0x40000028
X32: Final = 0x40000000
MACHINES: Final = {"x86_64": X86_64, "aarch64": AARCH64}

# The whole truth, once more and by number: which arguments each syscall may have, and what becomes of it.
# In the order read, write, clock_gettime, mmap, mremap, munmap, brk, exit_group; then getpid.
NUMBERS: Final = {
    "x86_64": (0, 1, 228, 9, 25, 11, 12, 231, 39),
    "aarch64": (63, 64, 113, 222, 216, 215, 214, 94, 172),
}
CONDITIONS: Final[tuple[Callable[[Sequence[int]], bool], ...]] = (
    lambda a: a[0] == 0,
    lambda a: a[0] == 0,
    lambda a: a[0] == 1,
    lambda a: a[2] == 3 and a[3] == 0x22,
    lambda a: a[3] == 1,
    lambda _: True,
    lambda _: True,
    lambda _: True,
)
VALUES: Final = (
    0,
    1,
    2,
    3,
    4,
    7,
    0x21,
    0x22,
    0x32,
    2**31,
    2**32,
    2**32 + 1,
    2**32 + 3,
    2**32 + 0x22,
    2**64 - 1,
)


def truth(machine: str, arch: int, number: int, arguments: Sequence[int]) -> int:
    if arch != MACHINES[machine] or number not in NUMBERS[machine]:
        return KILL
    which = NUMBERS[machine].index(number)
    if which == len(CONDITIONS):
        return PROBED
    return ALLOW if CONDITIONS[which](arguments) else KILL


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("arch", [X86_64, AARCH64, I386, ARM, 0])
def test_every_number_gets_what_the_table_says(machine: str, arch: int) -> None:
    """All numbers from 0 to 600, as they are and with the bit of x32, with four sets of arguments."""
    code = seccomp.program(machine)
    for number in [*range(601), *range(X32, X32 + 601), 2**32 - 1]:
        for arguments in ([0] * 6, [0, 0, 3, 0x22, 2**64 - 1, 0], [1, 1, 1, 1, 0, 0], [2**64 - 1] * 6):
            assert run(code, arch, number, arguments) == truth(machine, arch, number, arguments)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_argument_is_looked_at_whole(machine: str) -> None:
    """For each syscall in the table: every mix of telling values of the arguments that count."""
    code, arch = seccomp.program(machine), MACHINES[machine]
    for number in NUMBERS[machine]:
        for first, third, fourth in product(VALUES, repeat=3):
            arguments = [first, 0, third, fourth, 0, 0]
            assert run(code, arch, number, arguments) == truth(machine, arch, number, arguments)


@given(
    st.sampled_from(sorted(MACHINES)),
    st.sampled_from([X86_64, AARCH64]) | st.integers(0, 2**32 - 1),
    st.integers(0, 600) | st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from(VALUES) | st.integers(0, 2**64 - 1), min_size=6, max_size=6),
)
def test_nothing_else_passes(machine: str, arch: int, number: int, arguments: list[int]) -> None:
    """Whatever is called, from wherever, with whatever."""
    assert run(seccomp.program(machine), arch, number, arguments) == truth(machine, arch, number, arguments)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_cannot_run_off_its_end(machine: str) -> None:
    """Every jump lands inside, and the last instruction returns: what the kernel asks of it, and more."""
    program = instructions(seccomp.program(machine))
    for at, (operation, if_true, if_false, _) in enumerate(program):
        if operation == 0x15:
            assert at + 1 + max(if_true, if_false) < len(program)
    assert program[-1] == (0x06, 0, 0, KILL)


def test_another_default_is_what_no_rule_fits() -> None:
    """Rules that refuse a few calls and let others pass, as the tests of faked kernels use them."""
    code = seccomp.assemble(X86_64, [(157, {0: 22, 1: 2}, 0x00050016), (5, {}, 0x00050026)], ALLOW)
    assert run(code, X86_64, 157, [22, 2]) == 0x00050016
    assert run(code, X86_64, 157, [22, 3]) == ALLOW
    assert run(code, X86_64, 157, [23, 2]) == ALLOW
    assert run(code, X86_64, 5) == 0x00050026
    assert run(code, X86_64, 0) == ALLOW
    assert run(code, AARCH64, 0) == KILL


# Each number in a process of its own, whose descriptor 0 is a socket at its end: how those ended that were
# not killed by SIGSYS (31).
SWEEP: Final = """
kernel.prctl(38, 1)
kernel.prctl(4, 0)
channel = os.dup(0)
ours, theirs = socket.socketpair()
ours.shutdown(socket.SHUT_WR)
os.dup2(theirs.fileno(), 0)
survived = []
for number in [*range(601), *range(X32, X32 + 601)]:
    child = os.fork()
    if child == 0:
        seccomp.confine(MACHINE)
        libc.syscall(ctypes.c_long(number), *[ctypes.c_long(0)] * 6)
        os._exit(7)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended != -31:
        survived.append((number, ended))
os.dup2(channel, 0)
for number, ended in survived:
    say(f"{number} {ended}")
"""


def test_this_kernel_agrees() -> None:
    """Every number from 0 to 600, with and without the bit of x32, called for real with zeros."""
    with Child(SWEEP.replace("X32", str(X32))) as child:
        survived = [tuple(map(int, line.split())) for line in child.everything()]
        assert child.end() == 0
    # The kernel lets its own probes' syscalls past every filter, and refuses them to everyone else.
    probes = {335, 336} if os.uname().machine == "x86_64" else set()
    survived = [(number, ended) for number, ended in survived if number not in probes]
    read, write, _, _, _, munmap, brk, exit_group, getpid = NUMBERS[os.uname().machine]
    assert survived == sorted([(read, 7), (write, 7), (munmap, 7), (brk, 7), (exit_group, 0), (getpid, 7)])
