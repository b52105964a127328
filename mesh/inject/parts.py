"""The sidecar as Kubernetes describes it: a native one (Kubernetes 1.29 and later), and what it needs.

An init container that is restarted always starts before the app's containers and ends after them, so an app
never runs without the mesh. It starts when it is in the mesh; the pod is ready when its app can be called; at
the pod's end it leaves the directory first, and serves on until the app has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.inject.bypass import JOIN_VOLUME, RUN_VOLUME, SIDECAR, TOKEN_VOLUME
from mesh.inject.settings import Settings
from mesh.inject.tuning import Tuning

RUN_DIR: Final = "/run/mesh"
TOKEN_DIR: Final = "/var/run/secrets/sealmesh"  # noqa: S105  a path
JOIN_DIR: Final = "/etc/sealmesh/join"
#: Readiness as the sidecar's health service calls it; the empty name is being in the mesh.
READY: Final = "ready"
_SOCKETS: Final = f"{RUN_DIR}/sockets"
_RESOURCES: Final = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}


@dataclass(frozen=True, slots=True)
class Placed:
    """One sidecar in its place: who it is, what was asked and settled for it, and the user it runs as."""

    service: str
    tuning: Tuning
    settings: Settings
    uid: int

    @property
    def outbound_port(self) -> int:
        """The loopback port for the app's calls."""
        return self.tuning.outbound_port or self.settings.ports.outbound


def container(placed: Placed) -> dict[str, Any]:
    """Give the sidecar's container."""
    settings, ports = placed.settings, placed.settings.ports
    return {
        "name": SIDECAR,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "args": _arguments(placed),
        "env": [
            {"name": "MESH_SERVICE_ACCOUNT_TOKEN_FILE", "value": f"{TOKEN_DIR}/token"},
            {"name": "MESH_JOIN_KEY_FILE", "value": f"{JOIN_DIR}/join-key"},
            *({"name": name, "value": value} for name, value in sorted(settings.env.items())),
        ],
        "ports": _ports(settings),
        "startupProbe": {"grpc": {"port": ports.health}, "periodSeconds": 1, "failureThreshold": 120},
        "readinessProbe": {"grpc": {"port": ports.health, "service": READY}, "periodSeconds": 5},
        "livenessProbe": {"grpc": {"port": ports.health}, "periodSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"exec": {"command": ["python", "-m", "sidecar.drain"]}}},
        "resources": resources(placed),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsGroup": placed.uid,
            "runAsNonRoot": True,
            "runAsUser": placed.uid,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": RUN_VOLUME, "mountPath": RUN_DIR},
            {"name": TOKEN_VOLUME, "mountPath": TOKEN_DIR, "readOnly": True},
            {"name": JOIN_VOLUME, "mountPath": JOIN_DIR, "readOnly": True},
        ],
    }


def volumes(settings: Settings) -> list[dict[str, Any]]:
    """Give the sidecar's volumes: its sockets, its proof for auth, and auth's join key."""
    projected = {
        "path": "token",
        "audience": settings.audience,
        "expirationSeconds": settings.token_seconds,
    }
    return [
        {"name": RUN_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": projected}]}},
        {"name": JOIN_VOLUME, "configMap": {"name": settings.join_config_map}},
    ]


def environment(placed: Placed, app: Mapping[str, Any], pod_uid: int | None) -> list[dict[str, str]]:
    """Give what an app's container finds of the sidecar; its sockets only if it may open them."""
    found = [{"name": "MESH_OUTBOUND", "value": f"127.0.0.1:{placed.outbound_port}"}]
    if shares_sockets(placed, app, pod_uid):
        found.append({"name": "MESH_RUN_DIR", "value": _SOCKETS})
    return found


def shares_sockets(placed: Placed, app: Mapping[str, Any], pod_uid: int | None) -> bool:
    """Whether an app's container runs as the sidecar's user, to whom alone the sockets are open."""
    uid = (app.get("securityContext") or {}).get("runAsUser", pod_uid)
    return uid is not None and uid == placed.uid


def _arguments(placed: Placed) -> list[str]:
    ports, app_port = placed.settings.ports, placed.tuning.app_port
    given = {
        "--service": placed.service,
        "--auth": placed.settings.auth,
        "--listen": f"0.0.0.0:{ports.inbound}",
        "--health": f"0.0.0.0:{ports.health}",
        "--outbound-port": str(placed.outbound_port),
        "--run-dir": _SOCKETS,
    }
    if app_port is not None:
        given["--app-port"] = str(app_port)
    unasked = () if placed.tuning.app_health else ("--no-app-health",)
    return ["sidecar", *(word for pair in given.items() for word in pair), *unasked]


def _ports(settings: Settings) -> list[dict[str, Any]]:
    named = {"mesh": settings.ports.inbound, "mesh-health": settings.ports.health}
    if settings.metrics_port is not None:
        named["mesh-metrics"] = settings.metrics_port
    return [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in named.items()]


def resources(placed: Placed) -> dict[str, Any]:
    """Give the sidecar's requests and limits: the pod's own in the place of the cluster's."""
    base = _RESOURCES if placed.settings.resources is None else placed.settings.resources
    asked = placed.tuning.resources
    return {kind: {**base.get(kind, {}), **asked.get(kind, {})} for kind in sorted({*base, *asked})}
