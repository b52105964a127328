"""Verdicts under a whole policy: what its nodes would say, said by the same matchers.

For everybody who asks about a policy rather than enforces it: tests of policies, explanations, recorded calls
judged again.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.core.condition import Call
from mesh.core.errors import Denied
from mesh.core.matcher import Audited, Matcher
from mesh.core.names import ServiceName
from mesh.core.policy import Policy


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a call is permitted, by which rule (``None``: by none), and what audit would have denied it."""

    permitted: bool
    rule: str | None
    audited: Audited | None = None

    @property
    def word(self) -> str:
        """``allow``, ``deny``, or ``audit`` for what is permitted only as long as something is in audit."""
        if not self.permitted:
            return "deny"
        return "audit" if self.audited else "allow"

    @property
    def why(self) -> str:
        """What decided, in a few words."""
        if self.audited:
            by = f"rule {self.audited.rule!r} denies" if self.audited.rule else "no rule allows it"
            return f"permitted in audit: {by}"
        if self.rule is None:
            return "no rule allows it"
        return f"rule {self.rule!r} {'allows' if self.permitted else 'denies'} it"


class Judge:
    """Judges calls to any service under one policy."""

    def __init__(self, policy: Policy) -> None:
        """Take a policy. Each service's rules are compiled at the first call to it."""
        self._policy = policy
        self._matchers: dict[str, Matcher] = {}

    def verdict(self, call: Call) -> Verdict:
        """Judge a call; what is no name and no method is denied like any other."""
        matcher = self._matchers.get(call.destination)
        if matcher is None:
            try:
                section = self._policy.section(ServiceName(call.destination))
            except ValueError:
                return Verdict(permitted=False, rule=None)
            matcher = self._matchers[call.destination] = Matcher(section)
        try:
            permit = matcher.permit(call.source, call.method, call.entries, call.now_ms)
        except Denied as denied:
            return Verdict(permitted=False, rule=denied.rule)
        return Verdict(permitted=True, rule=permit.rule or None, audited=permit.audited)
