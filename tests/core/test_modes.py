"""Which services change their mode, and what a policy is like in the modes of another."""

from __future__ import annotations

import json

from mesh.core.modes import Switched, in_modes_of, switched
from mesh.core.names import ServiceName
from mesh.core.policy import Policy


def policy(mode: str | None, **services: str | None) -> Policy:
    sections = {name: {"mode": own} if own else {} for name, own in services.items()}
    return Policy.parse(json.dumps({"services": sections} | ({"mode": mode} if mode else {})))


def test_wherever_a_mode_is_said_it_counts() -> None:
    """A service's own goes before the document's; a service that comes or goes is not told here."""
    old = policy(None, a=None, b="audit", c="enforce", d="audit", old="audit")
    new = policy("audit", a=None, b=None, c=None, d="enforce", new="audit")
    assert switched(old, new) == Switched(("a", "c"), ("d",))
    assert switched(new, old) == Switched(("d",), ("a", "c"))
    assert not any(switched(old, old))


def test_only_modes_are_taken_over() -> None:
    """Of the document and of what both have; nothing comes, and nothing goes."""
    moved = in_modes_of(policy("audit", a="enforce", new="audit"), policy(None, a="audit", old="audit"))
    assert moved.section(ServiceName("a")).audits is False
    assert moved == policy("audit", a="enforce", old="audit")
