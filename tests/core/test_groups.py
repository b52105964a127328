"""Groups: who is in them, at any depth and in any number, and circles that are found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.document import Node, Object, PolicyError
from mesh.core.groups import NO_GROUPS, Groups, principals

names = st.sampled_from(["a", "b", "c", "d", "e"])
members = st.lists(
    names.map(lambda name: f"group:{name}") | st.sampled_from(["s", "t.*", "*"]), min_size=1, max_size=3
)


def groups(**listed: list[str]) -> Groups:
    return Groups.parse("groups", Object(list(listed.items())))


def test_no_groups_cost_nothing() -> None:
    """Without groups a service has the patterns of its name."""
    assert NO_GROUPS.patterns("a.b") == ("a.b", "a.*", "*.b", "*")
    assert NO_GROUPS.within(["a", "*"]) is NO_GROUPS
    assert groups(g=["a"]).within(["a"]) is NO_GROUPS


def test_a_group_of_groups() -> None:
    """A service is in the groups that list it, and in those that list these."""
    made = groups(inner=["s", "t.*"], middle=["group:inner"], outer=["group:middle", "group:inner", "u"])
    assert set(made.patterns("t.x")) == {
        "t.x",
        "t.*",
        "*.x",
        "*",
        "group:inner",
        "group:middle",
        "group:outer",
    }
    assert set(made.patterns("u")) == {"u", "*", "group:outer"}
    assert set(made.within(["group:middle", "u"]).members) == {"middle", "inner"}


def test_groups_do_not_change() -> None:
    """What was read cannot be changed afterwards."""
    with pytest.raises(TypeError):
        groups(g=["s"]).members["g"] = ()  # type: ignore[index]


def test_a_circle_is_shown_but_not_to_its_end() -> None:
    """The first names of it are enough to find it."""
    circle = {f"g{n}": [f"group:g{(n + 1) % 9}", "group:leaf"] for n in range(9)}
    with pytest.raises(
        PolicyError, match=r"^groups\.g0: holds itself \(g0 holds g1 holds g2 holds g3 \.\.\.\)"
    ):
        groups(leaf=["s"], zone=["group:g3"], **circle)


@pytest.mark.parametrize("circular", [False, True])
def test_a_hundred_thousand_groups_deep(circular: bool) -> None:
    """A chain costs what it takes to write down, with or without an end, and exhausts no stack."""
    depth = 100_000
    chain = {f"g{n}": [f"group:g{n + 1}"] for n in range(depth)}
    chain[f"g{depth}"] = ["group:g0"] if circular else ["s"]
    if circular:
        with pytest.raises(PolicyError, match="holds itself"):
            groups(**chain)
    else:
        assert len(groups(**chain).patterns("s")) == depth + 3


@given(st.fixed_dictionaries(dict.fromkeys("abcde", members)))
def test_like_a_search(listed: dict[str, list[str]]) -> None:
    """A circle is refused if there is one, and otherwise membership is what a search from above finds."""

    def reach(name: str, path: tuple[str, ...]) -> set[str]:
        if name in path:
            raise RecursionError
        inner = [m.removeprefix("group:") for m in listed[name] if m.startswith("group:")]
        return set(listed[name]).union(*(reach(i, (*path, name)) for i in inner))

    try:
        expected = {f"group:{name}" for name in listed if {"s", "*"} & reach(name, ())}
    except RecursionError:
        with pytest.raises(PolicyError, match="holds itself"):
            groups(**listed)
        return
    assert set(groups(**listed).patterns("s")) == expected | {"s", "*"}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("groups:readers", "bad principal 'groups:readers': write 'group:readers'"),
        (Object([("group", "readers")]), "not an object: write 'group:readers', without a blank"),
        (Object([("groups", "readers")]), "not an object: write 'group:readers', without a blank"),
        (Object([("group", "Readers")]), "has to be a text, not an object"),
        (Object([("team", "readers")]), "has to be a text, not an object"),
    ],
)
def test_a_group_written_otherwise(written: Node, said: str) -> None:
    """A blank after the colon makes it a mapping: it is refused with what was meant, if that is clear."""
    with pytest.raises(PolicyError) as refused:
        principals("here", ["a", written])
    assert str(refused.value).startswith("here[1]: ")
    assert str(refused.value).endswith(said)
