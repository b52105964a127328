"""What one decision on a node takes under the policy of a large mesh: no call, only the judgement of one.

A matcher remembers what it narrowed down, so ``permitted`` and ``denied`` are what a node does call after
call. ``conditional`` is a permit by a condition over metadata and time, which has to be judged anew for every
call. ``unseen`` is the slowest that it can meet: a caller and method never seen before, at a service that has
all the rules of the policy. ``recorded`` is no decision, but counting one that looked at one key of metadata.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, Final

from mesh.core.decided import Decided, recorded
from mesh.core.errors import Denied
from mesh.core.matcher import Matcher, Permit
from mesh.core.names import ServiceName
from mesh.core.policy import Policy

SERVICES: Final = 1_000
RULES: Final = 10_000
REPEATS: Final = 5
UNSEEN: Final = 500

_NOW_MS: Final = 1_700_000_000_000
_SENT: Final = (("x-tenant", "acme"),)
_KEYS: Final = ("x-tenant",)
_CONDITION: Final = 'metadata["x-tenant"] == "acme" && time.getHours() < 24'
_METHOD: Final = "/shop.v1.Shop/Method{}"
_JUDGED: Final = "judged"


def policy(services: int, rules: int, **more: str) -> bytes:
    """Give a policy of a thousand services, ``rules`` rules spread evenly over the first ``services``.

    ``more`` stands in every rule besides.
    """
    names = [_JUDGED, *(_caller(index) for index in range(SERVICES - 1))]
    sections: dict[str, Any] = {name: {} for name in names}
    for index, name in enumerate(names[:services]):
        sections[name] = {
            "allow": [
                {"principals": [_caller(index + rule)], "paths": [_METHOD.format(rule)], **more}
                for rule in range(rules // services)
            ]
        }
    return json.dumps({"services": sections}).encode()


def measure() -> dict[str, float]:
    """Give the median seconds of a decision of each kind."""
    few = range(RULES // SERVICES)
    permitted = [(_caller(rule), _METHOD.format(rule)) for rule in few]
    denied = [(_caller(rule + 1), _METHOD.format(rule)) for rule in few]
    unseen = [(_caller(rule), _METHOD.format(rule)) for rule in range(0, RULES, RULES // UNSEEN)]
    spread, heaped, asking = (
        Policy.parse(document).section(ServiceName(_JUDGED))
        for document in (policy(SERVICES, RULES), policy(1, RULES), policy(SERVICES, RULES, when=_CONDITION))
    )
    matcher, conditional = Matcher(spread), Matcher(asking)
    return {
        "permitted": _timed(lambda: matcher, permitted * UNSEEN, expected=True),
        "denied": _timed(lambda: matcher, denied * UNSEEN, expected=False),
        "conditional": _timed(lambda: conditional, permitted * UNSEEN, expected=True),
        "unseen": _timed(lambda: Matcher(heaped), unseen, expected=True),
        "recorded": _counted(permitted * UNSEEN),
    }


def _caller(index: int) -> str:
    number = index % (SERVICES - 1)
    return f"team-{number % 20}.caller-{number}"


def _timed(make: Callable[[], Matcher], calls: Sequence[tuple[str, str]], *, expected: bool) -> float:
    times = []
    for _ in range(REPEATS):
        matcher = make()
        begun = time.perf_counter()
        verdicts = {_is_permitted(matcher, source, method) for source, method in calls}
        times.append((time.perf_counter() - begun) / len(calls))
        if verdicts != {expected}:
            raise RuntimeError("the policy of the bench does not say what it should")
    return median(times)


def _counted(calls: Sequence[tuple[str, str]]) -> float:
    times = []
    permits = [Permit(source, method, "judged/allow/0") for source, method in calls]
    for _ in range(REPEATS):
        decided = Decided(_JUDGED)
        begun = time.perf_counter()
        for permit in permits:
            decided.note(permit.source, permit.method, permit, 1, recorded(_KEYS, _SENT), _NOW_MS)
        times.append((time.perf_counter() - begun) / len(calls))
        if sum(seen.count for seen in decided.take()[0]) != len(calls):
            raise RuntimeError("not every decision of the bench was counted")
    return median(times)


def _is_permitted(matcher: Matcher, source: str, method: str) -> bool:
    try:
        matcher.permit(source, method, _SENT, _NOW_MS)
    except Denied:
        return False
    return True
