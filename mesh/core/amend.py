"""A slice, and what gatekeeper says has changed of it: the newer slice.

The counterpart of ``services.gatekeeper.slices``: whatever a slice was and becomes, the change between the
two makes the one of the other. What does not fit is refused whole, so that whoever holds the slice asks anew.
"""

from __future__ import annotations

from mesh.v1 import gatekeeper_pb2


def amended(held: gatekeeper_pb2.Slice, change: gatekeeper_pb2.Change) -> gatekeeper_pb2.Slice:
    """Give the slice that a change makes of another, its destinations sorted by name.

    Of those revoked it has only the change's: whoever holds the slice keeps those from before.

    Raises ``ValueError`` for a change that does not speak of this slice: of an older policy, or one that
    removes what is not there.
    """
    if change.policy_version < held.policy_version:
        msg = f"a change to policy {change.policy_version} does not fit policy {held.policy_version}"
        raise ValueError(msg)
    destinations = {destination.service: destination for destination in held.destinations}
    for name in change.removed:
        if destinations.pop(name, None) is None:
            msg = f"a change removes {name!r:.80}, which is not in the slice"
            raise ValueError(msg)
    destinations.update({destination.service: destination for destination in change.destinations})
    return gatekeeper_pb2.Slice(
        policy_version=change.policy_version,
        rules=change.rules if change.HasField("rules") else held.rules,
        destinations=[destinations[name] for name in sorted(destinations)],
        settling=change.settling,
        revoked=change.revoked,
        max_stale_ms=held.max_stale_ms,
        traffic=change.traffic if change.HasField("traffic") else held.traffic,
    )
