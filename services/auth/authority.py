"""The authority: all that auth decides, by its own clock, in the terms of the domain.

It belongs to one thread at a time (``worker``) and waits for nothing but the disk. Who is asking was proved
before: a ``Peer`` is what TLS and the seal agree on. What it adds is that the peer is one that auth knows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import ec

from mesh.core.join import JoinAsked, JoinToken
from mesh.core.keys import Key
from mesh.core.names import AUTH, GATEKEEPER, InstanceId, ServiceName, service_name
from mesh.core.policy import Policy
from mesh.core.receiver import Peer
from mesh.v1 import auth_pb2
from services.auth import messages, tokens
from services.auth.admission import Admission
from services.auth.audit import unlogged
from services.auth.auditor import Auditor
from services.auth.authorities import Authorities
from services.auth.ca import CA_LIFE_MS, ends_ms, read_csr
from services.auth.clock import Clock
from services.auth.directory import DataDirectory
from services.auth.epochs import Schedule
from services.auth.errors import InvalidError, RefusedError, StartError
from services.auth.following import Following
from services.auth.issuing import Issuing
from services.auth.keeping import Keeping
from services.auth.members import UNKNOWN, Members
from services.auth.policies import Policies
from services.auth.records import Instance, Token
from services.auth.revoking import Revoking
from services.auth.roots import Roots
from services.auth.signatory import Signatory
from services.auth.succession import Succession
from services.auth.timekeeping import Timekeeping
from services.auth.vault import TamperedError

MAX_DESTINATIONS: Final = 1000
SWEEP_EVERY_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where nodes find the mesh's own services: ``host:port`` of their mTLS ports, with commas between."""

    auth: str
    gatekeeper: str


@dataclass(frozen=True, slots=True)
class Lives:
    """How long things last."""

    svid_ms: int = 3_600_000
    schedule: Schedule = field(default_factory=lambda: Schedule(3_600_000, 300_000))
    ca_ms: int = CA_LIFE_MS


