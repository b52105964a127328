"""Rows of auth's database as values. Secrets in them are sealed (``vault``); none prints."""

from dataclasses import dataclass, field
from enum import StrEnum

from mesh.core.chain import Head
from mesh.core.epochs import Epoch
from mesh.core.names import InstanceId, ServiceName, TrustDomain
from services.auth.vault import Place


class Kind(StrEnum):
    """What a token is good for."""

    JOIN = "join"
    """One instance of one service."""
    REMOTE = "remote"
    """The same, and auth keeps its keys."""
    OPERATOR = "operator"
    """The operator, again and again."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret of the trust domain itself, with the public part that goes with it."""

    name: str
    version: int
    public: bytes
    sealed: bytes = field(repr=False)


#: Names of the trust domain's own secrets. CHECK tells a wrong KEK from a changed row; of CA, a version is a
#: generation.
CA, POLICY, CHECK = "ca", "policy", "check"


def secret_place(domain: TrustDomain, name: str, version: int) -> Place:
    """Give the place of a secret of a trust domain."""
    return Place("secret.sealed", f"{name} {domain}", version)


@dataclass(frozen=True, slots=True)
class RootRow:
    """An epoch and its sealed root."""

    epoch: Epoch
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """A join token. ``used_ms`` of an operator's credential is its latest use."""

    id: str
    kind: Kind
    service: ServiceName
    created_ms: int
    expires_ms: int
    sealed: bytes = field(repr=False)
    used_ms: int | None = None
    revoked_ms: int | None = None
    instance: InstanceId | None = None

    @property
    def place(self) -> Place:
        """Where the secret belongs. It opens for no other service and no longer life than it was made for."""
        return token_place(self.id, self.kind, self.service, self.expires_ms)


def token_place(token_id: str, kind: Kind, service: ServiceName, expires_ms: int) -> Place:
    """Give the place of a token's secret."""
    return Place("token.sealed", f"{token_id} {kind} {service} {expires_ms}", 1)


def root_place(epoch: Epoch) -> Place:
    """Give the place of an epoch's root."""
    row = f"{epoch.number.number} {epoch.begins_ms} {epoch.ends_ms} {epoch.accepted_until_ms}"
    return Place("epoch.sealed", row, 1)


@dataclass(frozen=True, slots=True)
class Instance:
    """A running copy of a service, as long as it can renew: until its newest certificate ends."""

    id: InstanceId
    service: ServiceName
    token_id: str
    request_digest: bytes
    certificate: bytes
    joined_ms: int
    expires_ms: int
    revoked_ms: int | None = None
    remote_keys: bool = False

    def is_member(self, service: ServiceName, now_ms: int) -> bool:
        """Whether it is one of a service now; one whose certificate has ended is none."""
        return self.service == service and self.revoked_ms is None and now_ms < self.expires_ms


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A version of the policy of record. Version 0, of a new trust domain, allows nothing."""

    version: int
    document: bytes
    signature: bytes
    applied_ms: int


@dataclass(frozen=True, slots=True)
class PolicyNote:
    """What is told of a policy that is kept: its document's size, and if known the operator's instance.

    ``restores`` is the version whose text it got by a rollback, if it came by one.
    """

    version: int
    applied_ms: int
    size: int
    instance: str
    restores: int | None = None


@dataclass(frozen=True, slots=True)
class LogRow:
    """The end of an audit log, and the sealed keys to go on from it."""

    head: Head
    sealed: bytes = field(repr=False)


def log_place(domain: TrustDomain, head: Head) -> Place:
    """Give the place of a log's keys. They open for no other end than the one that they go on from."""
    where = f"{head.first_segment} {head.segment} {head.size} {head.at_ms} {head.mac.hex()}"
    return Place("audit_log.sealed", f"{domain} {head.log} {where}", head.sequence)
