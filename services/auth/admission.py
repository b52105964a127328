"""Tokens, and what joins with them.

The order is that of DESIGN section 3: proof, then the token's life, then the request, and last one statement
that uses the token up together with what it gives. A stranger (no proof) changes nothing, is told nothing
and takes the same path whether the token exists or not. All refusals are one ``RefusedError``.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeAlias, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from mesh.core.audit import Entry
from mesh.core.audit import Kind as EntryKind
from mesh.core.audit import Verdict as EntryVerdict
from mesh.core.join import JoinAsked, JoinToken
from mesh.core.keys import KEY_BYTES, Key
from mesh.core.names import INSTANCE_BYTES, OPERATOR, InstanceId, ServiceName
from mesh.core.receiver import Peer
from mesh.core.workloads import Workload
from services.auth import tokens
from services.auth.audit import by_whom, report, unlogged
from services.auth.auditor import Auditor
from services.auth.ca import ends_ms, read_csr
from services.auth.deferred import STRANGERS, about
from services.auth.errors import ConflictError, InvalidError, MissingError, RefusedError
from services.auth.failpoints import reach
from services.auth.records import Instance, Kind, Token, token_place
from services.auth.store import Store
from services.auth.tokens import State, Verdict
from services.auth.vault import TamperedError, Vault

Issue = Callable[[ServiceName, InstanceId, ec.EllipticCurvePublicKey, int], bytes]
"""Gives a certificate (DER) for a service, an instance and its key, at a time."""

REFUSED: Final = (
    "join refused: the token is unknown, expired, used or wrong: make a new one with mesh token create"
)
#: How long a token of a node's own making is good for, as long as the shortest token that vouches for it.
VOUCHED_MS: Final = 600_000
DENIED: Final = EntryVerdict.DENIED
_TOKEN_ID_BYTES: Final = 8


def new_token(
    vault: Vault, kind: Kind, service: ServiceName, life_ms: int, now_ms: int
) -> tuple[JoinToken, Token]:
    """Make a token: what its owner gets, and what is kept."""
    owned = JoinToken(secrets.token_hex(_TOKEN_ID_BYTES), Key(os.urandom(KEY_BYTES)))
    expires_ms = now_ms + life_ms
    sealed = vault.seal(owned.secret.reveal(), token_place(owned.id, kind, service, expires_ms))
    return owned, Token(owned.id, kind, service, now_ms, expires_ms, sealed)


Admitted: TypeAlias = tuple[Key, Instance]
"""The join secret, and the instance that a request gets."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class _Joining:
    """What a request gets if its token is still open when that is written."""

    secret: Key
    instance: Instance
    entry: Entry

    @property
    def logged(self) -> Entry | None:
        """What is logged with it: nothing of an operator's session, which is bounded (``auditor``)."""
        return None if self.entry.kind is EntryKind.SESSION else self.entry


