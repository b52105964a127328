"""Whatever is in the place of a pod: a pod with its sidecar comes out, or a refusal, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.inject.errors import RefusedError
from mesh.inject.pod import inject
from tests.inject.pods import SETTINGS, pod

Place = tuple[Any, Any]
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=3)
    | st.sampled_from(["mesh-sidecar", "grpc"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
FULL = pod(
    initContainers=[{"name": "i", "env": [{"name": "E"}], "volumeMounts": [{"name": "v"}]}],
    volumes=[{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"audience": "a"}}]}}],
    securityContext={"runAsUser": 1000},
    terminationGracePeriodSeconds=30,
)
FULL["metadata"]["annotations"] = {"sealmesh.dev/cpu-limit": "1", "sealmesh.dev/OTEL_BSP_MAX": "1"}
FULL["spec"]["containers"][0]["securityContext"] = {"runAsUser": 1, "capabilities": {"add": ["KILL"]}}


def places(holder: Any) -> Iterator[Place]:
    for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
        yield holder, key
        if isinstance(value, dict | list):
            yield from places(value)


@given(st.data(), junk)
def test_whatever_a_part_is_it_is_taken_or_refused(data: st.DataObject, what: Any) -> None:
    """Junk in any one place of a pod."""
    made = deepcopy(FULL)
    holder, key = data.draw(st.sampled_from(list(places(made))))
    holder[key] = what
    with suppress(RefusedError):
        once = inject(made, "shop", SETTINGS)
        assert inject(once, "shop", SETTINGS) == once


@given(junk)
def test_what_is_no_pod_is_refused(what: Any) -> None:
    """Junk in the place of the whole."""
    with pytest.raises(RefusedError):
        inject(what, "shop", SETTINGS)


def test_the_whole_pod_is_taken() -> None:
    """The tests above begin with one that is."""
    assert inject(FULL, "shop", SETTINGS)["spec"]["initContainers"][0]["name"] == "mesh-sidecar"
