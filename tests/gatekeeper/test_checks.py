"""What is read of an Envoy's question, and what is not: every doubt is a denial."""

from __future__ import annotations

import base64
from collections.abc import Callable

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import Reason
from mesh.core.names import Identity
from mesh.extauthz.v1 import check_pb2
from mesh.rpc.status import mesh_outcome
from services.gatekeeper.checks import Question, UnfitError, permitted, read, refused, told
from services.gatekeeper.judging import MAX_HEADERS

ORDERS = Identity.parse("spiffe://test.example/orders")
FRONTEND = Identity.parse("spiffe://test.example/frontend")
GET = "/shop.v1.Orders/Get"
HEADERS = (
    (":method", b"POST"),
    (":path", GET.encode()),
    (":authority", b"orders"),
    ("content-type", b"application/grpc"),
    ("te", b"trailers"),
    ("x-tenant", b"acme"),
)


def asked(*headers: tuple[str, bytes], principal: str = FRONTEND.uri) -> check_pb2.CheckRequest:
    """Give a question as an Envoy asks it under encode_raw_headers."""
    request = check_pb2.CheckRequest()
    request.attributes.source.principal = principal
    request.attributes.destination.principal = ORDERS.uri
    http = request.attributes.request.http
    http.method, http.path = "POST", GET
    for key, value in headers or HEADERS:
        http.header_map.headers.add(key=key, raw_value=value)
    return request


def joined(**headers: str) -> check_pb2.CheckRequest:
    """Give one as an Envoy asks it without that setting."""
    request = asked()
    http = request.attributes.request.http
    http.ClearField("header_map")
    http.headers["content-type"] = "application/grpc"
    for key, value in headers.items():
        http.headers[key.replace("_", "-")] = value
    return request


def changed(change: Callable[[check_pb2.AttributeContext], object]) -> check_pb2.CheckRequest:
    request = asked()
    change(request.attributes)
    return request


def test_a_call_is_read_without_the_headers_of_the_transport() -> None:
    """The verified caller, the path as it came, and the application's metadata."""
    assert read(asked(), ORDERS) == Question(FRONTEND, GET, (("x-tenant", b"acme"),), ())


def test_each_header_stays_by_itself_in_its_order() -> None:
    """Two of one name are two, also with a comma in one of them."""
    more = (("x-tenant", b"a,b"), ("x-tenant", b""), ("data-bin", b"AAEC"))
    assert read(asked(*HEADERS, *more), ORDERS).entries == (("x-tenant", b"acme"), *more)


def test_headers_of_the_mesh_are_not_judged_and_those_to_remove_are_named() -> None:
    """All but the one that is set: Envoy removes after it sets."""
    forged = (("mesh-peer", b"x"), ("mesh-to", b"x"), ("mesh-call-bin", b"x"), ("mesh-to", b"y"))
    question = read(asked(*HEADERS, *forged), ORDERS)
    assert question.entries == (("x-tenant", b"acme"),)
    assert question.forged == ("mesh-call-bin", "mesh-to")


def test_joined_headers_are_read_where_nothing_can_have_been_joined() -> None:
    """A comma may stand between two values; the transport's own headers may have what they like."""
    question = read(joined(x_tenant="acme", grpc_accept_encoding="identity,gzip"), ORDERS)
    assert question.entries == (("x-tenant", b"acme"),)
    with pytest.raises(UnfitError, match="encode_raw_headers"):
        read(joined(x_tenant="acme,other"), ORDERS)


@pytest.mark.parametrize(
    "principal",
    [
        "",
        "frontend",
        "frontend.test.example",
        "CN=frontend",
        "spiffe://test.example",
        "spiffe://test.example/",
        "spiffe://test.example/frontend/",
        "spiffe://test.example/Frontend",
        "spiffe://test.example//frontend",
        "spiffe://test.example/frontend?x",
        "SPIFFE://test.example/frontend",
        "https://test.example/frontend",
        " spiffe://test.example/frontend",
        "spiffe://test.example/frontend,spiffe://test.example/orders",
        "spiffe://test.example/front\N{CYRILLIC SMALL LETTER IE}nd",
        "spiffe://other.example/frontend",
        "spiffe://test.example.other.example/frontend",
        "spiffe://user@test.example/frontend",
    ],
)
def test_a_caller_is_one_service_of_this_mesh(principal: str) -> None:
    """Nothing else is, however near; and no record calls it by a service's name."""
    request = asked(principal=principal)
    with pytest.raises(UnfitError):
        read(request, ORDERS)
    assert told(request, ORDERS) != "frontend"


def test_a_record_has_the_name_of_a_caller_that_was_verified() -> None:
    """Also where the rest of the question is not to be read."""
    assert told(asked(), ORDERS) == "frontend"


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.Clear(),
        lambda a: a.ClearField("request"),
        lambda a: setattr(a.destination, "principal", "spiffe://test.example/inventory"),
        lambda a: setattr(a.request.http, "method", "GET"),
        lambda a: setattr(a.request.http, "method", "post"),
        lambda a: a.request.http.header_map.Clear(),
    ],
)
def test_what_is_no_call_of_grpc_to_the_one_who_asks_is_unfit(
    change: Callable[[check_pb2.AttributeContext], object],
) -> None:
    """A part that is missing, another method of HTTP, a proxy with two identities."""
    with pytest.raises(UnfitError):
        read(changed(change), ORDERS)


def test_a_proxy_without_a_certificate_of_its_own_may_ask() -> None:
    """What it shows its clients is compared only where it shows something."""
    assert read(changed(lambda a: a.ClearField("destination")), ORDERS).caller == FRONTEND


