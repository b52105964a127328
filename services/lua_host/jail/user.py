"""Nobody: a user and a group that own nothing, no other groups, no capability, and no way back.

Only root can become someone else. Anyone else stays who they are, and loses what capabilities they have.
"""

from __future__ import annotations

import errno
import os

from services.lua_host.jail import kernel

#: The overflow ids of the kernel, which distributions call nobody and nogroup.
NOBODY = 65534

_CAPBSET_READ, _CAPBSET_DROP = 23, 24
_MOST_CAPABILITIES = 64


def become_nobody() -> None:
    """Give up root, if it is had, and every capability; see that they are gone."""
    if 0 in os.getresuid():
        try:
            _leave_root()
        except OSError as error:
            what = f"root cannot become nobody: {error.strerror}; run the host as another user"
            raise kernel.NotHeldError(what) from None
    kernel.drop_capabilities()
    if 0 in os.getresuid() + os.getresgid():
        raise kernel.NotHeldError("the user or the group is still root's; run the host as another user")
    for back in (os.setuid, os.setgid):
        try:
            back(0)
        except PermissionError:
            continue
        raise kernel.NotHeldError("root can be taken back")


def _leave_root() -> None:
    # Groups before the user: who is not root any more cannot change them.
    _empty_bounding_set()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    if os.getgroups():
        raise kernel.NotHeldError("groups are left")


def _empty_bounding_set() -> None:
    # What is not in this set can never be had again. The kernel says where its capabilities end.
    for capability in range(_MOST_CAPABILITIES):
        try:
            kernel.prctl(_CAPBSET_READ, capability)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return
            raise
        kernel.prctl(_CAPBSET_DROP, capability)
