"""One pod with its sidecar put in. Pure: a pod's data in, a pod's data out.

What is ours in the pod that comes in is taken out first, so that doing it twice is doing it once, and a pod
that brings a sidecar of its own making gets the mesh's in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from mesh.core.workloads import Workload
from mesh.inject import bypass, parts, quantities, shape, tuning
from mesh.inject.bypass import JOIN_VOLUME, RUN_VOLUME, SIDECAR, TOKEN_VOLUME
from mesh.inject.errors import RefusedError
from mesh.inject.settings import Settings

DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
_VOLUMES: Final = frozenset({RUN_VOLUME, TOKEN_VOLUME, JOIN_VOLUME})
#: Seconds that a pod has at least for its end: a drain takes up to 32 (``node.DRAIN``, and leaving before).
END_SECONDS: Final = 40
_VARIABLES: Final = frozenset({"MESH_OUTBOUND", "MESH_RUN_DIR"})


def inject(pod: Mapping[str, Any], namespace: str, settings: Settings) -> dict[str, Any]:
    """Give the pod with its sidecar, or as it is if it opts out; raise ``RefusedError``.

    ``pod`` has ``metadata`` and ``spec``, as a Pod or the template of a workload has. A name that is not made
    yet is taken to begin as ``generateName`` says.
    """
    shape.check(pod)
    changed = deepcopy(dict(pod))
    if not tuning.wanted(changed):
        return changed
    spec = changed.get("spec")
    if not spec or not spec.get("containers"):
        raise RefusedError("there are no containers in this pod: see docs/kubernetes.md")
    if any(app.get("name") == SIDECAR for app in spec["containers"]):
        raise RefusedError(f"container {SIDECAR}: that name is the sidecar's: call the app's otherwise")
    _take_out(spec)
    bypass.check(spec, settings.audience)
    placed = _placed(changed, namespace, settings)
    _check_ports(spec, placed)
    quantities.check(parts.resources(placed))
    _put_in(spec, placed)
    annotations = _annotations(changed)
    annotations[tuning.INJECTED] = placed.service
    annotations.setdefault(DEFAULT_CONTAINER, spec["containers"][0]["name"])
    return changed


def _placed(pod: Mapping[str, Any], namespace: str, settings: Settings) -> parts.Placed:
    asked, spec, metadata = tuning.read(pod), pod["spec"], pod.get("metadata") or {}
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    name = metadata.get("name") or metadata.get("generateName") or "?"
    workload = Workload(namespace, account, name)
    service = settings.rules.service_of(workload)
    if service is None or service.reserved:
        raise RefusedError(
            f"no rule makes service account {account} of namespace {namespace} a service (pod {name}):"
            " add one to the rules"
        )
    if asked.service not in (None, service.text):
        raise RefusedError(
            f"{tuning.PREFIX}service is {asked.service!r:.80}, and the rules make this pod {service}:"
            " change one of the two"
        )
    try:
        told = settings.told(asked.env)
    except ValueError as error:
        raise RefusedError(f"annotations: {error}") from None
    return parts.Placed(service.text, asked, told, _uid(spec, settings.uid))


def _uid(spec: Mapping[str, Any], otherwise: int) -> int:
    # The app's own user where the pod names one that is not root: then the sockets are open to it, too.
    first = (spec["containers"][0].get("securityContext") or {}).get("runAsUser")
    uid: int | None = _pod_uid(spec) if first is None else first
    return uid or otherwise


def _pod_uid(spec: Mapping[str, Any]) -> int | None:
    uid: int | None = (spec.get("securityContext") or {}).get("runAsUser")
    return uid


def _check_ports(spec: Mapping[str, Any], placed: parts.Placed) -> None:
    ports = placed.settings.ports
    ours = {ports.inbound, ports.health}
    if placed.settings.metrics_port is not None:
        ours.add(placed.settings.metrics_port)
    if placed.outbound_port in ours:
        raise RefusedError(
            f"{tuning.PREFIX}outbound-port {placed.outbound_port} is another of the sidecar's: choose one"
        )
    ours.add(placed.outbound_port)
    asked = {port.get("containerPort") for one in bypass.containers(spec) for port in one.get("ports") or []}
    for port in sorted(ours & {*asked, placed.tuning.app_port} - {None}):
        raise RefusedError(f"port {port} is the sidecar's: let the app listen on another")


def _put_in(spec: dict[str, Any], placed: parts.Placed) -> None:
    spec["terminationGracePeriodSeconds"] = max(END_SECONDS, spec.get("terminationGracePeriodSeconds") or 0)
    spec["initContainers"] = [parts.container(placed), *(spec.get("initContainers") or [])]
    spec["volumes"] = [*(spec.get("volumes") or []), *parts.volumes(placed.settings)]
    for kind in ("initContainers", "containers"):
        for app in spec[kind]:
            if app["name"] != SIDECAR:
                _connect(app, placed, _pod_uid(spec))


def _connect(app: dict[str, Any], placed: parts.Placed, pod_uid: int | None) -> None:
    app["env"] = [*(app.get("env") or []), *parts.environment(placed, app, pod_uid)]
    if parts.shares_sockets(placed, app, pod_uid):
        mount = {"name": RUN_VOLUME, "mountPath": parts.RUN_DIR}
        app["volumeMounts"] = [*(app.get("volumeMounts") or []), mount]


def _take_out(spec: dict[str, Any]) -> None:
    for kind in ("initContainers", "containers"):
        for app in spec.get(kind) or []:
            _without(app, "env", _VARIABLES)
            if app.get("name") != SIDECAR:
                _without(app, "volumeMounts", frozenset({RUN_VOLUME}))
        _without(spec, kind, frozenset({SIDECAR}))
    _without(spec, "volumes", _VOLUMES)


def _without(holder: dict[str, Any], key: str, names: frozenset[str]) -> None:
    before = holder.get(key) or []
    kept = [one for one in before if one.get("name") not in names]
    if kept:
        holder[key] = kept
    elif before:
        del holder[key]


def _annotations(pod: dict[str, Any]) -> dict[str, str]:
    metadata = pod.get("metadata") or {}
    pod["metadata"] = metadata
    metadata["annotations"] = annotations = metadata.get("annotations") or {}
    found: dict[str, str] = annotations
    return found
