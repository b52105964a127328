"""Pods as people write them, and the settings of a cluster."""

from __future__ import annotations

from typing import Any

from mesh.inject.settings import Settings

RULES = [
    {"namespace": "shop", "serviceAccount": "orders", "service": "orders"},
    {"namespace": "shop", "serviceAccount": "default", "pod": "frontend-*", "service": "frontend"},
]
DOCUMENT: dict[str, Any] = {"image": "sidecar:1", "auth": "sealmesh-auth.sealmesh.svc:7700", "rules": RULES}
SETTINGS = Settings.parse(DOCUMENT)


def pod(**spec: Any) -> dict[str, Any]:
    """Give a pod of the shop's orders, with parts of its specification changed."""
    app = {"name": "app", "image": "orders:1", "ports": [{"name": "grpc", "containerPort": 9000}]}
    base: dict[str, Any] = {"serviceAccountName": "orders", "containers": [app]}
    return {"metadata": {"name": "orders-1", "labels": {"app": "orders"}}, "spec": {**base, **spec}}


def annotated(**annotations: str) -> dict[str, Any]:
    """Give that pod with annotations of the mesh; ``_`` stands for a hyphen."""
    made = pod()
    named = {f"sealmesh.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    made["metadata"]["annotations"] = named
    return made
