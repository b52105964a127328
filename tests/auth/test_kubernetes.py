"""Who Kubernetes says the owner of a token is, asked of an API server that checks what it is sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from lightkube import AsyncClient, KubeConfig

from mesh.core.workloads import Rules, Workload
from services.auth.errors import StartError
from services.auth.kubernetes import Kubernetes, Settings
from services.auth.vouching import NotVouchedError, UnaskedError
from tests.kubernetes import REVIEWS, FakeApi, fake_api

AUDIENCE = "sealmesh/shop.example"
SETTINGS = Settings(AUDIENCE, "mesh", "sealmesh-join", Rules([]))
MAP = "/api/v1/namespaces/mesh/configmaps/sealmesh-join"


def true_token(**changes: Any) -> dict[str, Any]:
    """Give the status of a review of the token of a pod of the shop's orders."""
    user = {
        "username": "system:serviceaccount:shop:orders",
        "uid": "7f2e",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"],
        "extra": {
            "authentication.kubernetes.io/credential-id": ["JTI=1"],
            "authentication.kubernetes.io/pod-name": ["orders-6c54bd5869-x2x7f"],
            "authentication.kubernetes.io/pod-uid": ["2d4e"],
        },
    }
    return {"authenticated": True, "user": user, "audiences": [AUDIENCE], **changes}


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as running:
        yield running


@pytest.fixture
async def kubernetes(api: FakeApi) -> AsyncIterator[Kubernetes]:
    made = Kubernetes(SETTINGS, AsyncClient(KubeConfig.from_dict(api.config()), trust_env=False))
    yield made
    await made.close()


async def test_a_true_token_is_its_pod(api: FakeApi, kubernetes: Kubernetes) -> None:
    """The token is asked about for the mesh's audience and no other, and nothing else is sent."""
    api.tokens["t"] = true_token()
    assert await kubernetes.review("t") == Workload("shop", "orders", "orders-6c54bd5869-x2x7f")
    ((method, path, body),) = api.asked
    assert (method, path) == ("POST", REVIEWS)
    assert body["spec"] == {"token": "t", "audiences": [AUDIENCE]}


async def test_a_token_without_a_pod(api: FakeApi, kubernetes: Kubernetes) -> None:
    """As kubectl makes it for a person."""
    api.tokens["t"] = true_token(user={"username": "system:serviceaccount:mesh:operator"})
    assert await kubernetes.review("t") == Workload("mesh", "operator", "")


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({"authenticated": False, "error": "[invalid bearer token, expired]"}, "expired"),
        ({}, "not true, or its pod is gone"),
        (true_token(authenticated=False), "not true, or its pod is gone"),
        (true_token(audiences=["https://kubernetes.default.svc"]), "another audience"),
        (true_token(audiences=None), "another audience"),
        (true_token(user=None), "no service account's"),
        (true_token(user={"username": "system:admin"}), "no service account's"),
        (true_token(user={"username": "system:serviceaccount:a:b:c"}), "no service account's"),
        (true_token(user={"username": "x:system:serviceaccount:a:b"}), "no service account's"),
    ],
)
async def test_whatever_else_comes_vouches_for_nobody(
    api: FakeApi, kubernetes: Kubernetes, status: dict[str, Any], why: str
) -> None:
    """An answer that does not say all that is needed is a no."""
    api.tokens["t"] = status
    with pytest.raises(NotVouchedError, match=why):
        await kubernetes.review("t")


async def test_no_answer_is_no_refusal(api: FakeApi, kubernetes: Kubernetes) -> None:
    """The node is to ask again."""
    api.broken = True
    with pytest.raises(UnaskedError, match="etcd is away"):
        await kubernetes.review("t")
    with pytest.raises(UnaskedError, match="etcd is away"):
        await kubernetes.publish({"join-key": "k"})


async def test_no_way_to_it_is_no_refusal() -> None:
    """Nobody listens there."""
    with fake_api() as gone:
        config = gone.config()
    made = Kubernetes(SETTINGS, AsyncClient(KubeConfig.from_dict(config), trust_env=False))
    with pytest.raises(UnaskedError, match="does not answer"):
        await made.review("t")
    await made.close()


async def test_what_nodes_join_with_is_published_and_kept(api: FakeApi, kubernetes: Kubernetes) -> None:
    """Made, left alone, and put right where somebody has changed it."""
    data = {"join-key": "k"}
    await kubernetes.publish(data)
    assert api.verbs() == [("POST", MAP.rpartition("/")[0])]
    await kubernetes.publish(data)
    assert len(api.verbs()) == 1
    api.put(MAP, data={"join-key": "forged"})
    await kubernetes.publish(data)
    assert api.objects[MAP]["data"] == data


def test_settings(tmp_path: Path) -> None:
    """As the chart writes them; anything else is told in a line."""
    file = tmp_path / "auth.yaml"
    good = {"audience": "a", "namespace": "n", "configMap": "c", "rules": []}
    file.write_text(json.dumps(good))
    assert Settings.read(file).config_map == "c"
    for text, why in (
        ("[", "while parsing"),
        ("[]", "has to be a mapping of"),
        (json.dumps({**good, "more": 1}), "has to be a mapping of"),
        (json.dumps({**good, "audience": 1}), "have to be texts"),
        (json.dumps({**good, "rules": [{}]}), r"rules\[0\]: namespace is missing"),
    ):
        file.write_text(text)
        with pytest.raises(StartError, match=why) as caught:
            Settings.read(file)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(StartError, match="cannot read"):
        Settings.read(tmp_path / "none")
