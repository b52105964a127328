"""What ``mesh check`` makes of what it saw: facts in, findings out. Nothing is asked, no clock is read.

Each finding is well, doubtful or wrong, in a category with a section of its own in docs/troubleshooting.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

#: Seconds between two clocks that are worth a word, and that break things (deadlines: ``epochs.SKEW_MS``).
SKEW, BROKEN_SKEW = 2.0, 5.0
#: Days until the CA ends, from which on it is worth a word.
CA_DAYS: Final = 30
#: Seconds since a node's last heartbeat (they come every 5), and share of a disk that is free.
SILENT: Final = 10.0
FREE, FULL = 0.05, 0.001
_DAY_MS: Final = 86_400_000
PAGE: Final = "docs/troubleshooting.md"


class State(StrEnum):
    """How a thing is."""

    WELL = "√"
    DOUBTFUL = "‼"
    WRONG = "×"  # noqa: RUF001  it is no letter


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``hint``: what to do about it, if it is not well."""

    category: str
    state: State
    what: str
    hint: str = ""

    @property
    def link(self) -> str:
        """Where to read on."""
        return f"{PAGE}#{self.category}" if self.state is not State.WELL else ""


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node that gatekeeper lists. ``reached``: whether its port takes connections, if it has one."""

    service: str
    instance: str
    address: str
    policy_version: int
    silent_seconds: float
    reached: bool | None = None

    @property
    def name(self) -> str:
        """Its name for people."""
        return f"{self.service}/{self.instance[:8]}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen. What could not be asked is ``None``."""

    now_ms: int
    ports: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    """Of auth and gatekeeper: each address, and whether it takes connections."""
    secret_modes: Mapping[str, int] = field(default_factory=dict)
    free_share: float | None = None
    read_only: bool = False
    """Whether the disk with auth's files is."""
    trouble: str = ""
    """Why auth was not asked, or what it refused, where that is known: what happened, and what to do."""
    auth_ms: int | None = None
    ca_expires_ms: int = 0
    epoch_ends_ms: int = 0
    policy_version: int = 0
    served: frozenset[str] = frozenset()
    """Services that the policy lets somebody call."""
    gatekeeper_version: int | None = None
    nodes: tuple[NodeSeen, ...] = ()
    revoked: frozenset[str] = frozenset()
    """Services of which instances are revoked, and not forgotten yet."""
    banned: frozenset[str] = frozenset()
    """Services that nobody may join as."""


def findings(facts: Facts) -> list[Finding]:
    """Judge all of it, in the order in which one thing hangs on the other."""
    found = [*_ports(facts), *_store(facts)]
    if facts.auth_ms is None:
        return [*found, _unasked(facts)]
    found += [*_clocks(facts, facts.auth_ms), *_keys(facts, facts.auth_ms), *_policy(facts)]
    if facts.gatekeeper_version is not None:
        found += [*_nodes(facts.nodes, facts.policy_version), *_services(facts)]
    return found


def worst(found: Iterable[Finding]) -> State:
    """Give the worst state there is."""
    states = {finding.state for finding in found}
    return next((one for one in (State.WRONG, State.DOUBTFUL) if one in states), State.WELL)


def _ports(facts: Facts) -> Iterator[Finding]:
    each = ((name, *port) for name, ports in facts.ports.items() for port in ports.items())
    for name, address, reached in each:
        if reached:
            yield Finding("ports", State.WELL, f"{name} takes connections at {address}")
        else:
            hint = "is it running, and can this machine reach it? mesh up says where it listens"
            yield Finding("ports", State.WRONG, f"{name} takes no connection at {address}", hint)


def _store(facts: Facts) -> Iterator[Finding]:
    for name, mode in facts.secret_modes.items():
        if mode & 0o077:
            yield Finding("store", State.WRONG, f"others can read {name}", f"chmod 600 {name}")
        else:
            yield Finding("store", State.WELL, f"{name} is this user's alone")
    if facts.read_only:
        yield Finding(
            "store", State.WRONG, "the data directory's disk is read-only", "mount it to be written"
        )
    if facts.free_share is not None:
        share = facts.free_share
        state = State.WELL if share > FREE else State.DOUBTFUL if share > FULL else State.WRONG
        hint = (
            "" if state is State.WELL else "without room auth can write neither its log nor keys: make some"
        )
        yield Finding("store", state, f"{facts.free_share:.0%} of the data directory's disk is free", hint)


