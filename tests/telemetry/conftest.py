"""What the tests of telemetry share: a pair of members, each with a real SDK, and what those were told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mesh.rpc.channel import MeshChannel
from mesh.rpc.membership import Membership
from mesh.rpc.server import MeshServer
from mesh.telemetry.observer import NodeTelemetry
from mesh.telemetry.sampling import Sampling
from mesh.telemetry.spans import Tracing
from tests.rpc.app import Echo
from tests.rpc.pair import World

__all__ = ["Watched"]


@dataclass
class Watched:
    """A member whose telemetry is kept in memory."""

    member: Membership
    telemetry: NodeTelemetry
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    @property
    def spans(self) -> list[ReadableSpan]:
        """What it told so far, in the order in which it ended."""
        return list(self.exporter.get_finished_spans())


def watch(member: Membership, sampling: Sampling | None = None) -> Watched:
    """Give a member a tracer provider of its own."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(
        resource=Resource.create({"service.name": member.name.text}), shutdown_on_exit=False
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = NodeTelemetry(member.identity, Tracing(provider.get_tracer("test"), sampling))
    member.observer = telemetry
    return Watched(member, telemetry, exporter)


@pytest.fixture
def world() -> World:
    """Make a trust domain."""
    return World()


@pytest.fixture
async def app() -> Echo:
    """Make an application."""
    return Echo()


@pytest.fixture
def callee(world: World) -> Watched:
    """Let the service in that is called."""
    return watch(world.member("callee"), Sampling())


@pytest.fixture
def caller(world: World) -> Watched:
    """Let the service in that calls."""
    return watch(world.member("caller"), Sampling())


@pytest.fixture
async def server(world: World, callee: Watched, app: Echo) -> AsyncIterator[MeshServer]:
    """Serve the application as ``callee``."""
    server = world.serve(callee.member)
    server.add_generic_rpc_handlers((app,))
    await server.start()
    yield server
    await server.stop(None)


@pytest.fixture
def channel(world: World, server: MeshServer, caller: Watched) -> MeshChannel:  # noqa: ARG001
    """Give ``caller``'s channel to it."""
    return world.channel(caller.member, "callee")
