"""Keeps the policy of record coming from auth, and with it auth's word that it still is the one.

What is in force stays in force while auth is away, and whatever auth may send: only a verified, newer policy
replaces it (``signed``). Auth's word counts only while what it sent last is what is in force here. A stream
that goes silent is given up, and one is opened anew after ``STREAM_SECONDS`` even if nothing is wrong, so
that none outlives its certificate by much.
Who is revoked comes on the same stream, before any word that was said later.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

import grpc

from mesh.rpc.membership import Membership
from mesh.rpc.waiting import within
from mesh.uncollected import uncollected
from mesh.v1 import auth_pb2, auth_pb2_grpc, revocation_pb2
from services.gatekeeper.confirmed import Confirmed
from services.gatekeeper.signed import UntrustedPolicyError, VersionedPolicy, verified

log = logging.getLogger("mesh.gatekeeper")

STREAM_SECONDS: Final = 300.0
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 2.0
#: Seconds without a word after which a stream is given up; auth gives one every half second.
SILENCE_SECONDS: Final = 3.0


class PolicySource:
    """Follows auth's policy of record, and hands on each version that is to be in force."""

    def __init__(
        self,
        membership: Membership,
        channel: grpc.aio.Channel,
        take: Callable[[VersionedPolicy], None],
        confirmed: Confirmed,
        revoke: Callable[[revocation_pb2.Revocations], None] = lambda _: None,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        """Take who we are (for trust domain and policy key), a channel to auth, and who wants the policy.

        ``confirmed`` is told of auth's word, ``revoke`` of whom auth has revoked or banned; ``forget`` has
        the next stream go to another auth.
        """
        self._membership, self._take = membership, take
        self._auth = auth_pb2_grpc.AuthServiceStub(channel)
        self._pause = FIRST_PAUSE_SECONDS
        self._waiting = self._agreed = False
        self._confirmed, self._revoke, self._forget = confirmed, revoke, forget
        self.in_force: VersionedPolicy | None = None

    async def run(self) -> None:
        """Follow for as long as this runs, through every absence of auth."""
        while True:
            why = await self._follow()
            if why is None:
                continue
            if not self._waiting:
                log.warning("waiting for mesh.auth to send the policy: %s", why)
                self._waiting = True
            await asyncio.sleep(self._pause * random.uniform(0.75, 1.25))  # noqa: S311  spreads load only
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    async def _follow(self) -> str | None:
        # One stream to its end; gives why it ended, None if only its time was over.
        call, answered = self._auth.WatchPolicy(auth_pb2.WatchPolicyRequest(), timeout=STREAM_SECONDS), False
        self._confirmed.asked()
        try:
            while True:
                response = await within(SILENCE_SECONDS, call.read())
                if not isinstance(response, auth_pb2.WatchPolicyResponse):
                    return "it ended the stream"
                answered = True
                if not self._heard(response):
                    return "it was slow to answer"
        except TimeoutError:
            self._forget()
            return "it went silent"
        except grpc.aio.AioRpcError as error:
            return None if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else error.details()
        finally:
            call.cancel()
            if not answered:
                self._confirmed.lost()

    def _heard(self, response: auth_pb2.WatchPolicyResponse) -> bool:
        self._pause = FIRST_PAUSE_SECONDS
        if self._waiting:
            log.info("mesh.auth sends the policy again")
            self._waiting = False
        if response.HasField("revocations"):
            self._revoke(response.revocations)
        if response.HasField("policy"):
            self._agreed = self.offer(response.policy)
        return not self._agreed or self._confirmed.heard(response.now_ms)

    def offer(self, signed: auth_pb2.SignedPolicy) -> bool:
        """Put a policy in force if it is to be trusted and newer; otherwise change nothing and log why.

        Gives whether it is the one in force now.
        """
        domain, key = self._membership.identity.domain, self._membership.policy_key
        try:
            with uncollected():
                policy = verified(signed, domain, key, self.in_force)
        except UntrustedPolicyError as error:
            log.error("policy from mesh.auth not taken: %s", error)  # noqa: TRY400  the line says it all
            return False
        if policy is not self.in_force:
            self.in_force = policy
            log.info("policy %d is in force", policy.version)
            self._take(policy)
        return True
