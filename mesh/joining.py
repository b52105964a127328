"""What a node joins with, where it was not given: from the environment, as ``mesh.join`` says.

A token is taken out of the environment, so that nothing which the process starts can see it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from mesh.core.join import JoinToken
from mesh.enrol import Vouched
from mesh.rpc.targets import each_of

#: Where a node's keys are: with it, or with auth, which then seals for it.
LOCAL: Final = "local"
REMOTE: Final = "remote"
KEYS: Final = (LOCAL, REMOTE)


def are_remote(given: str | None) -> bool:
    """Whether auth is to keep the keys; raise ``ValueError`` for another word than ``KEYS``."""
    keys = given or os.environ.get("MESH_KEYS") or LOCAL
    if keys not in KEYS:
        msg = f"bad keys {keys!r:.80}: use local or remote"
        raise ValueError(msg)
    return keys == REMOTE


def credential(given: str | None) -> JoinToken | Vouched:
    """Give a token, or what else a node proves itself with; raise ``ValueError`` or ``OSError``."""
    text = given or os.environ.pop("MESH_TOKEN", None)  # not to be seen by what this process starts
    if not text:
        path = os.environ.get("MESH_TOKEN_FILE")
        if not path:
            vouched = Vouched.named(os.environ)
            if vouched is not None:
                return vouched
            msg = "no join token: give token=, MESH_TOKEN or MESH_TOKEN_FILE; make one with mesh token create"
            raise ValueError(msg)
        text = Path(path).read_text(encoding="ascii")
    return JoinToken.parse(text)


def address(given: str | None) -> str:
    """Give where auth is; raise ``ValueError``."""
    found = given or os.environ.get("MESH_AUTH")
    if not found:
        msg = "no address of auth: give auth= or MESH_AUTH, host:port of auth's join port"
        raise ValueError(msg)
    if not all(re.fullmatch(r".+:[0-9]{1,5}", one) for one in each_of(found)):
        msg = f"bad address of auth {found!r:.80}: use host:port of its join port, such as 127.0.0.1:7700"
        raise ValueError(msg)
    return found
