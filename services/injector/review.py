"""Admission reviews (admission.k8s.io/v1): a pod that is to be created in, its patch or refusal out. Pure.

See "webhook request and response" of the Kubernetes reference on extensible admission controllers.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from mesh.inject.errors import RefusedError
from mesh.inject.pod import inject
from mesh.inject.settings import Settings

API_VERSION: Final = "admission.k8s.io/v1"
#: Characters of a refusal.
MAX_MESSAGE: Final = 1000
_REVIEW: Final = "AdmissionReview"


def review(document: object, settings: Settings) -> dict[str, Any]:
    """Answer a review; raise ``ValueError`` for a document that is none."""
    request = _request(document)
    answer: dict[str, Any] = {"uid": request["uid"], "allowed": True}
    if request.get("kind") == {"group": "", "version": "v1", "kind": "Pod"}:
        pod = request["object"]
        try:
            patch = _patch(pod, inject(pod, request.get("namespace", ""), settings))
        except RefusedError as error:
            # Names in it may be anything yet: the API server looks at those later.
            message = " ".join(f"sealmesh: {error}".split())[:MAX_MESSAGE]
            status = {"code": 403, "reason": "Forbidden", "message": message}
            answer |= {"allowed": False, "status": status}
        else:
            answer |= patch
    return {"apiVersion": API_VERSION, "kind": _REVIEW, "response": answer}


def _request(document: object) -> Mapping[str, Any]:
    if isinstance(document, Mapping):
        request = document.get("request")
        named = document.get("apiVersion"), document.get("kind")
        if named == (API_VERSION, _REVIEW) and isinstance(request, Mapping):
            texts = request.get("uid"), request.get("namespace", "")
            if isinstance(request.get("object"), Mapping) and all(isinstance(text, str) for text in texts):
                return request
    msg = f"not an {_REVIEW} of {API_VERSION} with a request"
    raise ValueError(msg)


def _patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    operations = [*_changes("", before, after, ("metadata",)), *_spec_changes(before, after)]
    if not operations:
        return {}
    return {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(operations).encode()).decode()}


def _spec_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    old, new = before.get("spec") or {}, after.get("spec") or {}
    return _changes("/spec", old, new, tuple(dict.fromkeys([*old, *new])))


def _changes(
    where: str, before: Mapping[str, Any], after: Mapping[str, Any], keys: tuple[str, ...]
) -> list[dict[str, Any]]:
    # "add" puts a member in the place of one that is there (RFC 6902 section 4.1).
    operations: list[dict[str, Any]] = []
    for key in keys:
        if key not in after and key in before:
            operations.append({"op": "remove", "path": f"{where}/{key}"})
        elif key in after and (key not in before or before[key] != after[key]):
            operations.append({"op": "add", "path": f"{where}/{key}", "value": after[key]})
    return operations
