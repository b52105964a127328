"""Which instance has a call: against slow twins, and by what each way promises."""

from __future__ import annotations

import random
from collections import Counter
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.balance import Hashed, LeastLoaded, RoundRobin, balancer, heaviest
from mesh.core.names import InstanceId
from mesh.core.traffic import Balance, By


class At(NamedTuple):
    """A candidate."""

    instance: InstanceId


ids = st.binary(min_size=16, max_size=16).map(lambda raw: At(InstanceId(raw)))
some = st.lists(ids, min_size=1, max_size=12, unique=True)
FEW = [At(InstanceId(bytes([n]) * 16)) for n in range(1, 9)]


def idle(_candidate: At) -> int:
    return 0


@settings(deadline=None)
@given(some, st.integers(), st.data())
def test_of_two_the_less_loaded(candidates: list[At], seed: int, data: st.DataObject) -> None:
    """It is one of two that were drawn, and the other has no fewer calls."""
    loads = {one: data.draw(st.integers(0, 3)) for one in candidates}
    drawn = random.Random(seed).sample(candidates, min(2, len(candidates)))
    chosen = LeastLoaded(random.Random(seed).sample).choose(candidates, loads.__getitem__, ())
    assert chosen in drawn
    assert loads[chosen] == min(loads[one] for one in drawn)


@settings(deadline=None)
@given(some, st.binary(min_size=16, max_size=16), st.randoms())
def test_in_turn(candidates: list[At], begin: bytes, rnd: random.Random) -> None:
    """As a twin that counts through the sorted ones, whatever the order they are given in."""
    robin, ring = RoundRobin(begin), sorted(candidates, key=lambda one: one.instance.raw)
    at = next((i for i, one in enumerate(ring) if one.instance.raw > begin), 0)
    for step in range(2 * len(ring)):
        rnd.shuffle(candidates)
        assert robin.choose(candidates, idle, ()) == ring[(at + step) % len(ring)]


@settings(deadline=None)
@given(st.lists(some, min_size=1, max_size=20), st.binary(min_size=16, max_size=16))
def test_in_turn_while_they_come_and_go(lists: list[list[At]], begin: bytes) -> None:
    """Always a candidate, and never the same twice while there are others."""
    robin, last = RoundRobin(begin), list[At]()
    for candidates in lists:
        chosen = robin.choose(candidates, idle, ())
        assert chosen in candidates
        assert [chosen] != last or len(candidates) == 1
        last = [chosen]


@settings(deadline=None)
@given(some, st.one_of(st.text(), st.binary()), st.randoms())
def test_every_node_finds_the_same(candidates: list[At], value: str | bytes, rnd: random.Random) -> None:
    """In whatever order it lists them."""
    chosen = heaviest(candidates, value)
    rnd.shuffle(candidates)
    assert heaviest(candidates, value) == chosen


@settings(deadline=None)
@given(some, st.text(), st.data())
def test_removal_moves_only_its_share(candidates: list[At], value: str, data: st.DataObject) -> None:
    """A value whose instance stays goes on going there, when another one leaves."""
    gone = data.draw(st.sampled_from(candidates))
    before, left = heaviest(candidates, value), [one for one in candidates if one != gone]
    if left and before != gone:
        assert heaviest(left, value) == before


def test_shares_are_even() -> None:
    """Of 8,000 values each of 8 instances has about 1,000: within six deviations."""
    shares = Counter(heaviest(FEW, f"customer-{n}") for n in range(8000))
    assert set(shares) == set(FEW)
    assert all(820 < share < 1180 for share in shares.values())


def test_the_first_value_of_the_key_decides_and_without_one_the_load() -> None:
    """Other keys do not count."""
    busy = dict.fromkeys(FEW, 1) | {FEW[3]: 0}
    hashed = Hashed("x-customer", LeastLoaded(lambda all_of_them, _: list(all_of_them)))
    entries = (("x-other", "b"), ("x-customer", "a"), ("x-customer", "b"))
    assert hashed.choose(FEW, busy.__getitem__, entries) == heaviest(FEW, "a")
    assert hashed.choose(FEW, busy.__getitem__, (("x-other", "b"),)) == FEW[3]


def test_what_a_policy_asks_for() -> None:
    """The three by name; least loaded where it says nothing."""
    assert isinstance(balancer(Balance(), bytes(16), random.sample), LeastLoaded)
    assert isinstance(balancer(Balance(By.ROUND_ROBIN), bytes(16), random.sample), RoundRobin)
    assert isinstance(balancer(Balance(By.HASH, "x"), bytes(16), random.sample), Hashed)
