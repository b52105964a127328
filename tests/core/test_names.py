"""What may be a name: truth tables, with what attackers try."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.names import (
    AUTH,
    GATEKEEPER,
    MAX_DOMAIN,
    MAX_EPOCH,
    MAX_METHOD,
    MAX_SERVICE,
    OPERATOR,
    FullMethod,
    Identity,
    InstanceId,
    KeyEpoch,
    ServiceName,
    TrustDomain,
    full_method,
)

GOOD_METHODS = [
    "/p.S/M",
    "/S/M",
    "/shop.v1.Orders/Get",
    "/_a._B/_c",
    "/a1.b2.C3/D4",
    "/a.b/c",
    "/" + "p." * 200 + "S/M",
    "/p.S/" + "M" * (MAX_METHOD - 5),
]
BAD_METHODS = {
    "empty": "",
    "no leading slash": "p.S/M",
    "only a slash": "/",
    "only slashes": "//",
    "no method": "/p.S",
    "empty method": "/p.S/",
    "empty service": "//M",
    "double slash at the start": "//p.S/M",
    "double slash inside": "/p.S//M",
    "slash at the end": "/p.S/M/",
    "three parts": "/p.S/M/N",
    "dot dot": "/p.S/../M",
    "dot dot first": "/../p.S/M",
    "dot": "/p.S/./M",
    "encoded slash": "/p.S%2FM",
    "encoded slash, lower case": "/p.S%2fM",
    "encoded letter": "/p.S/%4D",
    "NUL at the end": "/p.S/M\0",
    "NUL inside": "/p.S\0/M",
    "trailing blank": "/p.S/M ",
    "leading blank": " /p.S/M",
    "trailing newline": "/p.S/M\n",
    "trailing carriage return": "/p.S/M\r\n",
    "tab": "/p.S/M\t",
    "line separator": "/p.S/M\u2028",
    "no-break space": "/p.S/M\u00a0",
    "query": "/p.S/M?x=1",
    "fragment": "/p.S/M#x",
    "parameter": "/p.S/M;v=1",
    "absolute URL": "http://orders/p.S/M",
    "absolute URL without scheme": "//orders/p.S/M",
    "backslashes": "\\p.S\\M",
    "backslash inside": "/p.S\\M",
    "empty package part": "/p..S/M",
    "leading dot": "/.p.S/M",
    "trailing dot": "/p.S./M",
    "digit first in a part": "/p.1S/M",
    "digit first in the method": "/p.S/1M",
    "hyphen": "/p-q.S/M",
    "dot in the method": "/p.S/M.N",
    "star": "/p.S/*",
    "comma": "/p.S/M,/p.S/N",
    "Cyrillic letter that looks Latin": "/\u0440.S/M",
    "full-width letter": "/p.S/\uff2d",
    "accent": "/p.S/M\u00e9",
    "combining accent": "/p.S/Me\u0301",
    "Arabic digit": "/p.S/M\u0661",
    "superscript digit": "/p.S/M\u00b2",
    "lone surrogate": "/p.S/M\ud800",
    "byte order mark": "\ufeff/p.S/M",
    "zero width space": "/p.S/\u200bM",
    "one too long": "/p.S/" + "M" * (MAX_METHOD - 4),
}
GOOD_SERVICES = [
    "a",
    "orders",
    "a-b",
    "a1",
    "billing.ledger",
    "a.b.c.d.e",
    "mesh.auth",
    "a" * 63,
    ".".join(["a" * 63, "b" * 61]),
]
BAD_SERVICES = {
    "empty": "",
    "upper case": "Orders",
    "upper case inside": "oRders",
    "digit first": "1orders",
    "hyphen first": "-orders",
    "hyphen last": "orders-",
    "hyphen before a dot": "a-.b",
    "underscore": "or_ders",
    "dot first": ".orders",
    "dot last": "orders.",
    "two dots": "a..b",
    "six labels": "a.b.c.d.e.f",
    "long label": "a" * 64,
    "too long": ".".join(["a" * 63, "b" * 62]),
    "slash": "a/b",
    "star": "*",
    "star below": "a.*",
    "newline": "orders\n",
    "blank": "orders ",
    "NUL": "orders\0",
    "Cyrillic": "\u043erders",
    "Arabic digit": "a\u0661",
    "lone surrogate": "a\ud800",
    "percent": "a%2e",
    "colon": "a:1",
}


@pytest.mark.parametrize("text", GOOD_METHODS)
def test_method_in_the_grammar(text: str) -> None:
    """A method in the grammar keeps its text to the letter."""
    assert FullMethod(text).text == text == str(FullMethod(text))


@pytest.mark.parametrize("text", BAD_METHODS.values(), ids=BAD_METHODS)
def test_method_outside_the_grammar(text: str) -> None:
    """A method outside the grammar is refused with one short line."""
    with pytest.raises(ValueError, match=r"^bad method") as caught:
        FullMethod(text)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_method_is_not_folded() -> None:
    """Methods that differ in case alone are different methods."""
    assert FullMethod("/p.S/M") != FullMethod("/p.S/m")
    assert FullMethod("/p.S/M") != FullMethod("/P.S/M")


@given(st.text())
def test_method_accepts_only_ascii_identifiers(text: str) -> None:
    """No text passes for a method unless it splits into two slashes and ASCII identifiers."""
    try:
        FullMethod(text)
    except ValueError:
        return
    empty, service, method = text.split("/")
    assert not empty
    assert all(part.isidentifier() and part.isascii() for part in (*service.split("."), method))


def test_bad_names_are_not_remembered() -> None:
    """The look-up table of names never fills with what was refused."""
    before = full_method.cache_info().currsize
    for text in BAD_METHODS.values():
        with pytest.raises(ValueError, match="bad method"):
            full_method(text)
    assert full_method.cache_info().currsize == before


@pytest.mark.parametrize("text", GOOD_SERVICES)
def test_service_in_the_grammar(text: str) -> None:
    """A service name in the grammar keeps its text to the letter."""
    assert ServiceName(text).text == text == str(ServiceName(text))


@pytest.mark.parametrize("text", BAD_SERVICES.values(), ids=BAD_SERVICES)
def test_service_outside_the_grammar(text: str) -> None:
    """A service name outside the grammar is refused with one short line."""
    with pytest.raises(ValueError, match=r"^bad service name") as caught:
        ServiceName(text)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reserved"),
    [("mesh", True), ("mesh.auth", True), ("mesh.x.y", True), ("meshed", False), ("a.mesh", False)],
)
def test_reserved(text: str, reserved: bool) -> None:
    """Reserved are the name mesh and all names below it, and no name that merely begins alike."""
    assert ServiceName(text).reserved is reserved


def test_own_names_are_reserved() -> None:
    """The mesh's own services have reserved names."""
    assert all(name.reserved for name in (AUTH, GATEKEEPER, OPERATOR))


