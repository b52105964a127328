"""Sets of revoked instances: they grow in any order, and forget what is over."""

from mesh.core.names import InstanceId
from mesh.core.revoked import Revoked

ONE, TWO, THREE = (InstanceId(bytes([number] * 16)) for number in (1, 2, 3))


def test_they_only_grow_whatever_comes_late() -> None:
    """A stale list takes nobody off, in whatever order lists come."""
    new = Revoked().joined({ONE: 100, TWO: 200}, 0)
    assert set(new.joined({ONE: 100}, 0)) == {ONE, TWO}
    assert set(Revoked().joined({ONE: 100}, 0).joined({TWO: 200}, 0)) == {ONE, TWO}
    assert new.joined({}, 0) is new
    assert (ONE in new, THREE in new, len(new)) == (True, False, 2)


def test_what_is_over_is_forgotten_and_not_taken_back() -> None:
    """At the time of its end an entry goes; the later of two ends counts."""
    held = Revoked({ONE: 100, TWO: 200})
    assert held.joined({}, 99) is held
    assert held.joined({}, 100).items() == [(TWO, 200)]
    assert held.joined({ONE: 100}, 150).items() == [(TWO, 200)]
    assert held.joined({ONE: 300, TWO: 1}, 0).items() == [(ONE, 300), (TWO, 200)]


def test_the_difference_is_what_the_other_does_not_have() -> None:
    """Told again is nobody."""
    before = Revoked({ONE: 100})
    assert before.since(before) == []
    assert before.joined({TWO: 200}, 0).since(before) == [(TWO, 200)]
    assert Revoked({ONE: 100}).since(before) == []