def _unasked(facts: Facts) -> Finding:
    if facts.trouble:
        what, _, hint = facts.trouble.partition(": ")
        return Finding("auth", State.WRONG, what, hint or "see what auth logs")
    if not _listens(facts, "auth"):
        return Finding("auth", State.WRONG, "auth does not answer", "start it: mesh up")
    hint = "it is stuck, stopped or cannot use its store: see its log; once ended, mesh up starts it again"
    return Finding("auth", State.WRONG, "auth takes connections and does not answer", hint)


def _listens(facts: Facts, name: str) -> bool:
    return any(facts.ports.get(name, {}).values())


def _clocks(facts: Facts, auth_ms: int) -> Iterator[Finding]:
    apart = abs(auth_ms - facts.now_ms) / 1000
    what = f"this machine's clock and auth's are {apart:.1f} s apart"
    if apart <= SKEW:
        yield Finding("clocks", State.WELL, what)
        return
    state = State.WRONG if apart > BROKEN_SKEW else State.DOUBTFUL
    yield Finding("clocks", state, what, "have both follow a time server: certificates and tokens hang on it")


def _keys(facts: Facts, auth_ms: int) -> Iterator[Finding]:
    days = (facts.ca_expires_ms - auth_ms) / _DAY_MS
    state = State.WRONG if days <= 0 else State.DOUBTFUL if days <= CA_DAYS else State.WELL
    hint = "" if state is State.WELL else "auth makes the next one by itself, long before: see what it logs"
    yield Finding("keys", state, f"the CA has {days:.0f} days left", hint)
    left = (facts.epoch_ends_ms - auth_ms) / 1000
    if left > 0:
        yield Finding("keys", State.WELL, f"the epoch's keys have {left:.0f} s left")
    else:
        yield Finding("keys", State.WRONG, "the epoch is over and none follows", "see what auth logs")


def _policy(facts: Facts) -> Iterator[Finding]:
    version = facts.policy_version
    if not version:
        yield Finding("policy", State.DOUBTFUL, "no policy: all is denied", "mesh policy apply FILE")
    else:
        yield Finding("policy", State.WELL, f"policy {version} is the policy of record")
    if facts.gatekeeper_version is None:
        what, hint = "gatekeeper does not answer", "see what mesh up says of it"
        if _listens(facts, "gatekeeper"):
            what = "gatekeeper takes connections and does not answer"
            hint = "it is stuck or stopped: see what it logs; once ended, mesh up starts it again"
        yield Finding("gatekeeper", State.WRONG, what, hint)
    elif facts.gatekeeper_version != version:
        what = f"gatekeeper has policy {facts.gatekeeper_version}, not {version}"
        yield Finding("gatekeeper", State.WRONG, what, "can it reach auth? see what it logs")
    elif version:
        yield Finding("gatekeeper", State.WELL, f"gatekeeper serves policy {version}")


def _nodes(nodes: Iterable[NodeSeen], version: int) -> Iterator[Finding]:
    for node in nodes:
        if node.policy_version != version:
            what = f"{node.name} has policy {node.policy_version} in force, not {version}"
            yield Finding("slices", State.WRONG, what, "can it reach gatekeeper? see what it logs")
        elif node.silent_seconds > SILENT:
            what = f"{node.name} was last heard {node.silent_seconds:.0f} s ago"
            yield Finding("slices", State.DOUBTFUL, what, "it is dropped once its lease is over: is it busy?")
        elif node.reached is False:
            what = f"{node.name} takes no connection at {node.address}"
            hint = (
                "its callers may reach it where this machine cannot; else see --listen and --advertise-port"
            )
            yield Finding("sockets", State.DOUBTFUL, what, hint)
        else:
            yield Finding("slices", State.WELL, f"{node.name} has policy {node.policy_version} in force")


def _services(facts: Facts) -> Iterator[Finding]:
    running = {node.service for node in facts.nodes if node.address}
    silent = {node.service for node in facts.nodes} - running
    for service in sorted(facts.served - running):
        what = f"no instance of {service} takes calls, and the policy lets it be called"
        hint = "start it"
        if service in silent:
            what = f"{what}: there is one that only calls"
            hint = "behind a sidecar, does the app listen at its --app-port? embedded, is its server started?"
        elif service in facts.banned:
            what, hint = f"{what}: it is banned", f"see mesh revoked; to let it join: mesh unban {service}"
        elif service in facts.revoked:
            what = f"{what}: instances of it were revoked"
            hint = f"see mesh revoked; start new ones, with mesh token create {service}"
        yield Finding("services", State.DOUBTFUL, what, hint)
