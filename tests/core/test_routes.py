"""Which route holds for a method: the first that matches, as a slow search says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.routes import REMEMBERED, Routes, shortened
from mesh.core.traffic import Route
from tests.core.test_patterns import slow_path

PATHS = ["*", "/p.S/M", "/p.S/N", "/p.S/*", "*/M", "*/N", "/q.T/*", "/q.T/M"]
METHODS = ["/p.S/M", "/p.S/N", "/p.S/O", "/q.T/M", "/q.T/N", "/r.U/O"]


@given(st.lists(st.lists(st.sampled_from(PATHS), min_size=1), max_size=5), st.lists(st.sampled_from(METHODS)))
def test_the_first_that_matches(paths: list[list[str]], methods: list[str]) -> None:
    """Whatever the routes: the fast look-up says what a search says, also when asked again."""
    made = [Route(tuple(one), place + 1) for place, one in enumerate(paths)]
    routes = Routes(made)
    for method in methods:
        slow = next((route for route in made if any(slow_path(path, method) for path in route.paths)), None)
        assert routes.of(method) is slow


def test_methods_without_end_do_not_fill_the_memory() -> None:
    """What is not remembered is looked up again."""
    route = Route(("*/M",))
    routes = Routes([route])
    for number in range(REMEMBERED + 2):
        assert routes.of(f"/p.S/M{number}") is None
    assert routes.of("/p.S/M") is route


@pytest.mark.parametrize(
    ("own", "ms", "left"),
    [(None, 0, None), (None, 1500, 1.5), (5.0, 0, 5.0), (5.0, 1500, 1.5), (1.0, 1500, 1.0)],
)
def test_a_timeout_only_ever_shortens(own: float | None, ms: int, left: float | None) -> None:
    """The call's own deadline holds where it is nearer."""
    assert shortened(own, Route(("*",), ms)) == left
