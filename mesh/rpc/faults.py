"""Faults on purpose: what policy has done to some calls, on the caller's side, before they are made.

They are marked where they are told of (``Calling.disturbed``), and an abort says in its text and its
``ErrorInfo`` what it is, so that nobody takes them for real ones.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

import grpc

from mesh.core.errors import Reason
from mesh.core.traffic import Fault
from mesh.rpc.caller import CallSpec
from mesh.rpc.status import CallFailedError, mesh_outcome

DELAY: Final = "delay"
ABORT: Final = "abort"
_HUNDRED: Final = 100


async def disturb(spec: CallSpec) -> None:
    """Do to a call what its route says is done to some; raise ``CallFailedError`` if that ends it."""
    fault = spec.plan.route.fault if spec.plan is not None else None
    if fault is not None and random.randrange(_HUNDRED) < fault.percent:  # noqa: S311  no secret
        await _disturb(spec, fault)


async def _disturb(spec: CallSpec, fault: Fault) -> None:
    if fault.delay_ms:
        spec.watched.disturbed(DELAY)
        left = spec.remaining()
        await asyncio.sleep(fault.delay_ms / 1000 if left is None else min(left, fault.delay_ms / 1000))
        spec.remaining()
    if fault.abort:
        spec.watched.disturbed(ABORT)
        raise CallFailedError(mesh_outcome(Reason.FAULT, code=grpc.StatusCode[fault.abort]))