@pytest.mark.parametrize(
    ("content_type", "good"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc-web", False),
        (b"application/grpc-web+proto", False),
        (b"application/json", False),
        (b"Application/grpc", False),
        (b" application/grpc", False),
        (b"", False),
    ],
)
def test_content_types(content_type: bytes, good: bool) -> None:
    """gRPC's, and only one of them."""
    request = asked(("content-type", content_type))
    if good:
        assert read(request, ORDERS).entries == ()
        request.attributes.request.http.header_map.headers.add(key="content-type", raw_value=content_type)
    with pytest.raises(UnfitError):
        read(request, ORDERS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("x", b" acme"),
        ("x", b"acme "),
        ("x", b"a\xff"),
        ("x", b"a\nb"),
        ("x", b"\x00"),
        ("X", b"a"),
        ("", b"a"),
    ],
)
def test_headers_that_grpc_cannot_send_are_unfit(key: str, value: bytes) -> None:
    """An application might see another value than the one judged."""
    with pytest.raises(UnfitError):
        read(asked(*HEADERS, (key, value)), ORDERS)


def test_headers_have_a_bound() -> None:
    """As many as a call can have, in either form."""
    most = [*HEADERS, *[("x", b"y")] * (MAX_HEADERS - len(HEADERS))]
    assert len(read(asked(*most), ORDERS).entries) > MAX_HEADERS - len(HEADERS)
    with pytest.raises(UnfitError):
        read(asked(*most, ("x", b"y")), ORDERS)
    with pytest.raises(UnfitError):
        read(joined(**{f"x{number}": "y" for number in range(MAX_HEADERS)}), ORDERS)


def test_a_permit_sets_the_caller_and_removes_what_was_forged() -> None:
    """Overwritten, not added to, and not among what is removed."""
    answer = permitted(read(asked(*HEADERS, ("mesh-to", b"x")), ORDERS))
    assert answer.status.code == 0
    (header,) = answer.ok_response.headers
    assert (header.header.key, header.header.value) == ("mesh-peer", FRONTEND.uri)
    assert header.append_action == check_pb2.HEADER_APPEND_ACTION_OVERWRITE_IF_EXISTS_OR_ADD
    assert list(answer.ok_response.headers_to_remove) == ["mesh-to"]


@pytest.mark.parametrize(
    ("reason", "code", "http"),
    [
        (Reason.POLICY_DENIED, grpc.StatusCode.PERMISSION_DENIED, 403),
        (Reason.NOT_READY, grpc.StatusCode.UNAVAILABLE, 503),
    ],
)
def test_a_refusal_carries_the_details_of_the_mesh(reason: Reason, code: grpc.StatusCode, http: int) -> None:
    """As base64 without padding, as binary metadata crosses HTTP/2."""
    answer = refused(mesh_outcome(reason, call_id="0123456789abcdef"))
    assert answer.WhichOneof("http_response") == "denied_response"
    assert (answer.status.code, answer.denied_response.status.code) == (code.value[0], http)
    assert "[id 0123456789abcdef]" in answer.denied_response.body
    (header,) = answer.denied_response.headers
    assert header.header.key == "grpc-status-details-bin"
    text = header.header.value
    assert not text.endswith("=")
    status = status_pb2.Status.FromString(base64.b64decode(text + "=" * (-len(text) % 4)))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("mesh", reason)


def test_the_wire_is_that_of_envoy() -> None:
    """Numbers and types of external_auth.proto and its kin, byte by byte, and unknown fields are ignored."""
    request = bytes.fromhex(
        "0a2a"  # CheckRequest.attributes = 1
        "0a052203"
        + b"s/a".hex()
        + "12052203"
        + b"s/b".hex()  # source = 1, destination = 2: Peer.principal = 4
        + "221a"  # AttributeContext.request = 4
        "0a020801"  # Request.time = 1, which is not ours
        "1214"  # Request.http = 2
        "1201"
        + b"P".hex()
        + "2202"
        + b"/x".hex()  # method = 2, path = 4
        + "6a0b0a090a016b"
        + "1a0476616c75"  # header_map = 13, HeaderMap.headers = 1: key = 1, raw_value = 3
    )
    attributes = check_pb2.CheckRequest.FromString(request).attributes
    assert (attributes.source.principal, attributes.destination.principal) == ("s/a", "s/b")
    http = attributes.request.http
    assert (http.method, http.path) == ("P", "/x")
    assert [(one.key, one.raw_value) for one in http.header_map.headers] == [("k", b"valu")]
    answer = permitted(Question(FRONTEND, GET, (), ("m",))).SerializeToString()
    option = b"\x0a\x2b\x0a\x09mesh-peer\x12\x1e" + FRONTEND.uri.encode() + b"\x18\x02"
    ok = b"\x12" + bytes([len(option)]) + option + b"\x2a\x01m"
    assert answer == b"\x0a\x00\x1a" + bytes([len(ok)]) + ok


def test_the_names_of_envoys_own_messages_are_left_to_others() -> None:
    """Code that somebody generated from Envoy's protos can be loaded beside ours."""
    assert check_pb2.DESCRIPTOR.package == "mesh.extauthz.v1"
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("envoy.service.auth.v3.CheckRequest")


@given(st.binary(max_size=64), st.text(max_size=20), st.text(max_size=64), st.binary(max_size=20))
def test_whatever_is_asked_is_read_or_unfit(noise: bytes, key: str, text: str, value: bytes) -> None:
    """Garbage gives a question or the one error, nothing else."""
    request = asked((key, value), *HEADERS, principal=text if noise[:1] < b"\x80" else FRONTEND.uri)
    request.attributes.request.http.path = text
    try:
        question = read(request, ORDERS)
    except UnfitError:
        return
    assert question.method == text
    assert question.caller == FRONTEND
