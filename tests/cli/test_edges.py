"""``mesh edges``: what is recorded, put together by pairs of services."""

from mesh.cli.edges import Edge, edges_of
from mesh.core.observed import ALLOW, AUDIT, DENY, Gap, Observation

BUY = Observation("front", "orders", "/a.B/Buy", 1_000, 2_000, 5, ALLOW, "buys")
AUDITED = Observation("front", "orders", "/a.B/Try", 1_000, 9_000, 2, AUDIT, "tries", "no-try")
PURGE = Observation("front", "orders", "/a.B/Purge", 3_000, 4_000, 3, DENY, "no-purge")
LATER = Observation("front", "orders", "/a.B/Drop", 3_000, 5_000, 1, DENY)


def test_edges_of() -> None:
    """What is alike in source and destination is one edge; what denied last is kept."""
    (edge,) = edges_of([PURGE, BUY, LATER, AUDITED])
    assert edge == Edge("front", "orders", 7, 4, 0, 9_000, LATER)


def test_what_is_not_known() -> None:
    """Calls that were only counted are neither permitted nor denied, and nobody's in particular."""
    unknown, known = edges_of([Gap("orders", 1_000, 2_000, 9), BUY])
    assert (unknown.source, unknown.unknown, unknown.permitted, unknown.denied) == ("?", 9, 0, 0)
    assert (known.source, known.permitted) == ("front", 5)


def test_of_one_service() -> None:
    """A service's edges are those that it is on either side of."""
    other = Observation("orders", "stock", "/a.B/Count", 1_000, 2_000, 1, ALLOW, "counts")
    assert [edge.source for edge in edges_of([BUY, other], "orders")] == ["front", "orders"]
    assert [edge.source for edge in edges_of([BUY, other], "stock")] == ["orders"]
    assert edges_of([BUY, other], "none") == []
