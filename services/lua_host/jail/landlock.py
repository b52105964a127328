"""No files, no TCP, nobody's abstract sockets or signals: a Landlock domain without a rule (landlock(7)).

A right that a domain handles, and that no rule gives back, is denied. So all are handled that the kernel's
version of the interface (its ABI) knows. What is open already stays open.
"""

from __future__ import annotations

import os
import struct

from services.lua_host.jail import kernel

#: From this ABI on: how many rights of files, of TCP, and scopes there are, each a bit from the lowest up.
RIGHTS = (
    (1, 13, 0, 0),
    (2, 14, 0, 0),  # moving a file to another directory
    (3, 15, 0, 0),  # truncating
    (4, 15, 2, 0),  # TCP: bind and connect
    (5, 16, 2, 0),  # ioctl on devices
    (6, 16, 2, 2),  # abstract unix sockets and signals, outside of the domain
)

# The same numbers on every architecture.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_VERSION = 1
#: A file that is everyone's to read, so that nothing but Landlock keeps it closed.
_PROBE = "/proc/self/statm"


def ruleset(abi: int) -> bytes:
    """Give the attributes (struct landlock_ruleset_attr) that handle all that an ABI, 1 or newer, knows."""
    _, *bits = next(row for row in reversed(RIGHTS) if row[0] <= abi)
    return struct.pack("=QQQ", *((1 << count) - 1 for count in bits))


def restrict() -> None:
    """Deny it all to this thread, and see that it is denied. Needs no_new_privs, and a free descriptor."""
    with open(_PROBE, "rb"):  # noqa: PTH123  pathlib is a big import
        pass
    abi = kernel.syscall(_CREATE_RULESET, 0, 0, _VERSION)
    if abi < 1:
        raise kernel.NotHeldError("the kernel does not know its version of it")
    attributes = ruleset(abi)
    descriptor = kernel.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        kernel.syscall(_RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)
    try:
        os.close(os.open(_PROBE, os.O_RDONLY))
    except PermissionError:
        return
    raise kernel.NotHeldError("files can still be opened")
