"""What is known of a service: instances, who may call it and whom it may call, denials, recorded calls.

The policy of record is auth's, and so are revocations and the audit log; instances and recorded calls are
gatekeeper's. Of the logs the newest parts are read, so an old instance may have no age and an old denial
may be missing. ``describe_service`` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mesh.cli.audit_filter import as_data as entry_as_data
from mesh.cli.audit_source import ask as read_log
from mesh.cli.audit_source import near_the_end
from mesh.cli.edges import Edge, edges_of
from mesh.cli.edges import as_json as edge_as_json
from mesh.cli.operator import PATIENCE, Operator
from mesh.cli.output import instant
from mesh.cli.recorded import Wanted, listed
from mesh.cli.status import ask as ask_status
from mesh.core.audit import Entry, Kind
from mesh.core.names import InstanceId, ServiceName
from mesh.core.policy import Policy
from mesh.v1 import auth_pb2, gatekeeper_pb2, revocation_pb2

#: Denials that are told, the newest.
DENIALS: Final = 5
#: Recorded calls are those of so long.
HOUR_MS: Final = 3_600_000
_LOG: Final = "denials"


@dataclass(frozen=True, slots=True)
class Dossier:
    """What auth and gatekeeper said. ``nodes`` and ``edges`` are ``None`` where gatekeeper did not answer."""

    name: ServiceName
    now_ms: int
    version: int
    policy: Policy | None
    nodes: Sequence[gatekeeper_pb2.NodeInfo] | None
    #: When instances joined, by their ids, in Unix milliseconds.
    joined: Mapping[str, int]
    revocations: Sequence[revocation_pb2.RevocationInfo]
    #: With their numbers in the log, oldest first.
    denials: Sequence[tuple[int, Entry]]
    edges: Sequence[Edge] | None

    @property
    def listed(self) -> bool:
        """Whether the policy has the service."""
        return self.policy is not None and self.name in self.policy.services

    @property
    def known(self) -> bool:
        """Whether there is anything to tell."""
        found = (self.nodes, self.joined, self.revocations, self.denials, self.edges)
        return self.listed or self.name.reserved or any(found)


async def gather(operator: Operator, name: ServiceName) -> Dossier:
    """Ask auth and gatekeeper about a service; raise what the RPCs raise."""
    auth, gatekeeper = await ask_status(operator)
    record = await operator.auth.GetPolicy(auth_pb2.GetPolicyRequest(), timeout=6 * PATIENCE)
    document = record.policy.document
    revoked = await operator.revocation.ListRevoked(revocation_pb2.ListRevokedRequest(), timeout=PATIENCE)
    actions, denials = await _entries(operator, "actions"), await _entries(operator, _LOG)
    mine = [one for one in denials if one[1].kind is Kind.DENIAL and _concerns(one[1], name)]
    return Dossier(
        name,
        auth.now_ms,
        record.policy.version,
        Policy.parse(document) if document else None,
        None if gatekeeper is None else [one for one in gatekeeper.nodes if one.service == name.text],
        {one.instance: one.at_ms for _, one in actions if one.event == "joined" and one.service == name.text},
        [one for one in revoked.revocations if one.service == name.text],
        mine[-DENIALS:],
        None if gatekeeper is None else await _edges(operator, name, auth.now_ms),
    )


async def _entries(operator: Operator, log: str) -> list[tuple[int, Entry]]:
    start = await near_the_end(operator, log)
    return (await read_log(operator, log, start)).entries(start)[0]


def _concerns(entry: Entry, name: ServiceName) -> bool:
    return name.text in (entry.service, entry.by.partition("/")[0])


async def _edges(operator: Operator, name: ServiceName, now_ms: int) -> list[Edge]:
    seen = await listed(operator, Wanted(now_ms - HOUR_MS, None, ()))
    return edges_of(seen, name.text)


def as_data(found: Dossier) -> dict[str, Any]:
    """Give it as it is shown in JSON; what nobody could tell is ``null``."""
    ban = next((one for one in found.revocations if not one.instance), None)
    return {
        "service": found.name.text,
        "policy": {"version": found.version, "listed": found.listed},
        "banned": ban and _by_whom(ban),
        "instances": None if found.nodes is None else [_node(found, node) for node in found.nodes],
        "revoked": [
            {
                "instance": str(InstanceId(one.instance)),
                "joined": _joined(found, one.instance),
                **_by_whom(one),
            }
            for one in found.revocations
            if one.instance
        ],
        **_allowed(found),
        "denials": [entry_as_data(_LOG, number, entry) for number, entry in found.denials],
        "last_hour": None if found.edges is None else [edge_as_json(edge) for edge in found.edges],
    }


def _by_whom(one: revocation_pb2.RevocationInfo) -> dict[str, Any]:
    return {"since": instant(one.at_ms), "by": one.by, "reason": one.reason or None}


def _joined(found: Dossier, raw: bytes) -> str | None:
    at_ms = found.joined.get(str(InstanceId(raw)))
    return None if at_ms is None else instant(at_ms)


def _node(found: Dossier, node: gatekeeper_pb2.NodeInfo) -> dict[str, Any]:
    at_ms = found.joined.get(str(InstanceId(node.instance)))
    return {
        "instance": str(InstanceId(node.instance)),
        "address": node.address or None,
        "joined": _joined(found, node.instance),
        "age_seconds": None if at_ms is None else max(0, found.now_ms - at_ms) / 1000,
        "policy_version": node.policy_version,
        "last_seen_seconds": node.last_seen_ms / 1000,
    }


def _allowed(found: Dossier) -> dict[str, Any]:
    """Give the rules about calls to it, the services that may call it at all, and those that it may call."""
    policy, name = found.policy, found.name
    if policy is None:
        return {"rules": {}, "callers": [], "calls": []}
    return {
        "rules": policy.section(name).data(None),
        "callers": [one.text for one in sorted(policy.services) if policy.permits_pair(one, name)],
        "calls": [_destination(policy, name, one) for one in policy.destinations(name)],
    }


def _destination(policy: Policy, source: ServiceName, destination: ServiceName) -> dict[str, Any]:
    patterns = frozenset(policy.groups.patterns(source.text))
    rules = [rule.name for rule in policy.section(destination).allow if rule.speaks_of(patterns)]
    return {"service": destination.text, "rules": rules}
