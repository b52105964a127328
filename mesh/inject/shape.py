"""Whether plain data has the shape of a pod, as far as a pod is looked at here. Pure.

The API server has decoded a pod before it asks; a file nobody has. What has no shape below is not looked at
either, and passes. Null is absence, as in the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mesh.inject.errors import RefusedError

#: What every name maps to, where names are free.
_ANY: Final = "*"
#: Names that have to be there.
_NEEDED: Final = "!"
_SAID: Final[Mapping[object, str]] = {str: "a text", int: "a whole number"}
_TEXTS: Final = {_ANY: str}
_PORT: Final = {"name": str, "containerPort": int, "hostPort": int, _NEEDED: ("containerPort",)}
_CONTAINER: Final = {
    "name": str,
    "env": [{"name": str}],
    "ports": [_PORT],
    "volumeMounts": [{"name": str}],
    "securityContext": {"runAsUser": int, "procMount": str, "capabilities": {"add": [str]}},
    _NEEDED: ("name",),
}
_POD: Final = {
    "metadata": {"name": str, "generateName": str, "labels": _TEXTS, "annotations": _TEXTS},
    "spec": {
        "serviceAccountName": str,
        "serviceAccount": str,
        "terminationGracePeriodSeconds": int,
        "securityContext": {"runAsUser": int},
        "initContainers": [_CONTAINER],
        "containers": [_CONTAINER],
        "ephemeralContainers": [_CONTAINER],
        "volumes": [{"name": str, "projected": {"sources": [{"serviceAccountToken": {"audience": str}}]}}],
    },
}


def check(pod: object) -> None:
    """Raise ``RefusedError`` with the place for what cannot be a pod."""
    _check_mapping(pod, _POD, "")


def _check(found: object, shape: Any, where: str) -> None:
    if found is None:
        return
    if isinstance(shape, Mapping):
        _check_mapping(found, shape, where)
    elif isinstance(shape, list):
        if not isinstance(found, list):
            raise RefusedError(f"{where} has to be a list: see docs/kubernetes.md")
        for number, one in enumerate(found):
            if one is None:
                raise RefusedError(f"{where}[{number}] is empty: remove it")
            _check(one, shape[0], f"{where}[{number}]")
    elif type(found) is not shape:
        quote = "put it in quotes" if shape is str and isinstance(found, (bool, int, float)) else ""
        raise RefusedError(f"{where} has to be {_SAID[shape]}: {quote or 'see docs/kubernetes.md'}")


def _check_mapping(found: object, shape: Mapping[str, Any], where: str) -> None:
    if not isinstance(found, Mapping):
        raise RefusedError(f"{where or 'a pod'} has to be a mapping: see docs/kubernetes.md")
    before = f"{where}." if where else ""
    for key in shape.get(_NEEDED, ()):
        if not found.get(key):
            raise RefusedError(f"{before}{key} is missing: add it")
    for key, value in found.items():
        if key in shape or _ANY in shape:
            _check(value, shape.get(key, shape.get(_ANY)), f"{before}{key}")
