"""Two members of a throwaway trust domain, without auth or gatekeeper: real TLS, real seals, real sockets."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mesh.core.epochs import Epoch
from mesh.core.keys import Key, Withheld, destination_key, pair_key
from mesh.core.matcher import Matcher
from mesh.core.names import Identity, InstanceId, KeyEpoch, ServiceName, TrustDomain
from mesh.core.policy import Section
from mesh.core.traffic import NONE, Traffic
from mesh.rpc.channel import MeshChannel
from mesh.rpc.connections import MAX_MESSAGE, Connections, Endpoint
from mesh.rpc.membership import Clock, Membership
from mesh.rpc.routing import Routings
from mesh.rpc.server import MeshServer
from mesh.rpc.svid import Svid
from mesh.rpc.targets import DirectoryTarget

if TYPE_CHECKING:
    from tests.rpc.keeper import Keeper

DOMAIN = TrustDomain("test.example")
ANYBODY = Section.parse(b'{"allow":[{"principals":["*"],"paths":["*"]}]}')


class World:
    """A trust domain: one CA, one root key per epoch, a directory."""

    def __init__(self) -> None:
        """Make a CA and the first epoch."""
        self.clock = Clock()
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test ca")])
        self._ca = (
            self._builder(name, name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        now = self.clock.now_ms()
        self.epoch = Epoch(KeyEpoch(1), now - 1000, now + 3_600_000, now + 3_900_000)
        self.root = Key(os.urandom(32))
        self.members: list[Membership] = []
        self.domain = DOMAIN
        self.roots: dict[KeyEpoch, Key] = {}
        self.keeper: Keeper | None = None
        """Keeps the keys of those who become members from now on."""
        self.directory = Directory()
        self.routings: dict[Membership, Routings] = {}

    def member(self, service: str) -> Membership:
        """Let a new instance of a service in, able to seal for every service."""
        identity = Identity(DOMAIN, ServiceName(service))
        instance = InstanceId(os.urandom(16))
        member = Membership(identity, instance, self.svid(identity, instance), self.clock)
        self.learn(member, self.epoch, self.root)
        member.authorize = Matcher(ANYBODY).permit
        self.members.append(member)
        if self.keeper is not None:
            self.keeper.keep(member)
        return member

    def learn(self, member: Membership, epoch: Epoch, root: Key) -> None:
        """Give a member its own key of an epoch, unless that is kept, and those for the services of tests.

        The latter also where they are kept: it is the tests that then seal attacks with them.
        """
        self.roots[epoch.number] = root
        kept = self.keeper is not None
        member.receiver.learn(epoch, Withheld() if kept else destination_key(root, DOMAIN, member.name))
        for name in map(ServiceName, ("caller", "callee", "other")):
            key = pair_key(destination_key(root, DOMAIN, name), member.name)
            member.sender.learn(name, epoch, key)

    def svid(
        self,
        identity: Identity,
        instance: InstanceId,
        *,
        uris: list[str] | None = None,
        common_name: str | None = None,
    ) -> Svid:
        """Issue a certificate as auth would, or with other URIs or another common name as it would not."""
        key = ec.generate_private_key(ec.SECP256R1())
        common_name = str(instance) if common_name is None else common_name
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
        subject = x509.Name(attributes)
        uris = [identity.uri] if uris is None else uris
        names = [*map(x509.UniformResourceIdentifier, uris), x509.DNSName(identity.dns)]
        leaf = (
            self._builder(subject, self._ca.subject, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Svid.build(key, [leaf.public_bytes(Encoding.DER)], [self._ca.public_bytes(Encoding.DER)])

    def channel(self, source: Membership, service: str, max_receive: int = MAX_MESSAGE) -> MeshChannel:
        """Give a channel by the world's directory."""
        name = ServiceName(service)
        connections = Connections(source, name, max_receive)
        target = DirectoryTarget(name, self.directory, lambda _: connections, _has_keys)
        routings = self.routings.setdefault(source, Routings(self.directory.traffic, source.now))
        return MeshChannel(source, target, max_receive, routings.of(name))

    def serve(self, member: Membership, max_receive: int = MAX_MESSAGE) -> MeshServer:
        """Give a server on a free port, listed in the directory."""
        server = MeshServer(member, "127.0.0.1:0", max_receive=max_receive)
        self.directory.put(member, f"127.0.0.1:{server.port}")
        return server

    @staticmethod
    def _builder(
        subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(hours=2))
        )


@dataclass
class Directory:
    """A directory that tests write."""

    listed: dict[ServiceName, list[Endpoint]] = field(default_factory=dict)
    told: dict[ServiceName, Traffic] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, member: Membership, address: str) -> None:
        """Make a member the only instance of its service."""
        self.listed[member.name] = [Endpoint(member.instance, address)]
        self._changed.set()
        self._changed = asyncio.Event()

    def endpoints(self, service: ServiceName) -> list[Endpoint] | None:
        """Give what is listed."""
        return self.listed.get(service)

    def traffic(self, service: ServiceName) -> Traffic:
        """Give what is told."""
        return self.told.get(service, NONE)

    def changed(self) -> Awaitable[object]:
        """Wait for the next ``put``."""
        return self._changed.wait()

    in_force = True

    async def ready(self) -> None:
        """Be in force always."""


async def _has_keys(_service: ServiceName, _patience: float) -> None:
    pass
