"""Where the calls to a service go: by header, else by weight, never where they cannot."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.rules import HeaderRule
from mesh.core.split import destination
from mesh.core.traffic import Share

CANARY = HeaderRule("x-canary", ("*",))
EU = HeaderRule("x-zone", ("eu-*",))
SPLIT = (
    Share("next", headers=(CANARY, EU)),
    Share("canary", headers=(CANARY,)),
    Share("next", weight=5),
    Share("orders", weight=95),
)


def anywhere(_service: str) -> bool:
    return True


def first(_below: int) -> int:
    return 0


def test_headers_go_before_weights_and_the_first_before_the_next() -> None:
    """Every header of a share, and every entry of its key, has to match."""
    both = (("x-canary", "1"), ("x-zone", "eu-1"))
    assert destination(SPLIT, both, anywhere, first) == "next"
    assert destination(SPLIT, both[:1], anywhere, first) == "canary"
    assert destination(SPLIT, (*both, ("x-zone", "us")), anywhere, first) == "canary"
    assert destination(SPLIT, (("x-canary", b"1"),), anywhere, first) == "canary"
    assert destination(SPLIT, (("x-other", "1"),), anywhere, lambda below: below - 1) == "orders"


def test_a_share_that_cannot_take_calls_leaves_them_to_the_others() -> None:
    """By header the next that matches, by weight all that are left, and at last the service itself."""
    both = (("x-canary", "1"), ("x-zone", "eu-1"))
    assert destination(SPLIT, both, {"canary", "orders"}.__contains__, first) == "canary"
    assert destination(SPLIT, both, {"orders"}.__contains__, first) == "orders"
    assert destination(SPLIT, both, {"other"}.__contains__, first) is None
    assert destination((), both, anywhere, first) is None
    assert destination(SPLIT[:2], (), anywhere, first) is None
    assert destination((Share("orders"),), (), anywhere, first) is None


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 6)), max_size=8),
    st.sets(st.sampled_from("abcd")),
)
def test_weights_are_kept_exactly(weights: list[tuple[str, int]], listed: set[str]) -> None:
    """Over all that can be drawn, as a twin that writes each name as often as it weighs."""
    split = [Share(name, weight=weight) for name, weight in weights]
    twin = [name for name, weight in weights if name in listed for _ in range(weight)]
    found = [destination(split, (), listed.__contains__, lambda _: drawn) for drawn in range(len(twin))]  # noqa: B023
    assert found == twin
    if not twin:
        assert destination(split, (), listed.__contains__, first) is None
