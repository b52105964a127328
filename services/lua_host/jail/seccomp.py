"""The syscalls of a jailed worker: a table, the BPF program made of it, its installation (seccomp(2)).

Whatever the table does not have ends the process, and so does any other architecture's way of calling. All
that a worker needs is to read and write its socket, ask for the time, get and give back memory, and end.
``getpid`` is in the table to be refused: that refusal, which no kernel gives by itself, shows that the filter
is in force.

A program is a list of 8-byte instructions (struct sock_filter) over struct seccomp_data:

    0  number    4  architecture    8  instruction pointer    16 + 8n  argument n, the low half first
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterable, Mapping

from services.lua_host.jail import kernel

KILL = 0x80000000
ALLOW = 0x7FFF0000
ERRNO = 0x00050000

#: ``os.uname().machine`` to the number that the audit subsystem, and so seccomp, has for it (linux/audit.h).
AUDIT: Mapping[str, int] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
#: Numbers of syscalls, in the order of ``AUDIT`` (asm/unistd_64.h, asm-generic/unistd.h).
NUMBERS: Mapping[str, tuple[int, int]] = {
    "read": (0, 63),
    "write": (1, 64),
    "clock_gettime": (228, 113),
    "mmap": (9, 222),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "brk": (12, 214),
    "exit_group": (231, 94),
    "getpid": (39, 172),
    "seccomp": (317, 277),
}

_SOCKET = 0
_CLOCK_MONOTONIC = 1
_PROT_READ_WRITE = 0x1 | 0x2
_MAP_PRIVATE_ANONYMOUS = 0x02 | 0x20
_MREMAP_MAYMOVE = 1

#: What refuses ``getpid``: an error that nothing else would give.
PROBE = errno.EBADE
#: The syscalls: what their arguments have to be, all 64 bits of them, and what is done if they are.
TABLE: tuple[tuple[str, Mapping[int, int], int], ...] = (
    ("read", {0: _SOCKET}, ALLOW),
    ("write", {0: _SOCKET}, ALLOW),
    # Where the vDSO cannot read the clock by itself.
    ("clock_gettime", {0: _CLOCK_MONOTONIC}, ALLOW),
    # As malloc(3) and Python's allocator call it: never a file, an address of one's own choice, or code.
    ("mmap", {2: _PROT_READ_WRITE, 3: _MAP_PRIVATE_ANONYMOUS}, ALLOW),
    ("mremap", {3: _MREMAP_MAYMOVE}, ALLOW),
    ("munmap", {}, ALLOW),
    ("brk", {}, ALLOW),
    ("exit_group", {}, ALLOW),
    ("getpid", {}, ERRNO | PROBE),
)

_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_SET_MODE_FILTER, _TSYNC = 1, 1


def assemble(audit: int, rules: Iterable[tuple[int, Mapping[int, int], int]], default: int) -> bytes:
    """Make a program of rules: number, arguments, action. What no rule fits gets ``default``.

    There is one rule for a number. Another architecture's call ends the process; an x32 call on x86-64 has
    bit 30 of its number set, so it is in no table.
    """
    program = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_JUMP_EQUAL, audit, 1, 0),
        _instruction(_RETURN, KILL),
        _instruction(_LOAD, _NUMBER),
    ]
    for number, arguments, action in rules:
        block = [*_tests(arguments), _instruction(_RETURN, action), _instruction(_RETURN, default)]
        program += [_instruction(_JUMP_EQUAL, number, 0, len(block)), *block]
    return b"".join([*program, _instruction(_RETURN, default)])


def _tests(arguments: Mapping[int, int]) -> list[bytes]:
    # BPF has words of 32 bits: two for an argument. A test that fails skips the others, and one return.
    words = [
        (_ARGUMENTS + 8 * index + 4 * half, value >> 32 * half & 0xFFFFFFFF)
        for index, value in arguments.items()
        for half in (0, 1)
    ]
    code = []
    for passed, (offset, word) in enumerate(words):
        to_go = 2 * (len(words) - passed - 1)
        code += [_instruction(_LOAD, offset), _instruction(_JUMP_EQUAL, word, 0, to_go + 1)]
    return code


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def program(machine: str) -> bytes:
    """Give the worker's program for a machine of ``AUDIT``."""
    column = list(AUDIT).index(machine)
    rules = [(NUMBERS[name][column], arguments, action) for name, arguments, action in TABLE]
    return assemble(AUDIT[machine], rules, KILL)


def install(machine: str, code: bytes) -> None:
    """Put this process, all of it, under a program for ever. Needs no_new_privs. Raises ``OSError``."""
    buffer = ctypes.create_string_buffer(code, len(code))
    described = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    number = NUMBERS["seccomp"][list(AUDIT).index(machine)]
    if kernel.syscall(number, _SET_MODE_FILTER, _TSYNC, described):
        raise kernel.NotHeldError("another thread cannot be put under the filter")


def confine(machine: str) -> None:
    """Put this process under the worker's program, and see that it is."""
    install(machine, program(machine))
    try:
        kernel.syscall(NUMBERS["getpid"][list(AUDIT).index(machine)])
    except OSError as error:
        if error.errno == PROBE:
            return
    raise kernel.NotHeldError("the kernel took the filter, and does not apply it")
