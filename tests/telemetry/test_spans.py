"""A call's two spans: one on each side whatever its kind, one tree, and the verdict in it."""

from __future__ import annotations

import gc
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from mesh.core.matcher import Matcher
from mesh.core.names import ServiceName
from mesh.core.policy import Section
from mesh.core.traffic import Fault, Hedge, Retry, Route, Traffic
from mesh.rpc.channel import MeshChannel
from mesh.rpc.server import MeshServer
from mesh.telemetry.sampling import Sampling
from mesh.telemetry.spans import Tracing, address
from tests.rpc.app import Echo, path
from tests.rpc.attack import Attacker, capture, eventually
from tests.rpc.pair import World
from tests.telemetry.conftest import Watched, watch

C = grpc.StatusCode
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
DENYING = Section.parse(
    b'{"allow":[{"principals":["*"],"paths":["*"]}],'
    b'"deny":[{"name":"no-echo","principals":["caller"],"paths":["/test.v1.Echo/Unary"]}]}'
)


async def all_told(*watched: Watched) -> None:
    """Wait until nothing is open on either side."""
    for one in watched:
        await eventually(lambda one=one: not any(one.telemetry.counts.open.values()))  # type: ignore[misc]


@pytest.mark.parametrize("method", ["Unary", "Up", "Down", "Both"])
async def test_one_span_on_each_side(
    channel: MeshChannel, caller: Watched, callee: Watched, method: str
) -> None:
    """Whatever its kind and however many its messages, a call is one span on each side, in one trace."""
    many: Any = {"Up": channel.stream_unary, "Down": channel.unary_stream, "Both": channel.stream_stream}
    call = many.get(method, channel.unary_unary)(path(method))(
        b"3" if method in ("Unary", "Down") else iter([b"1", b"2", b"3"])
    )
    if method in ("Down", "Both"):
        assert [message async for message in call]
    assert await call.code() is C.OK
    await all_told(caller, callee)
    (out,), (served,) = caller.spans, callee.spans
    assert out.context is not None
    assert served.context is not None
    assert served.parent is not None
    assert served.parent.span_id == out.context.span_id
    assert served.context.trace_id == out.context.trace_id
    assert (out.kind, served.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert out.name == served.name == f"test.v1.Echo/{method}"
    assert served.resource.attributes["service.name"] == "callee"


async def test_attributes(channel: MeshChannel, caller: Watched, callee: Watched) -> None:
    """A span says who called whom, under which seal, what was decided, by which rule, and how it ended."""
    await channel.unary_unary(path("Unary"))(b"a")
    await all_told(caller, callee)
    (out,), (served,) = caller.spans, callee.spans
    assert out.attributes is not None
    told = dict(served.attributes or {})
    shared = {
        "rpc.system.name": "grpc",
        "rpc.method": "test.v1.Echo/Unary",
        "rpc.response.status_code": "OK",
        "server.address": "callee.test.example",
        "mesh.source": "caller",
        "mesh.source.instance": str(caller.member.instance),
        "mesh.destination": "callee",
        "mesh.destination.instance": str(callee.member.instance),
        "mesh.key.epoch": 1,
        "mesh.sequence": 1,
        "mesh.call.id": out.attributes["mesh.call.id"],
        "network.peer.address": "127.0.0.1",
    }
    assert told.pop("network.peer.port")
    assert told.pop("mesh.rule")
    assert told == {**shared, "mesh.verdict": "permit"}
    assert shared.items() <= out.attributes.items()
    assert out.attributes["mesh.attempts"] == 1


AGAIN = Route(("*",), retry=Retry(3, ("UNKNOWN",), backoff_ms=1, longest_ms=1))
BESIDE = Route(("*",), 500, hedge=Hedge(3, 1))
ROUTES = [(AGAIN, "Raise", "mesh.retry", (2, 0)), (BESIDE, "Wait", "mesh.hedge", (0, 2))]


@pytest.mark.parametrize(("route", "method", "event", "counted"), ROUTES)
async def test_attempts_are_events_of_one_span(
    world: World,
    channel: MeshChannel,
    caller: Watched,
    callee: Watched,
    route: Route,
    method: str,
    event: str,
    counted: tuple[int, int],
) -> None:
    """However often a call is made, its caller has one span of it, and each attempt is counted once."""
    world.directory.told[ServiceName("callee")] = Traffic(routes=(route,))
    with pytest.raises(grpc.aio.AioRpcError):
        await channel.unary_unary(path(method))(b"a", timeout=10)
    await all_told(caller, callee)
    (out,) = caller.spans
    assert [one.name for one in out.events] == [event] * 2
    assert (out.attributes or {})["mesh.attempts"] == 3
    assert (caller.telemetry.counts.retries, caller.telemetry.counts.hedges) == counted
    assert len(callee.spans) == 3


@pytest.mark.parametrize("method", ["Unary", "Both"])
async def test_a_fault_on_purpose_is_marked(
    world: World, channel: MeshChannel, caller: Watched, method: str
) -> None:
    """Nobody takes it for a real one: the span says so, and the counter, and the reason."""
    route = Route(("*",), fault=Fault(100, 1, "INTERNAL"))
    world.directory.told[ServiceName("callee")] = Traffic(routes=(route,))
    many: Any = channel.stream_stream(path("Both"))
    call = many(iter([b"a"])).read() if method == "Both" else channel.unary_unary(path("Unary"))(b"a")
    with pytest.raises(grpc.aio.AioRpcError):
        await call
    await all_told(caller)
    (out,) = caller.spans
    assert [dict(one.attributes or {}) for one in out.events] == [
        {"mesh.fault": "delay"},
        {"mesh.fault": "abort"},
    ]
    assert out.attributes is not None
    assert (out.attributes["mesh.fault"], out.attributes["mesh.reason"]) == ("abort", "FAULT")
    assert caller.telemetry.counts.faults == {"delay": 1, "abort": 1}


async def test_a_denial(channel: MeshChannel, caller: Watched, callee: Watched) -> None:
    """A denial is no error of the server's; both spans have its id, and only the callee's has the rule."""
    callee.member.authorize = Matcher(DENYING).permit
    assert await channel.unary_unary(path("Unary"))(b"a").code() is C.PERMISSION_DENIED
    await all_told(caller, callee)
    (out,), (served,) = caller.spans, callee.spans
    assert out.attributes is not None
    assert served.attributes is not None
    assert served.status.status_code is StatusCode.UNSET
    assert served.attributes["mesh.verdict"] == "deny"
    assert served.attributes["mesh.rule"] == "no-echo"
    assert served.attributes["mesh.reason"] == out.attributes["mesh.reason"] == "POLICY_DENIED"
    assert served.attributes["mesh.call.id"] == out.attributes["mesh.call.id"]
    assert out.status.status_code is StatusCode.ERROR
    assert out.attributes["error.type"] == "PERMISSION_DENIED"
    assert "mesh.rule" not in out.attributes
    assert callee.telemetry.counts.verdicts == {("deny", "POLICY_DENIED"): 1}


@pytest.mark.parametrize(
    ("method", "code", "error"),
    [("Abort", "FAILED_PRECONDITION", False), ("Raise", "UNKNOWN", True), ("Nothing", "UNIMPLEMENTED", True)],
)
async def test_statuses(
    channel: MeshChannel, caller: Watched, callee: Watched, method: str, code: str, error: bool
) -> None:
    """Which statuses are the server's own failure is as the conventions say; for a client all are but OK."""
    assert (await channel.unary_unary(path(method))(b"a").code()).name == code
    await all_told(caller, callee)
    (out,), (served,) = caller.spans, callee.spans
    assert served.attributes is not None
    assert served.attributes["rpc.response.status_code"] == code
    assert (served.status.status_code is StatusCode.ERROR) is error
    assert ("error.type" in served.attributes) is error
    assert out.status.status_code is StatusCode.ERROR


async def test_an_unknown_method(channel: MeshChannel, caller: Watched, callee: Watched) -> None:
    """A method that nobody serves has no name of its own on the server."""
    await channel.unary_unary(path("Nothing"))(b"a").code()
    await all_told(caller, callee)
    (served,) = callee.spans
    assert served.attributes is not None
    assert (served.name, served.attributes["rpc.method"]) == ("grpc", "_OTHER")
    assert served.attributes["rpc.method_original"] == "test.v1.Echo/Nothing"
    assert [key.method for key in callee.telemetry.counts.calls] == ["_OTHER"]


async def test_cancelled(channel: MeshChannel, caller: Watched, callee: Watched, app: Echo) -> None:
    """A call that its caller gives up has ended on both sides."""
    call = channel.unary_unary(path("Wait"))(b"a")
    await app.waiting.wait()
    call.cancel()
    await all_told(caller, callee)
    told = [dict(one.attributes or {})["rpc.response.status_code"] for one in (*caller.spans, *callee.spans)]
    assert told == ["CANCELLED", "CANCELLED"]


async def test_let_go_of(channel: MeshChannel, caller: Watched, callee: Watched) -> None:
    """A stream that its application reads no further has ended, too."""
    call: Any = channel.unary_stream(path("Down"))(b"3")
    async for _ in call:
        break
    del call, _
    gc.collect()
    await all_told(caller, callee)
    (out,) = caller.spans
    assert dict(out.attributes or {})["rpc.response.status_code"] == "CANCELLED"


async def test_an_application_is_in_its_calls_trace(
    world: World, channel: MeshChannel, caller: Watched, callee: Watched, app: Echo
) -> None:
    """What an application calls from inside a call is the child of that, and its metadata says the same."""
    other = watch(world.member("other"), Sampling())
    behind = world.serve(other.member)
    behind.add_generic_rpc_handlers((Echo(),))
    await behind.start()
    onward = world.channel(callee.member, "other")

    async def relayed(request: bytes, context: Any) -> bytes:
        app.metadata.append(tuple(context.invocation_metadata()))
        reply: bytes = await onward.unary_unary(path("Unary"))(request)
        return reply

    app.unary = relayed  # type: ignore[method-assign]
    assert await channel.unary_unary(path("Unary"))(b"a") == b"a"
    await behind.stop(None)
    await all_told(caller, callee, other)
    ends = {
        span.context.span_id: span for one in (caller, callee, other) for span in one.spans if span.context
    }
    (last,) = other.spans
    way = []
    span: Any = last
    while span is not None:
        way.append((span.resource.attributes["service.name"], span.kind))
        span = ends.get(span.parent.span_id) if span.parent else None
    assert way == [
        ("other", SpanKind.SERVER),
        ("callee", SpanKind.CLIENT),
        ("callee", SpanKind.SERVER),
        ("caller", SpanKind.CLIENT),
    ]
    seen = dict(app.metadata[0])["traceparent"]
    assert int(str(seen).split("-")[2], 16) in {span.context.span_id for span in callee.spans if span.context}


async def test_metadata_is_the_parent(channel: MeshChannel, caller: Watched, callee: Watched) -> None:
    """A trace context that the application sends is the call's parent, and its state is carried on."""
    sent = (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "vendor=1"), ("x", "1"))
    await channel.unary_unary(path("Unary"))(b"a", metadata=sent)
    await all_told(caller, callee)
    (out,), (served,) = caller.spans, callee.spans
    assert out.parent is not None
    assert served.context is not None
    assert (out.parent.trace_id, out.parent.span_id) == (int(TRACE, 16), int(SPAN, 16))
    assert served.context.trace_state.to_header() == "vendor=1"


