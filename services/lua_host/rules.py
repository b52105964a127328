"""What holds for every call of a service, and one call as it comes: values, no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.core.metadata import Entries
from mesh.core.names import FullMethod
from services.lua_host.budget import Budget
from services.lua_host.checked import Checker
from services.lua_host.outside import Outside


@dataclass(frozen=True, slots=True)
class Method:
    """A method that a service serves or may call."""

    name: FullMethod
    streaming: bool
    request: Checker
    reply: Checker


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every call of a service."""

    name: str
    served: Mapping[str, Method]
    """By full name."""
    grants: Mapping[tuple[str, str], Method]
    """By service and full name."""
    seconds: float
    kept: bool
    calls_per_request: int
    calls: Budget
    messages: Budget
    outside: Outside


@dataclass(frozen=True, slots=True)
class Asked:
    """A call for a script. ``deadline``: seconds of the loop's clock, ``None`` if the caller sets none."""

    method: FullMethod
    payload: bytes
    identity: str
    service: str
    instance: str
    metadata: Entries
    deadline: float | None
    now_ms: int
