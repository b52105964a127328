"""What is the same for every pod of a cluster: the injector's settings, read strictly.

The chart writes them into a ConfigMap; ``mesh inject --settings`` takes the same file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Self

from mesh.core.workloads import Rules

#: Above this a port is none.
MAX_PORT: Final = 65535
#: Where metrics are served unless a variable says so, as a text like any variable (OpenTelemetry's default).
METRICS_PORT: Final = "9464"
_VARIABLE: Final = re.compile(r"OTEL_[A-Z0-9_]+")


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a sidecar listens in its pod: for other nodes, for its app (loopback), and for the kubelet."""

    inbound: int = 7800
    outbound: int = 7801
    health: int = 7802


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one cluster. ``auth`` is ``host:port`` of auth's join port."""

    image: str
    auth: str
    rules: Rules
    image_pull_policy: str = "IfNotPresent"
    audience: str = "sealmesh"
    token_seconds: int = 600
    join_config_map: str = "sealmesh-join"
    uid: int = 65532
    ports: Ports = Ports()
    resources: Mapping[str, Any] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    """``OTEL_*`` variables of the sidecar: where it tells of what it does."""

    @property
    def metrics_port(self) -> int | None:
        """The port at which the sidecar serves metrics to Prometheus, if it does."""
        if "prometheus" not in self.env.get("OTEL_METRICS_EXPORTER", "").split(","):
            return None
        return int(self.env.get("OTEL_EXPORTER_PROMETHEUS_PORT", METRICS_PORT))

    def told(self, env: Mapping[str, str]) -> Self:
        """Give them with further variables; raise ``ValueError`` for what makes no sense."""
        made = replace(self, env={**self.env, **env})
        _check_env(made)
        return made

    @classmethod
    def parse(cls, found: object) -> Self:
        """Read settings from plain data; raise ``ValueError`` with the place for what makes no sense."""
        if not isinstance(found, Mapping):
            msg = "settings have to be a mapping: see docs/kubernetes.md"
            raise ValueError(msg)  # noqa: TRY004  wrong data, not a wrong program
        given: dict[str, Any] = {_KEYS.get(str(key), str(key)): value for key, value in found.items()}
        _check_keys(given, _TYPES, "")
        for key in ("image", "auth", "rules"):
            if key not in given:
                msg = f"{key} is missing: add it"
                raise ValueError(msg)
        given["rules"] = Rules.parse(given["rules"])
        if "ports" in given:
            given["ports"] = _ports(given["ports"])
        made = cls(**given)
        _check_env(made)
        return made


_KEYS: Final = {
    "imagePullPolicy": "image_pull_policy",
    "tokenSeconds": "token_seconds",
    "joinConfigMap": "join_config_map",
}
_SAID: Final = {inside: outside for outside, inside in _KEYS.items()}
_TYPES: Final[dict[str, type]] = {
    "image": str,
    "auth": str,
    "rules": list,
    "image_pull_policy": str,
    "audience": str,
    "token_seconds": int,
    "join_config_map": str,
    "uid": int,
    "ports": dict,
    "resources": dict,
    "env": dict,
}


def _check_keys(given: Mapping[str, Any], types: Mapping[str, type], where: str) -> None:
    for key, value in given.items():
        said = where + _SAID.get(key, key)
        if key not in types:
            known = ", ".join(_SAID.get(one, one) for one in types)
            msg = f"unknown key {said!r:.80}: use {known}"
            raise ValueError(msg)
        if not isinstance(value, types[key]) or isinstance(value, bool):
            msg = f"{said}: has to be of type {types[key].__name__}"
            raise ValueError(msg)  # noqa: TRY004  wrong data, not a wrong program


def _ports(found: Mapping[str, Any]) -> Ports:
    _check_keys(found, {field.name: int for field in fields(Ports)}, "ports.")
    ports = Ports(**found)
    three = (ports.inbound, ports.outbound, ports.health)
    if len(set(three)) < len(three) or not all(0 < port <= MAX_PORT for port in three):
        msg = f"ports: three different ones from 1 to {MAX_PORT} are needed"
        raise ValueError(msg)
    return ports


def _check_env(settings: Settings) -> None:
    for name, value in settings.env.items():
        if not _VARIABLE.fullmatch(str(name)) or type(value) is not str:
            msg = f"env: {name!r:.60}: OTEL_* variables with texts are taken alone"
            raise ValueError(msg)
    port = settings.env.get("OTEL_EXPORTER_PROMETHEUS_PORT", METRICS_PORT)
    ours = {str(one) for one in (settings.ports.inbound, settings.ports.outbound, settings.ports.health)}
    if not (re.fullmatch(r"[1-9][0-9]{0,4}", port) and int(port) <= MAX_PORT) or port in ours:
        msg = f"env: OTEL_EXPORTER_PROMETHEUS_PORT is {port!r:.40}: use a port of its own, up to {MAX_PORT}"
        raise ValueError(msg)
