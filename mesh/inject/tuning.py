"""What a pod asks for: its annotations, read strictly, so that a typing error is refused and not ignored.

sealmesh.dev/inject           "enabled" or "disabled"; also as a label
sealmesh.dev/service          the service that it has to be; without it, whichever the rules say
sealmesh.dev/app-port         loopback port at which its app serves; without it, the container port that
is named grpc, and without that it only calls
sealmesh.dev/app-health       "disabled": the app is not asked for its health; "enabled" without
sealmesh.dev/outbound-port    another loopback port for its calls
sealmesh.dev/cpu-request, memory-request, cpu-limit, memory-limit    of the sidecar
sealmesh.dev/OTEL_…           a variable of the sidecar in the place of the cluster's, for its telemetry
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mesh.inject.errors import RefusedError
from mesh.inject.settings import MAX_PORT

PREFIX: Final = "sealmesh.dev/"
INJECT: Final = PREFIX + "inject"
INJECTED: Final = PREFIX + "injected"
_APP_PORT_NAME: Final = "grpc"
_QUANTITIES: Final = {
    f"{resource}-{kind}": (f"{kind}s", resource)
    for resource in ("cpu", "memory")
    for kind in ("request", "limit")
}
_KNOWN: Final = ("inject", "injected", "service", "app-port", "app-health", "outbound-port", *_QUANTITIES)
#: What a variable begins with.
_VARIABLE: Final = "OTEL_"
#: A quantity, as in the Kubernetes API: a decimal number and a suffix.
_QUANTITY: Final = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi)?")


@dataclass(frozen=True, slots=True)
class Tuning:
    """What one pod asks for; ``resources`` and ``env`` are added to those of the cluster."""

    service: str | None = None
    app_port: int | None = None
    outbound_port: int | None = None
    app_health: bool = True
    resources: dict[str, dict[str, str]] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


def wanted(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is to have a sidecar, as far as it says; raise ``RefusedError`` for an unknown word."""
    metadata = pod.get("metadata") or {}
    for found in (metadata.get("annotations") or {}, metadata.get("labels") or {}):
        word = found.get(INJECT, "enabled")
        if word == "disabled":
            return False
        if word != "enabled":
            raise RefusedError(f"{INJECT} is {word!r:.40}: use enabled or disabled")
    return True


def read(pod: Mapping[str, Any]) -> Tuning:
    """Read what a pod asks for; raise ``RefusedError``."""
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    given = {key[len(PREFIX) :]: text for key, text in annotations.items() if key.startswith(PREFIX)}
    for key in given:
        if key not in _KNOWN and not key.startswith(_VARIABLE):
            raise RefusedError(f"unknown annotation {PREFIX}{key:.60}: use {', '.join(_KNOWN)}, {_VARIABLE}…")
    app_port = _port(given, "app-port")
    return Tuning(
        given.get("service"),
        _named_port(pod) if app_port is None else app_port,
        _port(given, "outbound-port"),
        _enabled(given, "app-health"),
        _resources(given),
        _env(given),
    )


def _env(given: Mapping[str, str]) -> dict[str, str]:
    env = {key: text for key, text in given.items() if key.startswith(_VARIABLE)}
    for key in env:
        # Whoever may see the pod sees its annotations; and its service is what auth says it is.
        if key.endswith("HEADERS") or key == "OTEL_SERVICE_NAME":
            raise RefusedError(f"{PREFIX}{key:.60} is not for a pod to say: have a collector add it")
    return env


def _port(given: Mapping[str, str], key: str) -> int | None:
    text = given.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:6]) <= MAX_PORT):
        raise RefusedError(f"{PREFIX}{key} is {text!r:.40}: use a port from 1 to {MAX_PORT}")
    return int(text[:6])


def _enabled(given: Mapping[str, str], key: str) -> bool:
    word = given.get(key, "enabled")
    if word not in {"enabled", "disabled"}:
        raise RefusedError(f"{PREFIX}{key} is {word!r:.40}: use enabled or disabled")
    return word == "enabled"


def _named_port(pod: Mapping[str, Any]) -> int | None:
    for container in (pod.get("spec") or {}).get("containers") or []:
        for port in container.get("ports") or []:
            if port.get("name") == _APP_PORT_NAME:
                number: int = port["containerPort"]
                return number
    return None


def _resources(given: Mapping[str, str]) -> dict[str, dict[str, str]]:
    resources: dict[str, dict[str, str]] = {}
    for key, (kind, resource) in _QUANTITIES.items():
        text = given.get(key)
        if text is None:
            continue
        if not _QUANTITY.fullmatch(text):
            raise RefusedError(f"{PREFIX}{key} is {text!r:.40}: use a quantity such as 100m or 64Mi")
        resources.setdefault(kind, {})[resource] = text
    return resources
