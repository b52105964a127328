"""The Pod Security Standard "restricted", as far as a specification can break it. Pure.

Controls of https://kubernetes.io/docs/concepts/security/pod-security-standards, version 1.29 and later, and
what the mesh's own pods keep beyond it: a root file system that is read only, and limits of memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def faults(spec: dict[str, Any], *, strict: bool = True) -> list[str]:
    """Give what a pod's specification has that the standard forbids; ``strict``: ours beyond it, too."""
    pod = spec.get("securityContext", {})
    found = [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    for volume in spec.get("volumes", []):
        found += [
            f"volume {volume['name']} is a {kind}" for kind in volume if kind not in {*_VOLUMES, "name"}
        ]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        found += [f"{container['name']}: {fault}" for fault in _faults(container, pod)]
        if strict:
            found += [f"{container['name']}: {fault}" for fault in _ours(container)]
    return found


def _faults(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if "ALL" not in own.get("capabilities", {}).get("drop", []):
        yield "does not drop ALL"
    if set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "adds capabilities"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "may run as root"
    if own.get("runAsUser", pod.get("runAsUser")) == 0:
        yield "runs as root"
    seccomp = own.get("seccompProfile", pod.get("seccompProfile", {}))
    if seccomp.get("type") not in ("RuntimeDefault", "Localhost"):
        yield "has no seccomp profile"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "has a hostPort"


def _ours(container: dict[str, Any]) -> Iterator[str]:
    if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
        yield "can write to its root file system"
    resources = container.get("resources", {})
    if (
        "memory" not in resources.get("limits", {})
        or {"cpu", "memory"} - resources.get("requests", {}).keys()
    ):
        yield "has no requests or no limit of memory"
