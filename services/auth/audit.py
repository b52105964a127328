"""What happened, as one structured line per event on the log.

The audit log itself is written in the transaction of what it tells of (``log_store``), so neither is there
without the other.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Final

from mesh.core.audit import Entry
from mesh.core.receiver import Peer
from services.auth.errors import AuthError

log = logging.getLogger("mesh.auth")

_FIELDS: Final = {field.name: field.default for field in fields(Entry)}


def report(entry: Entry) -> None:
    """Log an entry: an alarm as an error, anything else as information."""
    told = {name: value for name, default in _FIELDS.items() if (value := getattr(entry, name)) != default}
    log.log(logging.ERROR if entry.alarm else logging.INFO, "%s", json.dumps(told))


@contextmanager
def unlogged() -> Iterator[None]:
    """Go on where the audit log cannot be written: for what is refused anyway, or is tried again later."""
    try:
        yield
    except AuthError as error:
        log.error("not done, or not in the audit log yet: %s", error)  # noqa: TRY400  the line says it all


def by_whom(peer: Peer) -> str:
    """Write a verified peer as ``service/instance``."""
    return f"{peer.service}/{peer.instance}"
