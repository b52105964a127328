"""A classic BPF machine, as slow and plain as can be: what seccomp makes of a program and a syscall."""

from __future__ import annotations

import struct
from collections.abc import Sequence

KILL, ALLOW = 0x80000000, 0x7FFF0000


def instructions(code: bytes) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("<HBBI", code))


def run(code: bytes, arch: int, number: int, arguments: Sequence[int] = ()) -> int:
    """Give what a program returns for a syscall."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, arch, 0x1234567890, *padded)
    program, at, accumulator = instructions(code), 0, 0
    while True:
        operation, if_true, if_false, value = program[at]
        at += 1
        if operation == 0x20:  # load a word
            assert value % 4 == 0
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif operation == 0x15:  # jump if equal
            at += if_true if accumulator == value else if_false
        elif operation == 0x06:  # return
            return value
        else:
            raise AssertionError(f"an operation that seccomp has no need of: {operation:#x}")