class Authority:
    """One trust domain's auth."""

    def __init__(self, directory: DataDirectory, lives: Lives, clock: Clock) -> None:
        """Take up where an opened directory left off. Use ``open``."""
        self._store = directory.store
        self.domain = directory.domain
        self._timekeeping = Timekeeping(self._store, clock)
        self.auditor = Auditor(self._store, clock.now_ms)
        self._policies = Policies(self._store, directory.signer)
        succession = Succession(lives.ca_ms, lives.svid_ms)
        self._roots = Roots(
            self._store,
            directory.vault,
            self.domain,
            lives.schedule,
            succession.longest_ms,
            self.auditor.happened,
        )
        self._authorities = Authorities(
            self._store,
            directory.vault,
            self.domain,
            succession,
            directory.authorities,
            self.auditor.happened,
        )
        self._issuing = Issuing(
            self.domain, self._roots, self._authorities, lives.svid_ms, directory.signer.public_key
        )
        self.admission = Admission(
            self._store, directory.vault, self._issuing.certificate, self.auditor, self._now
        )
        self.following = Following(directory, self._authorities, self._roots, self._policies, clock)
        self.keys = Keeping(directory, self._authorities, self._roots, self._now)
        self.revoking = Revoking(self._store, self._roots, self._now)
        self.following.also = self.keys.revoked = self.revoking.take_up
        self.members = Members(self._store, self.revoking, self.auditor, clock.now_ms)
        self.signatory = Signatory(
            self.members,
            self._roots,
            self._policies,
            self.revoking,
            self.auditor,
            self._store.sequences,
            self._now,
        )
        self._sweep_at_ms = 0
        self.addresses = Addresses("", "")

    @classmethod
    def open(cls, directory: DataDirectory, lives: Lives, clock: Clock) -> Self:
        """Take up an opened directory, with its keys turned to now; raise ``StartError``."""
        try:
            authority = cls(directory, lives, clock)
        except TamperedError as error:
            raise StartError(f"{error}: restore it from a backup") from None
        except (TypeError, ValueError, OverflowError):
            # SQLite keeps whatever is put into a column; auth puts in nothing that it cannot read.
            raise StartError("the database was changed: restore it from a backup") from None
        authority.auditor.recover()
        authority.turn()
        return authority

    # For nodes

    def join(self, asked: Sequence[JoinAsked]) -> list[auth_pb2.JoinResponse | Exception]:
        """Answer requests to join, each with ``RefusedError`` or, if proven, ``InvalidError`` if not well."""
        now_ms = self._now()
        admitted = self.admission.admit(asked, now_ms)
        return [
            one if isinstance(one, Exception) else self._welcome(request, *one, now_ms)
            for request, one in zip(asked, admitted, strict=True)
        ]

    def _welcome(
        self, asked: JoinAsked, secret: Key, instance: Instance, now_ms: int
    ) -> auth_pb2.JoinResponse:
        mesh = [name for name in (AUTH, GATEKEEPER) if name != instance.service]
        bundle = auth_pb2.JoinBundle(
            credentials=self._issuing.credentials(
                instance.service,
                instance.id,
                instance.certificate,
                now_ms,
                remote_keys=instance.remote_keys,
            ),
            pair_keys=self._issuing.pair_keys(instance.service, mesh, now_ms),
            auth_address=self.addresses.auth,
            gatekeeper_address=self.addresses.gatekeeper,
        )
        return asked.answer(secret, bundle)

    def renew(self, peer: Peer, csr: bytes) -> auth_pb2.Credentials:
        """Give a node new credentials over a new key; its name and instance stay."""
        now_ms = self._now()
        known = self.members.check(peer)
        certificate = self._issuing.certificate(peer.service, peer.instance, read_csr(csr), now_ms)
        if not self._store.prolong(peer.instance, ends_ms(certificate)):
            raise RefusedError(UNKNOWN)
        return self._issuing.credentials(
            peer.service, peer.instance, certificate, now_ms, remote_keys=known.remote_keys
        )

    def pair_keys(self, peer: Peer, destinations: Sequence[str]) -> auth_pb2.GetPairKeysResponse:
        """Give a node's keys to those that it may call, and no word about the others, names or not."""
        if len(destinations) > MAX_DESTINATIONS:
            raise InvalidError(
                f"{len(destinations)} names are too many: ask for {MAX_DESTINATIONS} at a time"
            )
        now_ms = self._now()
        own = self.members.check(peer).remote_keys
        permitted = self._policies.permitted(peer.service)
        known = dict.fromkeys(_names(destinations))
        asked = [
            name
            for name in known
            if name in permitted and not self.revoking.is_banned(name) and (name.reserved or not own)
        ]
        if refused := len(set(destinations)) - len(asked):
            self.auditor.names_refused(peer, refused, now_ms)
        keys = self._issuing.pair_keys(peer.service, asked, now_ms)
        return auth_pb2.GetPairKeysResponse(keys=keys, now_ms=now_ms)

    def check_known(self, peer: Peer) -> None:
        """Raise ``RefusedError`` unless this instance of this service is a member now, by auth's record."""
        self.members.check(peer)

    def credentials_for(
        self, service: ServiceName, instance: InstanceId, public_key: ec.EllipticCurvePublicKey
    ) -> auth_pb2.Credentials:
        """Give credentials without a token: auth's own."""
        now_ms = self._now()
        certificate = self._issuing.certificate(service, instance, public_key, now_ms)
        return self._issuing.credentials(service, instance, certificate, now_ms)

    # For the operator

    def create_token(
        self, service: str, ttl_seconds: int, by: Peer, *, remote_keys: bool = False
    ) -> tuple[JoinToken, Token]:
        """Make a join token; raise ``InvalidError`` for a name or a life that none is made for."""
        self.check_known(by)
        name, life_ms = tokens.joinable(service, remote_keys=remote_keys), tokens.life_ms(ttl_seconds)
        self.revoking.check_open(name)
        return self.admission.create(name, life_ms, by, self._now(), remote_keys=remote_keys)

    def list_tokens(self, by: Peer) -> list[auth_pb2.TokenInfo]:
        """List tokens, newest first."""
        self.check_known(by)
        now_ms = self._now()
        return [messages.token(token, now_ms) for token in self._store.tokens()]

    def revoke_token(self, token_id: str, by: Peer) -> None:
        """Revoke a token; raise ``MissingError`` or ``ConflictError``."""
        self.check_known(by)
        self.admission.revoke(token_id, by, self._now())

    def apply_policy(
        self, policy: Policy, by: Peer, replaces: int | None = None, restores: int | None = None
    ) -> auth_pb2.SignedPolicy:
        """Make a policy the one of record; raise ``ConflictError`` if it was overtaken, see ``Policies``."""
        self.check_known(by)
        return self._policies.replace(policy, by, self._now(), replaces, restores)

    def policy(self, by: Peer, version: int | None = None) -> auth_pb2.SignedPolicy:
        """Give the policy of record, or a version that is kept; raise ``MissingError``."""
        self.check_known(by)
        self._now()
        return self.policy_of_record if version is None else self._policies.kept(version)

    def list_policies(self, by: Peer) -> list[auth_pb2.PolicyInfo]:
        """List the policies that are kept, newest first."""
        self.check_known(by)
        return [messages.policy(note) for note in self._store.policies()]

    @property
    def policy_of_record(self) -> auth_pb2.SignedPolicy:
        """The policy of record, signed."""
        return self._policies.signed

    def status(self, by: Peer) -> auth_pb2.GetAuthStatusResponse:
        """Say what is in force."""
        self.check_known(by)
        now_ms = self._now()
        return auth_pb2.GetAuthStatusResponse(
            trust_domain=self.domain.text,
            epoch=messages.epoch(self._roots.current(now_ms)),
            policy_version=self._policies.version,
            ca_expires_ms=self._authorities.signing(now_ms).ends_ms,
            now_ms=now_ms,
        )

    def trust_bundle(self) -> list[bytes]:
        """Give the certificates of the authorities that are trusted now, DER."""
        return self._authorities.bundle(self._now())

    # Of itself

    def close(self) -> None:
        """Write what is left to be told."""
        self.auditor.close()

    def turn(self) -> int:
        """Do what is due: epochs, and from time to time the sweep. Gives the time."""
        now_ms = self._now()
        if now_ms >= self._sweep_at_ms:
            self._store.sweep(now_ms - tokens.KEEP_MS, now_ms)
            self._store.revocations.sweep(now_ms)
            self._store.sequences.sweep(now_ms)
            self._sweep_at_ms = now_ms + SWEEP_EVERY_MS
            with unlogged():
                self.keys.turn(now_ms)
        self.auditor.turn(now_ms)
        self._timekeeping.turn(now_ms)
        return now_ms

    def _now(self) -> int:
        return self.following.now()


def _names(texts: Iterable[str]) -> Iterable[ServiceName]:
    for text in texts:
        try:
            yield service_name(text)
        except ValueError:
            continue
