"""What ``traffic`` says and yet cannot do, or does and may not be meant, for those who write it."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.core.names import ServiceName
from mesh.core.patterns import covered
from mesh.core.policy import Policy
from mesh.core.traffic import NONE, Route, Share, Traffic


def without_effect(policy: Policy) -> Iterator[str]:
    """Give a line for each place, beginning with it."""
    for name, traffic in policy.traffic.items():
        at = f"traffic.{name}"
        callers = [caller for caller in policy.services if policy.permits_pair(caller, name)]
        if traffic == NONE:
            yield f"{at}: says nothing"
        elif not callers:
            yield f"{at}: no service of this policy may call {name}"
        else:
            yield from _split(policy, name, traffic, callers)
        yield from _routes(at, traffic.routes)


def _split(policy: Policy, name: ServiceName, traffic: Traffic, callers: list[ServiceName]) -> Iterator[str]:
    at = f"traffic.{name}.split"
    for index, share in enumerate(traffic.split):
        admitted = (policy.permits_pair(caller, ServiceName(share.service)) for caller in callers)
        if not any(admitted):
            yield f"{at}[{index}]: nobody who may call {name} may call {share.service}: it takes no calls"
        elif share.headers and any(_is_wider(earlier, share) for earlier in traffic.split[:index]):
            yield f"{at}[{index}]: is never reached: an earlier one takes the same calls"
    weighted = [share for share in traffic.split if share.weight]
    if len(weighted) == 1 and weighted[0].service != name.text:
        yield f"{at}: {weighted[0].service} takes all calls, for weights are parts of their sum"


def _is_wider(earlier: Share, share: Share) -> bool:
    return bool(earlier.headers) and set(earlier.headers) <= set(share.headers)


def _routes(at: str, routes: tuple[Route, ...]) -> Iterator[str]:
    earlier: set[str] = set()
    for index, route in enumerate(routes):
        if all(covered(path, earlier) for path in route.paths):
            yield f"{at}.routes[{index}]: is never reached: earlier ones have all its paths"
        elif route.fault:
            yield f"{at}.routes[{index}].fault: disturbs {route.fault.percent} % of these calls on purpose"
        earlier.update(route.paths)
