"""Pods that could get around their sidecar, or at its keys: refused, with what to change.

A sidecar guards what shares nothing with it but the pod's loopback interface. Whoever shares the node's
network, the processes of the node or of the pod, or the sidecar's own volumes, can take its place. So can who
reads the node's files, for the kubelet keeps those volumes there, and who brings a proof for auth of his own.
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
#: Capabilities (capabilities(7)) that reach no further than the container: those of the Pod Security Standard
#: "baseline". Any other gets at processes, files or traffic that are not its own, or may with a newer kernel.
_CAPABILITIES: Final = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)


def check(spec: Mapping[str, Any], audience: str) -> None:
    """Raise ``RefusedError`` for the specification of a pod that could get around its sidecar.

    ``audience`` is that of the tokens that auth takes.
    """
    for key, why in _SHARED.items():
        if spec.get(key):
            raise RefusedError(f"a pod with {key} {why}: remove it, or opt the pod out of the mesh")
    for volume in spec.get("volumes") or []:
        if volume.get("hostPath") is not None:
            why = "is the node's files, where the sidecar's keys are, too"
        elif audience in _audiences(volume):
            why = "is a proof for auth, which is the sidecar's"
        else:
            continue
        raise RefusedError(f"volume {volume.get('name')} {why}: remove it, or opt the pod out of the mesh")
    for container in containers(spec):
        name = container.get("name", "")
        for fault in _faults(container):
            raise RefusedError(f"container {name}: {fault}: change that, or opt the pod out of the mesh")


def _audiences(volume: Mapping[str, Any]) -> Iterator[str | None]:
    for source in (volume.get("projected") or {}).get("sources") or []:
        yield (source.get("serviceAccountToken") or {}).get("audience")


def containers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Give every container of a pod that is not the sidecar."""
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from (one for one in spec.get(kind) or [] if one.get("name") != SIDECAR)


def _faults(container: Mapping[str, Any]) -> Iterator[str]:
    security = container.get("securityContext") or {}
    if security.get("privileged"):
        yield "privileged, so it could take the sidecar's keys"
    if taken := set(_added(security)) - _CAPABILITIES:
        yield f"has {', '.join(sorted(taken))}, so it could take the sidecar's traffic or keys"
    if security.get("procMount") not in {None, "Default"}:
        yield "sees what of the node a container is not to see (procMount)"
    if any(port.get("hostPort") for port in container.get("ports") or []):
        yield "has a hostPort, which can be called past the mesh"
    mounts = {mount.get("name") for mount in container.get("volumeMounts") or []}
    if mounts & {TOKEN_VOLUME, JOIN_VOLUME}:
        yield "mounts a volume of the sidecar"


def _added(security: Mapping[str, Any]) -> Iterator[str]:
    for name in (security.get("capabilities") or {}).get("add") or []:
        yield str(name).upper().removeprefix("CAP_")
