"""Syscalls that Python has no name for, through ctypes.

Knows nothing of what they are for. Each either does what it was asked or raises ``OSError``.
"""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_CAPABILITY_VERSION_3 = 0x20080522
#: Effective, permitted and inheritable, of 32 capabilities each, twice.
_CAPABILITY_SETS = 24


class NotHeldError(Exception):
    """The kernel took what it was asked for, and does not do it; the message says what was seen."""


def syscall(number: int, *arguments: int | bytes) -> int:
    """Make a syscall. Bytes are given by address; the kernel may only read them."""
    given = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *given))


def prctl(option: int, value: int = 0) -> int:
    """Set or get an attribute of this process (prctl(2))."""
    rest = [ctypes.c_ulong(argument) for argument in (value, 0, 0, 0)]
    return _checked(_libc.prctl(ctypes.c_int(option), *rest))


def drop_capabilities() -> None:
    """Give up every capability, and see that none is left (capabilities(7), capset(2))."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(header, bytes(_CAPABILITY_SETS)))
    left = ctypes.create_string_buffer(_CAPABILITY_SETS)
    _checked(_libc.capget(header, left))
    if any(left.raw):
        raise NotHeldError("a capability is left")


def _checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
