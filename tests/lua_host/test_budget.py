"""How often something may be done, against a slow twin that keeps every time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.lua_host.budget import Budget


class Twin:
    """Gives each use the first free slot of a row, ``1 / rate`` apart, ``burst`` of which lie behind."""

    def __init__(self, rate: float, burst: int) -> None:
        self.gap, self.free = 1 / rate, -(burst - 1) / rate
        self.burst = burst

    def spend(self, now: float) -> float:
        """Take one; give the wait."""
        slot = max(self.free, now - (self.burst - 1) * self.gap)
        self.free = slot + self.gap
        return max(0.0, slot - now)


@given(
    st.integers(1, 1000),
    st.integers(1, 50),
    st.lists(st.floats(0, 3, allow_nan=False), max_size=200),
)
def test_it_waits_exactly_as_long_as_the_twin(rate: int, burst: int, gaps: list[float]) -> None:
    """So many at once, so many a second, and never more."""
    budget, twin, now = Budget(rate, burst, 0.0), Twin(rate, burst), 0.0
    for gap in gaps:
        now += gap / rate
        waited = budget.spend(now)
        assert abs(waited - twin.spend(now)) < 1e-6
        now += waited
