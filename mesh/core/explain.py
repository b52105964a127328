"""Why a call is permitted or denied, and the smallest change of the policy that would permit it.

The smallest change is the one that permits least besides this call: one more entry in a rule that speaks of
nothing else, or a rule of its own that asks what the nearest one asks, as far as the call has it; where rules
deny, an exception to each for this caller and method. What is proposed was tried: the changed policy is a
good one, and permits the call. Nothing is proposed where a deny rule applies because its condition can never
be judged: with an exception it could, and so whom it kept from the service could know of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.core.condition import Call
from mesh.core.names import ServiceName
from mesh.core.nearest import Lack, is_broken, near, nearest
from mesh.core.policy import Policy
from mesh.core.remedy import Change, smallest
from mesh.core.rules import ALLOW, DENY, Placed
from mesh.core.verdict import Judge, Verdict


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict and the rules behind it.

    ``deciding`` gave the verdict; ``denying`` are all deny rules that apply, those in audit too. If no rule
    allows the call, ``nearest`` is the one that comes closest, and ``lacks`` what it lacks. ``changes``
    together are the smallest change that permits the call; none if it is permitted, or if there is none.
    ``broken`` are deny rules that apply because their conditions can never be judged: they are to be mended.
    """

    verdict: Verdict
    deciding: Placed | None
    denying: tuple[Placed, ...]
    nearest: Placed | None
    lacks: tuple[Lack, ...]
    changes: tuple[Change, ...]
    broken: tuple[Placed, ...] = ()


def explain(policy: Policy, call: Call) -> Explanation:
    """Explain the verdict on a call between well-formed names to a well-formed method."""
    section = policy.section(ServiceName(call.destination))
    verdict = Judge(policy).verdict(call)
    denying = tuple(one.placed for one in near(section, call, DENY) if not one.lacks)
    lacking = near(section, call, ALLOW)
    allowing = [one.placed for one in lacking if not one.lacks]
    deciding = next((one for one in (*denying, *allowing) if one.rule.name == verdict.rule), None)
    found = None if allowing else nearest(lacking)
    broken = tuple(one for one in denying if section.enforces(one.rule) and is_broken(one.rule, call))
    changes: tuple[Change, ...] = ()
    if not verdict.permitted and not broken:
        in_force = [one for one in denying if section.enforces(one.rule)]
        allowed = bool(allowing) or section.audits
        changes = smallest(policy, call, in_force, found.placed if found else None, allowed=allowed)
    placed, lacks = found or (None, ())
    return Explanation(verdict, deciding, denying, placed, lacks, changes, broken)
