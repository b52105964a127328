"""Which calls are traced: as the standard variables say, and as OpenTelemetry's own samplers decide."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from mesh.telemetry.sampling import Sampling
from mesh.telemetry.trace_parent import TraceParent

RECORDED, UNRECORDED = TraceParent(5, 6, sampled=True), TraceParent(5, 6, sampled=False)


@pytest.mark.parametrize(
    ("name", "argument", "wanted"),
    [
        (None, None, Sampling(1.0, follows=True)),
        ("always_on", None, Sampling(1.0, follows=False)),
        ("always_off", None, Sampling(0.0, follows=False)),
        ("parentbased_always_off", None, Sampling(0.0, follows=True)),
        ("traceidratio", "0.25", Sampling(0.25, follows=False)),
        ("parentbased_traceidratio", "0.01", Sampling(0.01, follows=True)),
        ("parentbased_traceidratio", None, Sampling(1.0, follows=True)),
    ],
)
def test_read(name: str | None, argument: str | None, wanted: Sampling) -> None:
    """The built-in samplers are known by their names."""
    environ = {"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument}
    assert Sampling.read({key: value for key, value in environ.items() if value}) == wanted


@pytest.mark.parametrize(
    ("name", "argument", "said"),
    [
        ("jaeger_remote", None, "no sampler 'jaeger_remote'"),
        ("traceidratio", "lots", "OTEL_TRACES_SAMPLER_ARG is 'lots'"),
        ("traceidratio", "1.5", "give a share between 0 and 1"),
        ("traceidratio", "nan", "give a share between 0 and 1"),
    ],
)
def test_refused(name: str, argument: str | None, said: str) -> None:
    """What is no sampler, or no share, is refused in a line that says what is."""
    environ = {"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument or ""}
    with pytest.raises(ValueError, match=said):
        Sampling.read(environ)


def test_parents() -> None:
    """A caller's decision is followed, or not, as the sampler says; the trace is the caller's either way."""
    assert Sampling(0.0, follows=True).decide(RECORDED) == RECORDED
    assert Sampling(1.0, follows=True).decide(UNRECORDED) == UNRECORDED
    assert Sampling(0.0, follows=False).decide(RECORDED) == UNRECORDED
    assert Sampling(1.0, follows=False).decide(UNRECORDED) == RECORDED


@pytest.mark.parametrize(("ratio", "recorded"), [(0.0, False), (1.0, True)])
def test_roots(ratio: float, recorded: bool) -> None:
    """Without a caller each call is a trace of its own."""
    first, second = (Sampling(ratio).decide(None) for _ in range(2))
    assert first.sampled is second.sampled is recorded
    assert first.trace_id != second.trace_id


@given(st.integers(1, 2**128 - 1), st.floats(0, 1))
@example(2**64, 2.2792358099653462e-303)
def test_ratio_is_opentelemetrys(trace_id: int, ratio: float) -> None:
    """A trace that this node takes is one that an OpenTelemetry SDK with the same ratio takes."""
    theirs = (
        TraceIdRatioBased(ratio).should_sample(None, trace_id, "name").decision is Decision.RECORD_AND_SAMPLE
    )
    parent = TraceParent(trace_id, 1, sampled=False)
    assert Sampling(ratio, follows=False).decide(parent).sampled is theirs