@pytest.mark.parametrize("text", ["shop.example", "a", "a.b.c.d.e.f.g", "a" * 63 + "." + "b" * 63])
def test_domain_in_the_grammar(text: str) -> None:
    """A trust domain is a lower-case DNS name of any depth."""
    assert str(TrustDomain(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "Shop.example", "shop.example.", ".shop", "a b", "a\n", "a/b", "a:443", "a" * 64, "a." * 63 + "bb"],
)
def test_domain_outside_the_grammar(text: str) -> None:
    """Anything else is no trust domain."""
    with pytest.raises(ValueError, match=r"^bad trust domain"):
        TrustDomain(text)


def test_names_fit_into_a_dns_name() -> None:
    """The longest service in the longest trust domain is still a DNS name of 253 characters."""
    assert MAX_SERVICE + 1 + MAX_DOMAIN == 253


def test_identity() -> None:
    """An identity is its SPIFFE ID, there and back, and has the DNS name that TLS checks."""
    identity = Identity.parse("spiffe://shop.example/billing.ledger")
    assert identity == Identity(TrustDomain("shop.example"), ServiceName("billing.ledger"))
    assert identity.uri == "spiffe://shop.example/billing.ledger"
    assert identity.dns == "billing.ledger.shop.example"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://",
        "spiffe:///orders",
        "spiffe://shop.example",
        "spiffe://shop.example/",
        "spiffe://shop.example/orders/",
        "spiffe://shop.example//orders",
        "spiffe://shop.example/orders/x",
        "spiffe://shop.example/orders?x",
        "spiffe://shop.example/orders#x",
        "spiffe://shop.example:443/orders",
        "spiffe://user@shop.example/orders",
        "SPIFFE://shop.example/orders",
        "https://shop.example/orders",
        "spiffe:/shop.example/orders",
        "spiffe://Shop.example/orders",
        "spiffe://shop.example/Orders",
        "spiffe://shop.example/orders\n",
        " spiffe://shop.example/orders",
        "spiffe://shop.example/%6frders",
    ],
)
def test_identity_outside_the_grammar(uri: str) -> None:
    """Any other spelling of an identity is refused, not normalised."""
    with pytest.raises(ValueError, match=r"^bad "):
        Identity.parse(uri)


def test_instance() -> None:
    """An instance id is 16 bytes, and 32 hex digits there and back."""
    instance = InstanceId(bytes(range(16)))
    assert str(instance) == "000102030405060708090a0b0c0d0e0f"
    assert InstanceId.parse(str(instance)) == instance


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 33, "A" * 32, "g" * 32, "0" * 32 + "\n", "\u0661" * 32])
def test_instance_outside_the_grammar(text: str) -> None:
    """Any other text is no instance id."""
    with pytest.raises(ValueError, match=r"^bad instance id"):
        InstanceId.parse(text)


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (InstanceId, b""),
        (InstanceId, b"x" * 15),
        (InstanceId, b"x" * 17),
        (KeyEpoch, 0),
        (KeyEpoch, -1),
        (KeyEpoch, MAX_EPOCH + 1),
    ],
)
def test_out_of_range(make: Callable[[object], object], value: object) -> None:
    """Instance ids of another length and epochs that no header can carry are refused."""
    with pytest.raises(ValueError, match=r"^bad "):
        make(value)


def test_epochs_in_range() -> None:
    """Epochs run from 1 to 2^32 - 1."""
    assert KeyEpoch(1) < KeyEpoch(MAX_EPOCH)


def test_a_service_name_is_its_text() -> None:
    """Compared with a bare text, as applications do with a caller's name, a service name is that text."""
    name = ServiceName("orders")
    assert name == "orders"
    assert name != "mallory"
    assert name in {"orders", "payments"}
    assert name != 7
