"""Pods that could get around their sidecar, or at its keys: refused, with what to change.

A sidecar guards what shares nothing with it but the pod's loopback interface. Whoever shares the node's
network, the processes of the node or of the pod, or the sidecar's own volumes, can take its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from mesh.inject.errors import RefusedError

SIDECAR: Final = "mesh-sidecar"
TOKEN_VOLUME: Final = "mesh-token"  # noqa: S105  a name
JOIN_VOLUME: Final = "mesh-join"
RUN_VOLUME: Final = "mesh-run"
_SHARED: Final = {
    "hostNetwork": "shares the node's network, where any process could call as this pod",
    "hostPID": "sees the node's processes",
    "hostIPC": "shares the node's memory segments",
    "shareProcessNamespace": "lets its containers see the sidecar's memory",
}
#: Capabilities (capabilities(7)) with which a container gets at another's processes or traffic.
_CAPABILITIES: Final = frozenset({"ALL", "SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "NET_RAW"})


def check(spec: Mapping[str, Any]) -> None:
    """Raise ``RefusedError`` for the specification of a pod that could get around its sidecar."""
    for key, why in _SHARED.items():
        if spec.get(key):
            raise RefusedError(f"a pod with {key} {why}: remove it, or opt the pod out of the mesh")
    for container in containers(spec):
        name = container.get("name", "")
        for fault in _faults(container):
            raise RefusedError(f"container {name}: {fault}: change that, or opt the pod out of the mesh")


def containers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Give every container of a pod that is not the sidecar."""
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from (one for one in spec.get(kind) or [] if one.get("name") != SIDECAR)


def _faults(container: Mapping[str, Any]) -> Iterator[str]:
    security = container.get("securityContext") or {}
    if security.get("privileged"):
        yield "privileged, so it could take the sidecar's keys"
    if taken := _CAPABILITIES.intersection(_added(security)):
        yield f"has {', '.join(sorted(taken))}, so it could take the sidecar's traffic or keys"
    if any(port.get("hostPort") for port in container.get("ports") or []):
        yield "has a hostPort, which can be called past the mesh"
    mounts = {mount.get("name") for mount in container.get("volumeMounts") or []}
    if mounts & {TOKEN_VOLUME, JOIN_VOLUME}:
        yield "mounts a volume of the sidecar"


def _added(security: Mapping[str, Any]) -> Iterator[str]:
    for name in (security.get("capabilities") or {}).get("add") or []:
        yield str(name).upper().removeprefix("CAP_")