class Admission:
    """Makes tokens and lets in who holds one."""

    def __init__(
        self, store: Store, vault: Vault, issue: Issue, auditor: Auditor, now_ms: Callable[[], int]
    ) -> None:
        """Take rows, secrets, what makes certificates, where refusals are noted, and the clock."""
        self._now_ms = now_ms
        self._store, self._vault, self._issue, self._auditor = store, vault, issue, auditor
        self._decoy = self._new_decoy()

    def create(
        self, service: ServiceName, life_ms: int, by: Peer, now_ms: int, *, remote_keys: bool = False
    ) -> tuple[JoinToken, Token]:
        """Make a token for one instance of a service, whose keys auth may keep."""
        kind = Kind.REMOTE if remote_keys else Kind.JOIN
        owned, token = new_token(self._vault, kind, service, life_ms, now_ms)
        entry = _about(token, now_ms, "token created", by)
        self._store.add_token(token, entry)
        report(entry)
        return owned, token

    def revoke(self, token_id: str, by: Peer, now_ms: int) -> None:
        """Make an unused token useless.

        Raises ``MissingError``, and ``ConflictError`` for a token that was used and for the operator's own
        credential, without which nobody could operate the mesh again. Revoking twice is no error.
        """
        token = self._store.token(token_id)
        if token is None:
            raise MissingError("no such token: list them with mesh token list")
        if token.kind is Kind.OPERATOR:
            raise ConflictError("that is the operator's own credential, which the mesh cannot do without")
        if tokens.state(token, now_ms) is State.REVOKED:
            return
        entry = _about(token, now_ms, "token revoked", by)
        if not self._store.revoke_token(token_id, now_ms, entry):
            raise ConflictError("the token was used: there is nothing left to revoke")
        report(entry)

    def knows(self, token_id: str) -> bool:
        """Whether there is a token of that id, in whatever state."""
        return self._store.token(token_id) is not None

    def vouched(self, token: JoinToken, service: ServiceName, workload: Workload) -> None:
        """Take a token of a node's own making, whom Kubernetes vouches for, as that of a service."""
        if self.knows(token.id):
            return  # the same request, sent twice
        now_ms = self._now_ms()
        expires_ms = now_ms + VOUCHED_MS
        sealed = self._vault.seal(
            token.secret.reveal(), token_place(token.id, Kind.JOIN, service, expires_ms)
        )
        entry = Entry(
            now_ms,
            EntryKind.TOKEN,
            "workload vouched for",
            service=service.text,
            token_id=token.id,
            by="kubernetes",
            detail=str(workload),
        )
        self._store.add_token(Token(token.id, Kind.JOIN, service, now_ms, expires_ms, sealed), entry)
        report(entry)

    def not_vouched(self, token_id: str, event: str, detail: str) -> None:
        """Note why nobody is vouched for."""
        self._refuse(_failed(self._now_ms(), event, token_id, detail=detail), STRANGERS)

    def admit(self, asked: Sequence[JoinAsked], now_ms: int) -> list[Admitted | Exception]:
        """Give what each request gets; those that join are written in one transaction.

        A refused one gets ``RefusedError``, a proven one with a bad certificate request ``InvalidError``, and
        uses nothing up.
        """
        reach("taken")
        judged = [_outcome(self._judge, one, now_ms) for one in asked]
        reach("judged")
        joining = [one for one in judged if isinstance(one, _Joining)]
        outcome_of_all = _outcome(self._written, joining)
        if isinstance(outcome_of_all, Exception):
            return [outcome_of_all if isinstance(one, _Joining) else one for one in judged]
        written = iter(outcome_of_all)
        outcomes: list[Admitted | Exception] = []
        for request, one in zip(asked, judged, strict=True):
            outcome = next(written) if isinstance(one, _Joining) else one
            # Between judging and writing somebody else may have used the token: once more, by itself.
            outcomes.append(_outcome(self._again, request, now_ms) if outcome is None else outcome)
        return outcomes

    def _again(self, asked: JoinAsked, now_ms: int) -> Admitted:
        judged = self._judge(asked, now_ms)
        if not isinstance(judged, _Joining):
            return judged
        (admitted,) = self._written([judged])
        if admitted is None:
            service = judged.instance.service
            entry = _failed(now_ms, "join overtaken", asked.token_id, service)
            raise self._refuse(entry, about(service.text))
        return admitted

    def _judge(self, asked: JoinAsked, now_ms: int) -> _Joining | Admitted:
        token = self._store.token(asked.token_id)
        if not self._vault.is_under(self._decoy.sealed):
            self._decoy = self._new_decoy()
        secret = self._secret(token or self._decoy, now_ms)
        proven = asked.proven_by(secret)
        if token is None or not proven:
            raise self._refuse(_failed(now_ms, "join not proven", asked.token_id), STRANGERS)
        known, before = self._before(token, asked, now_ms)
        verdict = tokens.judge(token, known=known, alive=before is not None, now_ms=now_ms)
        if verdict is Verdict.REPEAT and before is not None:
            return secret, before
        if verdict is not Verdict.ISSUE:
            raise self._refusal(verdict, token, now_ms)
        return self._joining(token, secret, asked, now_ms)

    def _written(self, joining: Sequence[_Joining]) -> list[Admitted | None]:
        if not joining:
            return []
        written = self._store.consume([(one.instance, one.logged) for one in joining])
        reach("written")
        admitted: list[Admitted | None] = []
        for one, is_written in zip(joining, written, strict=True):
            admitted.append((one.secret, one.instance) if is_written else None)
            if is_written:
                report(one.entry)
            if is_written and one.logged is None:
                self._auditor.began(one.entry)
        return admitted

    def _new_decoy(self) -> Token:
        # What a request for an unknown token is verified against. Nobody knows its secret, us included.
        return new_token(self._vault, Kind.JOIN, ServiceName("decoy"), 0, 0)[1]

    def _secret(self, token: Token, now_ms: int) -> Key:
        try:
            return Key(self._vault.open(token.sealed, token.place))
        except TamperedError as error:
            entry = _failed(now_ms, "token tampered with", token.id, alarm=True, detail=str(error))
            raise self._refuse(entry, STRANGERS) from None

    def _before(self, token: Token, asked: JoinAsked, now_ms: int) -> tuple[bool, Instance | None]:
        # Whether this very request used the token, and the instance it got unless the certificate has ended.
        if token.used_ms is None or not self._store.is_used_by(token.id, asked.digest):
            return False, None
        before = self._store.joined_by(token.id, asked.digest)
        alive = before and before.revoked_ms is None and now_ms < ends_ms(before.certificate)
        return True, before if alive else None

    def _joining(self, token: Token, secret: Key, asked: JoinAsked, now_ms: int) -> _Joining:
        try:
            key = read_csr(asked.csr)
        except InvalidError as error:
            entry = _failed(now_ms, "join request bad", token.id, token.service, detail=str(error))
            self._auditor.refused(entry, about(token.service.text))
            raise
        new = InstanceId(os.urandom(INSTANCE_BYTES))
        certificate = self._issue(token.service, new, key, now_ms)
        remote = (asked.remote_keys or token.kind is Kind.REMOTE) and not token.service.reserved
        made = (new, token.service, token.id, asked.digest, certificate, now_ms)
        instance = Instance(*made, ends_ms(certificate), remote_keys=remote)
        entry = Entry(
            now_ms,
            EntryKind.SESSION if token.service == OPERATOR else EntryKind.JOIN,
            "joined",
            service=token.service.text,
            instance=str(new),
            token_id=token.id,
        )
        return _Joining(secret, instance, entry)

    def _refusal(self, verdict: Verdict, token: Token, now_ms: int) -> RefusedError:
        # Somebody holds the secret: that is worth an alarm, raised once, for he may come again and again.
        # To send what was sent before takes no secret, and an owner who comes late does no harm.
        alarm = verdict not in (Verdict.EXPIRED, Verdict.ENDED)
        event = f"token {verdict.name.lower()}"
        entry = _failed(now_ms, event, token.id, token.service, alarm=alarm, detail=verdict.value)
        if alarm:
            with unlogged():
                self._store.alarm(entry)
        return self._refuse(entry, about(token.service.text))

    def _refuse(self, entry: Entry, source: str) -> RefusedError:
        self._auditor.refused(entry, source)
        return RefusedError(REFUSED)


def _outcome(work: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R | Exception:
    # What one request leads to is its own, whatever it is: those beside it go on.
    try:
        return work(*args, **kwargs)
    except Exception as error:  # noqa: BLE001
        return error


def _about(token: Token, now_ms: int, event: str, by: Peer) -> Entry:
    service = token.service.text
    return Entry(now_ms, EntryKind.TOKEN, event, service=service, token_id=token.id, by=by_whom(by))


def _failed(
    now_ms: int,
    event: str,
    token_id: str,
    service: ServiceName | None = None,
    *,
    alarm: bool = False,
    detail: str = "",
) -> Entry:
    return Entry(
        now_ms,
        EntryKind.JOIN,
        event,
        DENIED,
        alarm,
        service.text if service else "",
        token_id=token_id,
        detail=detail,
    )
