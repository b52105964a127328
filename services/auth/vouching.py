"""Joining on Kubernetes' word: a proof that opens, a token that is true, a rule that says who its owner is.

The order is that of joining by token: the secret's proof first, then whether the request was here before, and
only then is the API server asked, for that a stranger could make auth do for nothing. What comes out is a
join token of the node's own making, good for one join, and the rest of the way is that of any other.

A pod that joins again and again has to wait: each join is an instance more to be told of if its service is
revoked, and two entries in the audit log. Operators are not limited, whose every command is a join.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

from mesh.core.audit import Entry, Kind
from mesh.core.errors import PeerError
from mesh.core.join import JoinAsked
from mesh.core.names import OPERATOR, ServiceName
from mesh.core.vouching import PRIVATE_BYTES, JoinKey, Proof
from mesh.core.workloads import Rules, Workload
from services.auth.admission import Admission
from services.auth.audit import report
from services.auth.directory import DataDirectory, sealed_secret
from services.auth.errors import AuthError, LimitedError, RefusedError
from services.auth.guesses import Debts, Limit
from services.auth.records import secret_place
from services.auth.worker import Worker

#: Reviews at a time; more wait.
AT_ONCE: Final = 16
#: Joins of one pod: so many at once, and one more in ten seconds.
WORKLOAD: Final = Limit(10, 0.1)
#: The refusal of every join that Kubernetes was to vouch for, whatever the reason.
REFUSED: Final = (
    "join refused: Kubernetes does not vouch for the token, or no rule makes it a service, or that is banned:"
    " mesh audit query --kind join says which, and an expired token is made anew by kubectl create token"
)
LIMITED: Final = "this pod joined too often: wait ten seconds, then try again"
_SECRET: Final = "join"  # noqa: S105  its name in the database


class NotVouchedError(Exception):
    """Kubernetes does not say who the owner of a token is; why is for the log alone."""


class Reviewer(Protocol):
    """Who can say who the owner of a token is."""

    async def review(self, token: str) -> Workload:
        """Say it; raise ``NotVouchedError`` for a token that is not true, ``UnaskedError`` for no answer."""


class Vouching:
    """Makes join tokens for those that Kubernetes vouches for."""

    def __init__(
        self,
        admission: Admission,
        worker: Worker,
        key: JoinKey,
        reviewer: Reviewer,
        rules: Rules,
        banned: Callable[[ServiceName], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what makes tokens, its thread, the key of proofs, whom to ask, who is who and who banned.

        ``now``: seconds of a clock that only goes forward.
        """
        self._admission, self._worker, self._key, self._banned = admission, worker, key, banned
        self._reviewer, self._rules = reviewer, rules
        self._joins, self._now = Debts(WORKLOAD), now
        self._asking = asyncio.Semaphore(AT_ONCE)

    async def vouch(self, asked: JoinAsked) -> None:
        """See to it that a request has its token; raise ``RefusedError`` like any other refusal of a join.

        Raises ``LimitedError`` for a pod that joined too often.
        """
        try:
            proof = self._key.open(asked)
        except PeerError as error:
            await self._refuse(asked, "proof not opened", str(error))
        if await self._worker.do(self._admission.knows, asked.token_id):
            return  # a request that comes again
        workload = await self._reviewed(asked, proof)
        service = self._rules.service_of(workload)
        if service is None:
            await self._refuse(asked, "workload not known", f"no rule for {workload}")
        await self._worker.do(self._vouched, asked, proof, service, workload)

    def _vouched(self, asked: JoinAsked, proof: Proof, service: ServiceName, workload: Workload) -> None:
        if self._banned(service):
            self._admission.not_vouched(asked.token_id, "service banned", f"{service} is banned")
            raise RefusedError(REFUSED)
        if service != OPERATOR:
            self._count(asked, workload)
        self._admission.vouched(proof.join_token, service, workload)

    def _count(self, asked: JoinAsked, workload: Workload) -> None:
        # In the worker's one thread, so that nobody is let in between the question and the count.
        pod, now = str(workload), self._now()
        if self._joins.is_over(pod, now):
            self._admission.not_vouched(asked.token_id, "workload joins too often", pod)
            raise LimitedError(LIMITED)
        self._joins.add(pod, now)

    async def _reviewed(self, asked: JoinAsked, proof: Proof) -> Workload:
        try:
            async with self._asking:
                return await self._reviewer.review(proof.token)
        except NotVouchedError as error:
            await self._refuse(asked, "workload not vouched for", str(error))

    async def _refuse(self, asked: JoinAsked, event: str, detail: str) -> NoReturn:
        await self._worker.do(self._admission.not_vouched, asked.token_id, event, detail)
        raise RefusedError(REFUSED)


def join_key(directory: DataDirectory, now_ms: int) -> JoinKey:
    """Give the trust domain's join key, made at the first time.

    Raises ``AuthError`` if it does not open, and ``OvertakenError``.
    """
    vault, domain, keys = directory.vault, directory.domain, directory.store.keys
    for found in keys.secrets(_SECRET):
        return JoinKey(vault.open(found.sealed, secret_place(domain, _SECRET, found.version)))
    raw = os.urandom(PRIVATE_BYTES)
    made = JoinKey(raw)
    entry = Entry(now_ms, Kind.KEY, "join key made")
    keys.put_secrets([sealed_secret(vault, domain, _SECRET, made.public, raw)], entries=[entry])
    report(entry)
    return made


class UnaskedError(AuthError):
    """Kubernetes does not answer, so nobody knows: to be asked again, not refused."""
