"""An AdmissionReview as the API server of Kubernetes 1.33 sends it for a pod of a ReplicaSet."""

from __future__ import annotations

import base64
import json
from typing import Any

POD: dict[str, Any] = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {
        "generateName": "orders-6c54bd5869-",
        "creationTimestamp": None,
        "labels": {"app": "orders", "pod-template-hash": "6c54bd5869"},
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": "orders-6c54bd5869",
                "uid": "16c2b355-5f5d-11e8-ac91-36e6bb280816",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    },
    "spec": {
        "volumes": [
            {
                "name": "kube-api-access-fjz5m",
                "projected": {
                    "sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}],
                    "defaultMode": 420,
                },
            }
        ],
        "containers": [
            {
                "name": "app",
                "image": "orders:1",
                "ports": [{"name": "grpc", "containerPort": 9000, "protocol": "TCP"}],
                "resources": {},
                "volumeMounts": [
                    {
                        "name": "kube-api-access-fjz5m",
                        "readOnly": True,
                        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                    }
                ],
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "IfNotPresent",
            }
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "orders",
        "serviceAccount": "orders",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    },
    "status": {},
}


def review(pod: dict[str, Any] = POD, **request: Any) -> dict[str, Any]:
    """Give a review of a pod that is to be created in the namespace ``shop``."""
    return {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "uid": "a7e0ab33-5f29-11e8-8a3c-36e6bb280816",
                "groups": ["system:serviceaccounts", "system:authenticated"],
            },
            "object": pod,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
            **request,
        },
    }


def patched(pod: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
    """Apply the patch of a response as the API server does (RFC 6902, ``add`` and ``remove``)."""
    made: dict[str, Any] = json.loads(json.dumps(pod))
    if "patch" not in response:
        return made
    assert response["patchType"] == "JSONPatch"
    for one in json.loads(base64.b64decode(response["patch"], validate=True)):
        *way, last = one["path"].split("/")[1:]
        holder = made
        for key in way:
            holder = holder[key]
        if one["op"] == "remove":
            del holder[last]
        else:
            assert one["op"] == "add"
            holder[last] = one["value"]
    return made
