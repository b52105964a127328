"""How ``traffic`` is written: read strictly, as the rest of a policy is, and given back in one form.

``traffic`` has the shapes and what they mean, ``traffic_routes`` reads what is said of methods. Here are
bounds, and what is refused because it could never do anything, or not what it says. Whether the services that
are named exist is for ``policy`` to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mesh.core import document
from mesh.core.document import Node, PolicyError
from mesh.core.patterns import checked_key
from mesh.core.rules import checked_headers, header_data
from mesh.core.traffic import Balance, Breaker, By, Eject, Rate, Share, Traffic
from mesh.core.traffic_routes import OF_ROUTES, duration, few, read_routes, routes_data, written

#: Calls at once, or in a second.
MOST_CALLS: Final = 1_000_000
MOST_FAILURES: Final = 1_000
MOST_WEIGHT: Final = 1_000
MOST_SHARES: Final = 64

_FIELDS: Final = ("balance", "breaker", "eject", "rate", "split", "routes")


def read(at: str, node: Node) -> Traffic:
    """Read what a document has below a destination; raise ``PolicyError``."""
    for key in document.members(at, node):
        if key in OF_ROUTES:
            wrong = f"'{key}' is said of methods: write routes: [{{paths: ['*'], {key}: ...}}]"
            raise PolicyError(f"{at}.{key}", wrong, key)
    found = document.fields(at, node, (), _FIELDS)
    return Traffic(
        _balance(f"{at}.balance", found["balance"]) if "balance" in found else Balance(),
        _breaker(f"{at}.breaker", found["breaker"]) if "breaker" in found else None,
        _eject(f"{at}.eject", found["eject"]) if "eject" in found else None,
        _rate(f"{at}.rate", found["rate"]) if "rate" in found else None,
        _split(f"{at}.split", found["split"]) if "split" in found else (),
        read_routes(f"{at}.routes", found["routes"]) if "routes" in found else (),
    )


def decode(text: bytes) -> Traffic:
    """Read it by itself, as a slice carries it: nothing for no bytes; raise ``PolicyError``."""
    return read("traffic", document.load("traffic", text)) if text else Traffic()


def encode(traffic: Traffic) -> bytes:
    """Give canonical JSON, as a slice carries it: no bytes for nothing."""
    said = data(traffic)
    return document.dump(said) if said else b""


def data(traffic: Traffic) -> dict[str, Node]:
    """Give what a document has below a destination, without what is as it is by default."""
    said: dict[str, Node] = {}
    if traffic.balance != Balance():
        key = {"key": traffic.balance.key} if traffic.balance.key else {}
        said["balance"] = {"by": traffic.balance.by.value} | key
    if traffic.breaker:
        said["breaker"] = _numbers(calls=traffic.breaker.calls, queue=traffic.breaker.queue)
    if traffic.eject:
        most = _numbers(most=traffic.eject.most if traffic.eject.most != Eject.MOST else 0)
        said["eject"] = {"failures": traffic.eject.failures, "for": written(traffic.eject.for_ms)} | most
    if traffic.rate:
        burst = traffic.rate.burst if traffic.rate.burst != traffic.rate.calls else 0
        said["rate"] = _numbers(calls=traffic.rate.calls, burst=burst)
    if traffic.split:
        said["split"] = [_share_data(share) for share in traffic.split]
    if traffic.routes:
        said["routes"] = routes_data(traffic.routes)
    return said


def _balance(at: str, node: Node) -> Balance:
    found = document.fields(at, node, ("by",), ("key",))
    by = document.checked(f"{at}.by", found["by"], _by)
    if (by is By.HASH) is not ("key" in found):
        wrong = (
            "is missing: say of which key of the metadata" if by is By.HASH else f"{by} has no key: remove it"
        )
        raise PolicyError(f"{at}.key", wrong)
    return Balance(by, document.checked(f"{at}.key", found["key"], checked_key) if "key" in found else "")


def _by(text: str) -> By:
    if text not in tuple(By):
        msg = f"no way to balance {text!a:.80}: use {', '.join(By)}"
        raise ValueError(msg)
    return By(text)


def _breaker(at: str, node: Node) -> Breaker:
    found = document.fields(at, node, ("calls",), ("queue",))
    return Breaker(
        document.count(f"{at}.calls", found["calls"], MOST_CALLS),
        document.count(f"{at}.queue", found.get("queue", 0), MOST_CALLS, least=0),
    )


def _eject(at: str, node: Node) -> Eject:
    found = document.fields(at, node, ("failures", "for"), ("most",))
    return Eject(
        document.count(f"{at}.failures", found["failures"], MOST_FAILURES),
        duration(f"{at}.for", found["for"]),
        document.count(f"{at}.most", found.get("most", Eject.MOST), 100),
    )


def _rate(at: str, node: Node) -> Rate:
    found = document.fields(at, node, ("calls",), ("burst",))
    calls = document.count(f"{at}.calls", found["calls"], MOST_CALLS)
    return Rate(calls, document.count(f"{at}.burst", found.get("burst", calls), MOST_CALLS))


def _split(at: str, node: Node) -> tuple[Share, ...]:
    shares = tuple(_share(place, item) for place, item in few(at, node, MOST_SHARES))
    weights = [share.weight for share in shares if not share.headers]
    if weights and not any(weights):
        raise PolicyError(at, "all weights are 0, so nobody takes the calls: give one of them another")
    document.once(at, (share.service for share in shares if not share.headers), "a weight for")
    return shares


def _share(at: str, node: Node) -> Share:
    found = document.fields(at, node, ("service",), ("weight", "headers"))
    if ("weight" in found) is ("headers" in found):
        raise PolicyError(at, "takes calls by one of weight and headers: write one of them")
    service = document.text(f"{at}.service", found["service"])
    if "headers" in found:
        return Share(service, headers=checked_headers(f"{at}.headers", found["headers"]))
    return Share(service, document.count(f"{at}.weight", found["weight"], MOST_WEIGHT, least=0))


def _numbers(**numbers: int) -> dict[str, Node]:
    return {name: number for name, number in numbers.items() if number}


def _share_data(share: Share) -> Mapping[str, Node]:
    if share.headers:
        return {"service": share.service, "headers": header_data(share.headers)}
    return {"service": share.service, "weight": share.weight}
