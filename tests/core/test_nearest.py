"""What rules lack that do not apply, asked of a rule by its name or of the nearest one."""

from __future__ import annotations

from mesh.core.condition import Call
from mesh.core.names import ServiceName
from mesh.core.nearest import instead, unjudged
from mesh.core.rules import ALLOW, DENY
from tests.core.test_explain import M, policy, rule

MADE = policy(
    allow=[rule("b", name="far"), rule("a", paths=("/x.Y/Z",)), rule("a", name="near", when="1 > 2")],
    deny=[
        rule("a", name="header", headers=[{"key": "k", "values": ["1"]}]),
        rule("a", name="doubt", when='metadata.k == "1"'),
    ],
)
SECTION = MADE.section(ServiceName("orders"))
CALL = Call("a", "orders", M, (("k", "2"), ("k", "3")), None)


def told(effect: str, name: str | None = None, call: Call = CALL) -> tuple[str, list[str]] | None:
    found = instead(SECTION, call, effect, name)
    return found and (found.placed.rule.name, [lack.text for lack in found.lacks])


def test_the_nearest() -> None:
    """Of an effect; none if there are no rules, or if it applies."""
    assert told(ALLOW) == ("near", ["its condition is false: 1 > 2"])
    assert told(DENY) is None
    once = CALL._replace(entries=(("k", "2"),))
    assert told(DENY, call=once) == ("header", ["the call has k: 2, and it wants k: 1"])
    assert instead(policy().section(ServiceName("orders")), CALL, ALLOW) is None


def test_one_by_its_name() -> None:
    """Be it an allow or a deny rule; none if there is no such rule, or if it applies."""
    assert told(DENY, "far") == ("far", ["a is not among its principals"])
    assert told(ALLOW, "header") == ("header", ["the call has k: 2, 3, and it wants k: 1"])
    assert told(ALLOW, "doubt") is None
    assert told(ALLOW, "nowhere") is None


def test_why_a_deny_rule_applies_that_cannot_be_judged() -> None:
    """The reason is told; there is none for a rule that can be judged, or that has no condition."""
    header, doubt = SECTION.deny
    assert (
        unjudged(doubt, CALL) == 'its condition cannot be judged (k comes several times): metadata.k == "1"'
    )
    assert unjudged(doubt, CALL._replace(entries=(("k", "2"),))) == ""
    assert unjudged(header, CALL) == ""
    (number,) = policy(deny=[rule("a", when="int(metadata.k) > 1")]).section(ServiceName("orders")).deny
    said = unjudged(number, CALL._replace(entries=(("k", "x"),)))
    assert said == "its condition cannot be judged: int(metadata.k) > 1"
