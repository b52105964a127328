"""How the routes of a destination are written: what holds for some of its methods, read strictly.

A part of ``traffic_document``, with what both need: durations, and lists of few entries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

from mesh.core import document
from mesh.core.document import Node, PolicyError
from mesh.core.patterns import checked_path
from mesh.core.traffic import Fault, Hedge, Retry, Route

#: The longest duration, in milliseconds: an hour.
LONGEST: Final = 3_600_000
MOST_ATTEMPTS: Final = 10
MOST_ROUTES: Final = 256
#: What is said of methods, and not of a destination.
OF_ROUTES: Final = ("timeout", "retry", "hedge", "fault")

_DURATION: Final = re.compile(r"([1-9][0-9]{0,8})(ms|s|m)")
_UNITS: Final = {"m": 60_000, "s": 1_000, "ms": 1}
#: What may pass if the call is made again. Of the other codes the same call would get the same answer.
RETRIED: Final = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN")
#: The statuses of gRPC that are errors.
ERRORS: Final = (
    *RETRIED,
    "CANCELLED",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
_DEFAULT: Final = Retry(2)


def read_routes(at: str, node: Node) -> tuple[Route, ...]:
    """Read a list of routes that has any; raise ``PolicyError``."""
    return tuple(_route(place, item) for place, item in few(at, node, MOST_ROUTES))


def routes_data(routes: Iterable[Route]) -> list[Mapping[str, Node]]:
    """Give what a document has for routes, without what is as it is by default."""
    return [_route_data(route) for route in routes]


def written(ms: int) -> str:
    """Give a duration in the largest unit of which it is a whole number."""
    unit = next(unit for unit, size in _UNITS.items() if ms % size == 0)
    return f"{ms // _UNITS[unit]}{unit}"


def duration(at: str, node: Node) -> int:
    """Read a duration, in milliseconds; raise ``PolicyError``."""
    return document.checked(at, node, _milliseconds)


def few(at: str, node: Node, most: int) -> list[tuple[str, Node]]:
    """Give the items of a list that has any, and at most so many; raise ``PolicyError``."""
    found = document.some(at, node)
    if len(found) > most:
        raise PolicyError(at, f"{len(found)} entries are too many: use at most {most}")
    return found


def _route(at: str, node: Node) -> Route:
    found = document.fields(at, node, ("paths",), OF_ROUTES)
    if "retry" in found and "hedge" in found:
        raise PolicyError(f"{at}.hedge", "a hedged call is made again already: keep one of retry and hedge")
    timeout = duration(f"{at}.timeout", found["timeout"]) if "timeout" in found else 0
    return Route(
        document.texts(f"{at}.paths", found["paths"], checked_path),
        timeout,
        _retry(f"{at}.retry", found["retry"], timeout) if "retry" in found else None,
        _hedge(f"{at}.hedge", found["hedge"], timeout) if "hedge" in found else None,
        _fault(f"{at}.fault", found["fault"]) if "fault" in found else None,
    )


def _retry(at: str, node: Node, timeout: int) -> Retry:
    found = document.fields(at, node, ("attempts",), ("on", "per_try", "backoff", "longest", "budget"))
    codes = document.texts(f"{at}.on", found["on"], _retried) if "on" in found else _DEFAULT.codes
    document.once(f"{at}.on", codes, "the code")
    backoff = duration(f"{at}.backoff", found["backoff"]) if "backoff" in found else _DEFAULT.backoff_ms
    longest = max(_DEFAULT.longest_ms, backoff)
    if "longest" in found:
        longest = duration(f"{at}.longest", found["longest"])
        if longest < backoff:
            raise PolicyError(
                f"{at}.longest", f"is shorter than the first pause, {written(backoff)}: raise it"
            )
    return Retry(
        document.count(f"{at}.attempts", found["attempts"], MOST_ATTEMPTS, least=2),
        codes,
        _within(f"{at}.per_try", found["per_try"], timeout) if "per_try" in found else 0,
        backoff,
        longest,
        document.count(f"{at}.budget", found.get("budget", _DEFAULT.budget), 100),
    )


def _hedge(at: str, node: Node, timeout: int) -> Hedge:
    found = document.fields(at, node, ("attempts", "after"), ())
    attempts = document.count(f"{at}.attempts", found["attempts"], MOST_ATTEMPTS, least=2)
    return Hedge(attempts, _within(f"{at}.after", found["after"], timeout))


def _fault(at: str, node: Node) -> Fault:
    found = document.fields(at, node, ("percent",), ("delay", "abort"))
    if len(found) == 1:
        raise PolicyError(at, "does nothing: add delay, abort or both, or remove it")
    return Fault(
        document.count(f"{at}.percent", found["percent"], 100),
        duration(f"{at}.delay", found["delay"]) if "delay" in found else 0,
        document.checked(f"{at}.abort", found["abort"], _error) if "abort" in found else "",
    )


def _error(code: str) -> str:
    if code not in ERRORS:
        near = get_close_matches(code.upper(), ERRORS, 1)
        advice = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(ERRORS)}"
        msg = f"{code!a:.80} is no error of gRPC: {advice}"
        raise ValueError(msg)
    return code


def _retried(code: str) -> str:
    if _error(code) not in RETRIED:
        msg = f"{code} would come again, so a call is not repeated on it: use one of {', '.join(RETRIED)}"
        raise ValueError(msg)
    return code


def _within(at: str, node: Node, timeout: int) -> int:
    ms = duration(at, node)
    if timeout and ms >= timeout:
        raise PolicyError(at, f"has to be shorter than the timeout of the whole call, {written(timeout)}")
    return ms


def _milliseconds(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None:
        msg = f"bad duration {text!a:.80}: use a whole number of ms, s or m, as 500ms, 2s or 1m"
        raise ValueError(msg)
    ms = int(match[1]) * _UNITS[match[2]]
    if ms > LONGEST:
        msg = f"{text} is too long: use at most {written(LONGEST)}"
        raise ValueError(msg)
    return ms


def _lasting(**durations: int) -> dict[str, Node]:
    return {name: written(ms) for name, ms in durations.items() if ms}


def _route_data(route: Route) -> Mapping[str, Node]:
    said: dict[str, Node] = {"paths": route.paths} | _lasting(timeout=route.timeout_ms)
    if route.retry:
        said["retry"] = _retry_data(route.retry)
    if route.hedge:
        said["hedge"] = {"attempts": route.hedge.attempts, "after": written(route.hedge.after_ms)}
    if route.fault:
        abort = {"abort": route.fault.abort} if route.fault.abort else {}
        said["fault"] = {"percent": route.fault.percent} | _lasting(delay=route.fault.delay_ms) | abort
    return said


def _retry_data(retry: Retry) -> Mapping[str, Node]:
    said: dict[str, Node] = {"attempts": retry.attempts} | _lasting(per_try=retry.per_try_ms)
    if retry.codes != _DEFAULT.codes:
        said["on"] = retry.codes
    if retry.backoff_ms != _DEFAULT.backoff_ms:
        said |= _lasting(backoff=retry.backoff_ms)
    if retry.longest_ms != max(_DEFAULT.longest_ms, retry.backoff_ms):
        said |= _lasting(longest=retry.longest_ms)
    return said if retry.budget == _DEFAULT.budget else said | {"budget": retry.budget}
