"""Reviews in, patches out: what the API server makes of them is what ``inject`` says."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from mesh.inject.pod import inject
from services.injector.review import review as answer
from tests.inject.pods import SETTINGS
from tests.injector.reviews import POD, patched, review


def response(document: dict[str, Any]) -> dict[str, Any]:
    given = answer(document, SETTINGS)
    assert (given["apiVersion"], given["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    found: dict[str, Any] = given["response"]
    assert found["uid"] == document["request"]["uid"]
    return found


def test_the_patch_makes_the_injected_pod() -> None:
    """One function decides; the webhook only carries it."""
    found = response(review())
    assert found["allowed"] is True
    assert patched(POD, found) == inject(POD, "shop", SETTINGS)


def test_an_injected_pod_needs_no_patch() -> None:
    """The API server asks again after other webhooks (reinvocation): nothing is to be done then."""
    assert "patch" not in response(review(patched(POD, response(review()))))


def test_a_pod_that_brings_a_sidecar_of_another_version_is_made_anew() -> None:
    """Members that are ours and no longer needed go, too."""
    pod = patched(POD, response(review()))
    pod["metadata"]["annotations"]["sealmesh.dev/inject"] = "disabled"
    assert "patch" not in response(review(pod))


def test_a_refusal_says_why() -> None:
    """What the person at kubectl reads."""
    pod = deepcopy(POD)
    pod["spec"]["hostNetwork"] = True
    found = response(review(pod))
    assert found["allowed"] is False
    assert found["status"]["code"] == 403
    assert found["status"]["message"].startswith("sealmesh: a pod with hostNetwork shares")


def test_a_refusal_is_a_line_whatever_the_pod_calls_itself() -> None:
    """Names are judged after the webhook: they may be long, and of many lines."""
    pod = deepcopy(POD)
    pod["spec"]["containers"][0] |= {"name": "a\nb" * 100_000, "securityContext": {"privileged": True}}
    message = response(review(pod))["status"]["message"]
    assert message.startswith("sealmesh: container a ba b")
    assert len(message) == 1000
    assert "\n" not in message


def test_the_namespace_is_the_requests() -> None:
    """Who a pod is does not hang on what it says of itself."""
    pod = deepcopy(POD)
    pod["metadata"]["namespace"] = "shop"
    assert response(review(pod, namespace="elsewhere"))["allowed"] is False


def test_other_kinds_pass() -> None:
    """The webhook asks for pods alone; whatever else comes is none of its business."""
    other = review(kind={"group": "", "version": "v1", "kind": "Service"})
    assert response(other) == {"uid": other["request"]["uid"], "allowed": True}


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {**review(), "apiVersion": "admission.k8s.io/v1beta1"},
        {**review(), "kind": "Review"},
        {**review(), "request": None},
        review(uid=1),
        review(object=None),
        review(namespace=1),
    ],
)
def test_what_is_no_review_gets_no_answer(document: Any) -> None:
    """The API server then does as failurePolicy says: it fails."""
    with pytest.raises(ValueError, match="not an AdmissionReview"):
        answer(document, SETTINGS)