@pytest.mark.parametrize("bad", ["00-zz-zz-01", f"00-{'0' * 32}-{SPAN}-01", "x" * 2000])
async def test_a_malformed_parent(channel: MeshChannel, caller: Watched, callee: Watched, bad: str) -> None:
    """A context that makes no sense begins a new trace, and fails no call."""
    assert await channel.unary_unary(path("Unary"))(b"a", metadata=(("traceparent", bad),)) == b"a"
    await all_told(caller, callee)
    (out,), (served,) = caller.spans, callee.spans
    assert out.parent is None
    assert served.parent is not None


async def test_not_recorded(
    channel: MeshChannel, caller: Watched, callee: Watched, app: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that is not recorded touches no tracer, and tells the next node not to record it either."""
    caller.telemetry.tracing._sampling = Sampling(0.0)
    for watched in (caller, callee):
        monkeypatch.setattr(watched.telemetry.tracing._tracer, "start_span", _never)
    assert await channel.unary_unary(path("Unary"))(b"a") == b"a"
    assert str(dict(app.metadata[0])["traceparent"]).endswith("-00")
    await all_told(caller, callee)
    assert callee.telemetry.counts.verdicts == {("permit", ""): 1}


def _never(*_: object, **__: object) -> None:
    pytest.fail("the SDK was touched")


async def test_a_node_without_sdk_passes_traces_on(channel: MeshChannel, callee: Watched, app: Echo) -> None:
    """Between two nodes that record, one that does not carries the context."""
    callee.telemetry.tracing = Tracing()
    seen: list[trace.SpanContext] = []

    async def inside(request: bytes, context: Any) -> bytes:  # noqa: ARG001
        seen.append(trace.get_current_span().get_span_context())
        return request

    app.unary = inside  # type: ignore[method-assign]
    await channel.unary_unary(path("Unary"))(b"a", metadata=(("traceparent", f"00-{TRACE}-{SPAN}-01"),))
    assert seen[0].trace_id == int(TRACE, 16)
    _, entries = Tracing().call("m", (), dict)
    assert entries == ()


async def test_a_rejected_call(server: MeshServer, caller: Watched, callee: Watched) -> None:
    """A call that is not believed is a trace of its own, with the true cause and none of its claims."""
    to = callee.member.name, callee.member.instance
    said = capture(caller.member, path("Unary"), to=to)
    attacker = Attacker(caller.member.svid, server.port)
    try:
        for _ in range(2):
            await attacker.replay(said)
    finally:
        await attacker.close()
    await all_told(callee)
    replayed = next(one for one in callee.spans if dict(one.attributes or {})["mesh.verdict"] == "reject")
    assert replayed.attributes is not None
    assert replayed.parent is None
    assert str(replayed.attributes["mesh.cause"]).startswith("sequence number was seen before")
    assert replayed.attributes["rpc.method"] == "_OTHER"
    assert "mesh.source" not in replayed.attributes
    assert callee.telemetry.counts.replays == 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ipv4:127.0.0.1:80", {"network.peer.address": "127.0.0.1", "network.peer.port": 80}),
        ("ipv6:%5B::1%5D:80", {"network.peer.address": "::1", "network.peer.port": 80}),
        ("host.example:443", {"network.peer.address": "host.example", "network.peer.port": 443}),
        ("unix:/run/a.sock", {"network.peer.address": "/run/a.sock"}),
        ("nonsense", {}),
        ("", {}),
    ],
)
def test_addresses(text: str, wanted: dict[str, str | int]) -> None:
    """Addresses are read as gRPC writes them."""
    assert address(text) == wanted
