"""How a service reaches others: one call out, and how it is refused.

What stands behind it is the mesh (``member``) or a file of expected calls (``rehearsal``). Payloads are
bytes; who calls has checked them against their descriptors, and checks what comes back.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

import grpc

from mesh.core.metadata import Entries
from mesh.core.names import FullMethod, ServiceName


class Refused(Exception):
    """A call ended with an error. ``reason``: ``<domain>/<reason>`` of its ErrorInfo, if it has one."""

    def __init__(self, code: grpc.StatusCode, message: str, reason: str = "") -> None:
        """Take the status and its text."""
        super().__init__(f"{code.name}: {message}")
        self.code, self.message, self.reason = code, message, reason


@dataclass(frozen=True, slots=True)
class OutgoingCall:
    """One call to another service. ``timeout``: seconds, ``None`` for no end of its own."""

    service: ServiceName
    method: FullMethod
    payload: bytes
    metadata: Entries
    timeout: float | None
    streaming: bool


class Outside(Protocol):
    """Everything that a service may reach."""

    def call(self, call: OutgoingCall) -> AsyncGenerator[bytes]:
        """Make a call; give its reply messages, one unless ``streaming``. Raises ``Refused``."""
