"""The policy of record: what it is, who signed it, and what may replace it.

A version is never used twice and never goes down. What is refused leaves the one of record as it was. The
mesh's own services are in no policy: every node may call auth and gatekeeper (``core.builtin``).
"""

from dataclasses import replace
from typing import Final
from zoneinfo import available_timezones

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh.core.audit import Entry, Kind
from mesh.core.builtin import SECTIONS
from mesh.core.burden import check_burden
from mesh.core.document import MAX_DOCUMENT
from mesh.core.keys import lp
from mesh.core.names import ServiceName, TrustDomain
from mesh.core.policy import Policy, PolicyError
from mesh.core.reach import check_reach
from mesh.core.receiver import Peer
from mesh.core.zones import check_zones
from mesh.uncollected import uncollected
from mesh.v1 import auth_pb2
from services.auth.audit import by_whom, report
from services.auth.errors import ConflictError, InvalidError, MissingError, StartError
from services.auth.records import PolicyRow
from services.auth.store import Store

#: A guard may skip numbers, but not so many that none is left for the policies after it.
MAX_GUARD: Final = 2**53
#: For how many callers it is remembered whom they may call, before that starts afresh.
REMEMBERED: Final = 1024

_LABEL: Final = b"mesh/v1/policy"


class PolicySigner:
    """Vouches for policies of one trust domain: Ed25519, over what auth.proto says of ``SignedPolicy``."""

    def __init__(self, domain: TrustDomain, private_key: bytes) -> None:
        """Take the private key, 32 bytes."""
        self._domain = domain
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)
        self.public_key = self._key.public_key().public_bytes_raw()

    def sign(self, version: int, policy: Policy, now_ms: int) -> PolicyRow:
        """Make a policy that can be put on record."""
        document = policy.encode()
        return PolicyRow(version, document, self._key.sign(self._covered(version, document)), now_ms)

    def read(self, row: PolicyRow) -> Policy:
        """Read what was on record; raise ``StartError`` if it is not what was signed."""
        try:
            self._key.public_key().verify(row.signature, self._covered(row.version, row.document))
            return Policy.parse(row.document)
        except (InvalidSignature, PolicyError):
            raise StartError(f"policy {row.version} was changed in the database: restore a backup") from None

    def _covered(self, version: int, document: bytes) -> bytes:
        return _LABEL + lp(self._domain.text.encode()) + version.to_bytes(8, "big") + lp(document)


class Policies:
    """The policy of record, and its replacement."""

    def __init__(self, store: Store, signer: PolicySigner) -> None:
        """Take up what is on record; raise ``StartError`` if there is none or it does not verify."""
        self._store, self._signer = store, signer
        self.take_up()

    def take_up(self) -> None:
        """Take what is on record; raise ``StartError`` if there is none or it does not verify."""
        store, row = self._store, self._store.policy()
        if row is None:
            raise StartError("there is no policy in the database: restore a backup")
        self._row, self._policy = row, self._signer.read(row)
        newest = store.last_applied()
        if row.version < newest:
            # Earlier policies are kept and are signed as well: without the newest, one would come back.
            raise StartError(f"policy {newest} was changed or is missing in the database: restore a backup")
        self._permitted: dict[ServiceName, frozenset[ServiceName]] = {}

    @property
    def version(self) -> int:
        """The version of record; 0 before the first."""
        return self._row.version

    @property
    def signed(self) -> auth_pb2.SignedPolicy:
        """The policy of record as it is handed out."""
        return _signed(self._row)

    def permitted(self, source: ServiceName) -> frozenset[ServiceName]:
        """Give those that a service may have keys for calling.

        A set, so that asking for a name takes as long if it is forbidden as if it does not exist.
        """
        known = self._permitted.get(source)
        if known is None:
            if len(self._permitted) >= REMEMBERED:
                self._permitted.clear()
            own = (name for name, section in SECTIONS.items() if section.admits(source))
            known = self._permitted[source] = frozenset((*self._policy.destinations(source), *own))
        return known

    def kept(self, version: int) -> auth_pb2.SignedPolicy:
        """Give a version that is kept; raise ``MissingError``, also for one that was changed."""
        return _signed(self._kept(version)[0])

    def again(self, version: int, now_ms: int) -> PolicyRow:
        """Give the policy of record as another version, signed and not yet on record."""
        return self._signer.sign(version, self._policy, now_ms)

    def replace(
        self,
        policy: Policy,
        by: Peer,
        now_ms: int,
        replaces: int | None = None,
        restores: int | None = None,
    ) -> auth_pb2.SignedPolicy:
        """Put a policy on record.

        Raises ``ConflictError`` if its guard is not newer, or if the version that it ``replaces`` is not the
        one of record any more, ``MissingError`` if the one that it ``restores`` is not kept, and
        ``InvalidError`` if it does not say what that one says, but for its guard.
        """
        if replaces is not None and replaces != self.version:
            raise ConflictError(
                f"policy {self.version} is in force, not {replaces} any more: look at it, then apply again"
            )
        if restores is not None:
            self._check_text(policy, restores)
        version = self._next(policy)
        row = self._signer.sign(version, policy, now_ms)
        if len(row.document) > MAX_DOCUMENT:
            raise InvalidError(f"policy is larger than {MAX_DOCUMENT} bytes: make it shorter")
        detail = str(version) if restores is None else f"{version} with the text of {restores}"
        entry = Entry(now_ms, Kind.POLICY, "policy applied", by=by_whom(by), detail=detail)
        if not self._store.replace_policy(row, self.version, by.instance, entry, restores):
            raise ConflictError(f"policy {version} is not newer than the one in force: get that one first")
        self._row, self._policy, self._permitted = row, policy, {}
        report(entry)
        return self.signed

    def _kept(self, version: int) -> tuple[PolicyRow, Policy]:
        row = self._store.policy(version)
        if row is None:
            raise MissingError(f"policy {version} is not kept: see mesh policy history")
        try:
            return row, self._signer.read(row)
        except StartError:
            raise MissingError(f"policy {version} was changed in the database: choose another") from None

    def _check_text(self, policy: Policy, restores: int) -> None:
        # History and audit log say whose text it is, and a rollback goes on from there.
        if policy != replace(self._kept(restores)[1], version_guard=None):
            raise InvalidError(
                f"this is not the text of policy {restores}: send that without its version, as "
                "mesh policy rollback does, or apply this without saying that it restores one"
            )

    def _next(self, policy: Policy) -> int:
        guard = policy.version_guard
        if guard is None:
            return self.version + 1
        if guard > MAX_GUARD:
            raise InvalidError(f"policy.version: {guard} is too large: use at most {MAX_GUARD}")
        if guard <= self.version:
            raise ConflictError(
                f"policy.version: {guard} is not newer than {self.version}, which is in force: "
                "get that one first, or leave the version out"
            )
        return guard


def _signed(row: PolicyRow) -> auth_pb2.SignedPolicy:
    return auth_pb2.SignedPolicy(version=row.version, document=row.document, signature=row.signature)


def parse(document: bytes) -> Policy:
    """Read a policy that somebody wants to apply; raise ``InvalidError`` with what is wrong and where."""
    try:
        with uncollected():
            policy = Policy.parse(document)
            check_reach(policy)
            check_burden(policy)
            check_zones(policy, available_timezones)
    except PolicyError as error:
        raise InvalidError(str(error)) from None
    return policy
