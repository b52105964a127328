"""Kinds of values on the command line: service names, trust domains, durations, times. Each parses once."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Final

import click

from mesh.cli.completion import ServiceKind
from mesh.core.names import INSTANCE_BYTES, FullMethod, ServiceName, TrustDomain
from mesh.core.observed import MAX_TIME

#: The name of a service.
service: Final = ServiceKind()

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST: Final = 86400
#: As ``mesh check`` shows it, or all of it.
_INSTANCE: Final = re.compile(r"[0-9a-f]{8,32}")
#: As callers are told it: ``[id 0123456789abcdef]``, or the digits alone.
_CALL_ID: Final = re.compile(r"(?:\[?id )?([0-9a-f]{16})\]?")
#: What one is, for those who gave something else.
A_CALL_ID: Final = "a call id, which is 16 hex digits, as in [id 0123456789abcdef]"


def full_method(text: str) -> FullMethod:
    """Parse a full method."""
    try:
        return FullMethod(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def instance_of(text: str) -> tuple[ServiceName, str]:
    """Parse ``service``, or ``service/instance`` with the first 8 digits of the instance or more."""
    name, slash, instance = text.partition("/")
    # As a service it would have nothing to revoke, which an operator in a hurry takes for done.
    if not slash and len(name) == 2 * INSTANCE_BYTES and _INSTANCE.fullmatch(name):
        raise click.BadParameter(f"{name} is an instance: name its service, too, as SERVICE/{name[:8]}")
    if slash and not _INSTANCE.fullmatch(instance):
        raise click.BadParameter(f"bad instance id {instance!r:.80}: not 8 to 32 lower-case hex digits")
    try:
        return ServiceName(name), instance
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def domain(text: str) -> TrustDomain:
    """Parse a trust domain."""
    try:
        return TrustDomain(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def duration(text: str) -> int:
    """Parse a whole number of seconds, or of ``s``, ``m``, ``h`` or ``d``; give seconds, 1 to 86400."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd]?)", text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= _LONGEST:
        raise click.BadParameter(f"{text!r:.80} is not from 1s to 24h, such as 90s, 5m or 1h")
    return seconds


def find_call_id(text: str) -> str | None:
    """Give the 16 hex digits of a call id, bare or as it stands in an error; ``None`` if it is none."""
    match = _CALL_ID.fullmatch(text.strip())
    return match[1] if match else None


def call_id(text: str) -> str:
    """Parse a call id."""
    found = find_call_id(text)
    if found is None:
        raise click.BadParameter(f"{text!r:.40} is not {A_CALL_ID}")
    return found


def moment(text: str) -> int:
    """Parse a time (RFC 3339) or how long ago (``90s``, ``15m``, ``2h``, ``7d``); give milliseconds.

    A time before 1970 is the first there is, one after the year 9999 the last.
    """
    if match := re.fullmatch(r"([0-9]{1,6})([smhd])", text):
        return _bounded(int(time.time() * 1000) - int(match[1]) * _UNITS[match[2]] * 1000)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r:.80} is no time: use 15m for that long ago, or RFC 3339") from None
    return _bounded(int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000))


def _bounded(milliseconds: int) -> int:
    return max(1, min(MAX_TIME, milliseconds))  # not 0, which on the wire is no bound at all
