"""A trust domain in a directory of its own, a clock that obeys, and what nodes and operators do."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from mesh.core.audit import Entry
from mesh.core.chain import BEGUN, Line
from mesh.core.examine import Examination, Mark, examine
from mesh.core.join import JoinRequester, JoinToken, read_request
from mesh.core.keys import Key
from mesh.core.names import InstanceId, ServiceName, TrustDomain
from mesh.core.policy import Policy
from mesh.core.receiver import Peer
from mesh.rpc.svid import new_key
from mesh.v1 import auth_pb2
from services.auth.audit_log import ACTIONS
from services.auth.authority import Addresses, Authority, Lives
from services.auth.ca import CertificateAuthority
from services.auth.clock import Clock
from services.auth.directory import DataDirectory
from services.auth.founding import found
from services.auth.segments import Segments
from services.auth.store import Store

DOMAIN = TrustDomain("shop.example")
#: 2026-01-01, to the second, as certificates count.
START_MS = 1_767_225_600_000
HOUR_MS = 3_600_000


@dataclass
class Time:
    """The machine's two clocks, in seconds, moved by hand."""

    wall: float = START_MS / 1000
    monotonic: float = 1000.0

    def clock(self) -> Clock:
        """Give auth's clock over these."""
        return Clock(lambda: self.wall, lambda: self.monotonic)

    def pass_ms(self, ms: int) -> None:
        """Let time pass on both."""
        self.wall += ms / 1000
        self.monotonic += ms / 1000


class RealTime(Time):
    """The machine's own clocks, for what is checked by others: TLS looks at the real time."""

    def __init__(self) -> None:
        """Begin now."""
        super().__init__(time.time(), time.monotonic())

    def clock(self) -> Clock:
        """Give auth's clock as it is."""
        return Clock()


@dataclass
class World:
    """One data directory, and the authority that serves it at the moment."""

    path: Path
    time: Time = field(default_factory=Time)
    lives: Lives = field(default_factory=Lives)
    running: bool = False

    def __post_init__(self) -> None:
        """Found the trust domain, and open it."""
        found(self.path, DOMAIN, int(self.time.wall * 1000))
        self.start()

    def start(self) -> None:
        """Open the directory, as a process does when it starts."""
        self.clock = self.time.clock()
        self.directory = DataDirectory(self.path)
        self.running = True
        try:
            self.authority = Authority.open(self.directory, self.lives, self.clock)
        except BaseException:
            self.stop()
            raise
        self.authority.addresses = Addresses("auth.test:7701", "gatekeeper.test:7702")

    def stop(self) -> None:
        """Close the directory, as a process does when it ends."""
        if self.running:
            self.directory.close()
        self.running = False

    def sql(self, statement: str, *values: object) -> None:
        """Change the database behind auth's back."""
        self.store._database.transact(lambda connection: connection.exec_driver_sql(statement, values))

    def count(self, query: str, *values: object) -> int:
        """Ask the database itself for a number."""
        return int(
            self.store._database.transact(
                lambda connection: connection.exec_driver_sql(query, values).scalar_one()
            )
        )

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    @property
    def store(self) -> Store:
        """The rows."""
        return self.directory.store

    @property
    def ca(self) -> CertificateAuthority:
        """The authority that signs."""
        return self.authority._authorities.signing(self.authority._now())

    @property
    def now_ms(self) -> int:
        """The time by the machine's clock."""
        return int(self.time.wall * 1000)

    @property
    def credential(self) -> JoinToken:
        """The operator's credential."""
        return JoinToken.parse(json.loads((self.path / "operator.json").read_text())["token"])

    def operator(self) -> Peer:
        """Join as an operator."""
        return self.join(self.credential).peer

    def token(self, service: str = "orders", ttl_seconds: int = 60) -> JoinToken:
        """Make a join token."""
        return self.authority.create_token(service, ttl_seconds, self.operator())[0]

    def join(self, token: JoinToken) -> Joined:
        """Join with a token, as a node does."""
        return Attempt(token).send(self)

    def node(self, service: str = "orders") -> Joined:
        """Join with a new token for a service."""
        return self.join(self.token(service))

    def apply(self, document: dict[str, object]) -> auth_pb2.SignedPolicy:
        """Apply a policy."""
        return self.authority.apply_policy(Policy.parse(json.dumps(document)), self.operator())

    def audit(self, log: str = ACTIONS) -> list[Entry]:
        """Give the entries of an audit log, but for the beginnings of segments."""
        found = self.log_of(log)
        entries = [Line.parse(line).entry for data in found.values() for line in data.split(b"\n")[:-1]]
        return [entry for entry in entries if entry.event != BEGUN]

    def log_of(self, log: str = ACTIONS) -> dict[int, bytes]:
        """Give the segments of an audit log, as they are on the disk."""
        files = Segments(self.path / "audit", log)
        return {number: files.read(number, 0, 2**24) for number in files.numbers()}

    def examine(self, log: str = ACTIONS, marks: Iterable[Mark] = ()) -> Examination:
        """Examine an audit log as its verifier does."""
        root = Key((self.path / "audit.key").read_bytes())
        (head,) = [row.head for row in self.store.logs.rows() if row.head.log == log]
        return examine(head, root, self.log_of(log), marks)

    def alarms(self) -> list[str]:
        """Give the events that raised an alarm."""
        return [entry.event for entry in self.audit() if entry.alarm]


@dataclass(frozen=True)
class Joined:
    """What a node got."""

    bundle: auth_pb2.JoinBundle

    @property
    def credentials(self) -> auth_pb2.Credentials:
        """Its credentials."""
        return self.bundle.credentials

    @property
    def peer(self) -> Peer:
        """Who it is to others."""
        return Peer(ServiceName(self.credentials.service), InstanceId(self.credentials.instance))


class Attempt:
    """One request to join, which can be sent more than once."""

    def __init__(self, token: JoinToken, csr: bytes | None = None) -> None:
        """Make a request, with a good certificate request unless another is given."""
        self.key, good = new_key()
        self.requester = JoinRequester(token, good if csr is None else csr, secrets.token_bytes(16))
        self.request = self.requester.request()
        self.asked = read_request(self.request)

    def send(self, world: World) -> Joined:
        """Send it to an authority."""
        (answer,) = self.send_all(world, [self])
        if isinstance(answer, Exception):
            raise answer
        return answer

    @staticmethod
    def send_all(world: World, attempts: Sequence[Attempt]) -> list[Joined | Exception]:
        """Send some together, as one batch."""
        answers = world.authority.join([read_request(attempt.request) for attempt in attempts])
        return [
            answer if isinstance(answer, Exception) else Joined(attempt.requester.open(answer))
            for attempt, answer in zip(attempts, answers, strict=True)
        ]


def public_key() -> ec.EllipticCurvePublicKey:
    """Give a fresh P-256 public key."""
    return ec.generate_private_key(ec.SECP256R1()).public_key()
