"""Keeps the policy of record coming from auth.

What is in force stays in force while auth is away, and whatever auth may send: only a verified, newer policy
replaces it (``signed``). A stream is opened anew after ``STREAM_SECONDS`` even if nothing is wrong, so that
none outlives its certificate by much, or waits for ever at the dead end of a connection. Each begins with the
policy of record, which is how auth is known to stand by it: ``age`` says when that was last so.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from typing import Final

import grpc

from mesh.rpc.membership import Membership
from mesh.v1 import auth_pb2, auth_pb2_grpc
from services.gatekeeper.signed import UntrustedPolicyError, VersionedPolicy, verified

log = logging.getLogger("mesh.gatekeeper")

STREAM_SECONDS: Final = 300.0
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 2.0


class PolicySource:
    """Follows auth's policy of record, and hands on each version that is to be in force."""

    def __init__(
        self,
        membership: Membership,
        channel: grpc.aio.Channel,
        take: Callable[[VersionedPolicy], None],
        stream_seconds: float = STREAM_SECONDS,
    ) -> None:
        """Take who we are (for trust domain and policy key), a channel to auth, and who wants the policy.

        ``stream_seconds``: after how many a stream is opened anew.
        """
        self._membership, self._take = membership, take
        self._auth = auth_pb2_grpc.AuthServiceStub(channel)
        self._pause = FIRST_PAUSE_SECONDS
        self._waiting = False
        self._heard_at = -math.inf
        self.stream_seconds = stream_seconds
        self.in_force: VersionedPolicy | None = None

    def age(self) -> float:
        """Give the seconds since auth last sent the policy; endless before it has."""
        return time.monotonic() - self._heard_at

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
        try:
            async for response in self._auth.WatchPolicy(
                auth_pb2.WatchPolicyRequest(), timeout=self.stream_seconds
            ):
                self._heard()
                self.offer(response.policy)
        except grpc.aio.AioRpcError as error:
            return None if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else error.details()
        return "it ended the stream"

    def _heard(self) -> None:
        self._pause, self._heard_at = FIRST_PAUSE_SECONDS, time.monotonic()
        if self._waiting:
            log.info("mesh.auth sends the policy again")
            self._waiting = False

    def offer(self, signed: auth_pb2.SignedPolicy) -> None:
        """Put a policy in force if it is to be trusted and newer; otherwise change nothing and log why."""
        domain, key = self._membership.identity.domain, self._membership.policy_key
        try:
            policy = verified(signed, domain, key, self.in_force)
        except UntrustedPolicyError as error:
            log.error("policy from mesh.auth not taken: %s", error)  # noqa: TRY400  the line says it all
            return
        if policy is not self.in_force:
            self.in_force = policy
            log.info("policy %d is in force", policy.version)
            self._take(policy)
