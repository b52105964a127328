"""A node of the bench: as any application joins, with telemetry as its environment says."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import mesh
from mesh.rpc.observing import NOBODY
from mesh.telemetry.sdk import configured


@asynccontextmanager
async def joined(service: str) -> AsyncIterator[mesh.Node]:
    """Join as a service. ``BENCH_UNWATCHED``: without telemetry, not even counters."""
    with configured(service) as telemetry:
        async with mesh.join(service, telemetry=telemetry) as node:
            if os.environ.get("BENCH_UNWATCHED"):
                node.membership.observer = NOBODY
            yield node
