"""What happened, as one structured line per event on the log.

The rows of the audit table are written in the transaction of what they tell of (``store``), so neither is
there without the other.
"""

import json
import logging
from dataclasses import fields
from typing import Final

from services.auth.records import AuditEntry

log = logging.getLogger("mesh.auth")

_FIELDS: Final = [field.name for field in fields(AuditEntry)]


def report(entry: AuditEntry) -> None:
    """Log an entry: an alarm as an error, anything else as information."""
    told = {name: value for name in _FIELDS if (value := getattr(entry, name))}
    log.log(logging.ERROR if entry.alarm else logging.INFO, "%s", json.dumps(told))
