"""Cases of a policy, as a person writes them beside it: who calls what, and what is expected.

cases:
  - name: partners order by day            optional
    from: [acme, branch.one]               one or several; each has to have the verdict
    to: orders
    method: /shop.v1.Orders/Create         one or several
    metadata: {x-tenant: acme}             optional; a list of texts where a key comes several times
    time: 2027-01-04T12:00:00Z             optional; without it no condition about time can be judged
    expect: allow                          allow, deny, or audit
    rule: partners-by-day                  optional: the rule that has to decide
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Final

from mesh.cli.errors import CliError, Exit
from mesh.cli.places import place
from mesh.cli.yaml_file import load_yaml, one_line, read_text
from mesh.core import document
from mesh.core.condition import Call
from mesh.core.document import Node, PolicyError
from mesh.core.metadata import Entries, checked_entries
from mesh.core.names import FullMethod, ServiceName

ALLOW, DENY, AUDIT = "allow", "deny", "audit"

_REQUIRED: Final = ("from", "to", "method", "expect")
_OPTIONAL: Final = ("name", "metadata", "time", "rule")


@dataclass(frozen=True, slots=True)
class Case:
    """What is expected of one or several calls. ``place`` is file, line and column."""

    name: str
    place: str
    calls: tuple[Call, ...]
    expected: str
    rule: str | None


def load_cases(file: str) -> list[Case]:
    """Read cases from a file; raise ``CliError`` in one line, with the place of what is wrong."""
    with one_line(file):
        root, value = load_yaml(read_text(file))
        try:
            return _cases(file, root, document.load("file", json.dumps(value)))
        except PolicyError as error:
            line, column = place(root, error)
            raise CliError(f"{file}:{line}:{column}: {error}", Exit.REFUSED) from None


def instant_ms(text: str) -> int:
    """Read an RFC 3339 time with its zone, as Unix milliseconds; raise ``ValueError``."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        read = datetime.min  # noqa: DTZ901  refused below, like a time without zone
    if read.tzinfo is None:
        msg = f"bad time {text!a:.80}: use one with its zone, such as 2027-01-04T12:00:00Z"
        raise ValueError(msg)
    return int(read.timestamp() * 1000)


def sent(pairs: list[tuple[str, str]]) -> Entries:
    """Check metadata as an application may send it; raise ``ValueError``."""
    return checked_entries(pairs)


def _cases(file: str, root: object, node: Node) -> list[Case]:
    found = document.fields("file", node, ("cases",), ())
    cases = []
    for at, item in document.some("file.cases", found["cases"]):
        line, column = place(root, PolicyError(at, ""))
        cases.append(_case(at, item, f"{file}:{line}:{column}"))
    return cases


def _case(at: str, node: Node, where: str) -> Case:
    found = document.fields(at, node, _REQUIRED, _OPTIONAL)
    sources = _several(f"{at}.from", found["from"])
    for source in sources:
        document.checked(f"{at}.from", source, ServiceName)
    methods = _several(f"{at}.method", found["method"])
    for method in methods:
        document.checked(f"{at}.method", method, FullMethod)
    destination = document.checked(f"{at}.to", found["to"], ServiceName).text
    expected = document.text(f"{at}.expect", found["expect"])
    if expected not in (ALLOW, DENY, AUDIT):
        raise PolicyError(f"{at}.expect", f"bad verdict {expected!a:.80}: use allow, deny or audit")
    entries = _metadata(f"{at}.metadata", found["metadata"]) if "metadata" in found else ()
    now_ms = document.checked(f"{at}.time", found["time"], instant_ms) if "time" in found else None
    return Case(
        document.text(f"{at}.name", found.get("name", "")),
        where,
        tuple(
            Call(source, destination, method, entries, now_ms) for source, method in product(sources, methods)
        ),
        expected,
        document.text(f"{at}.rule", found["rule"]) if "rule" in found else None,
    )


def _several(at: str, node: Node) -> list[str]:
    if isinstance(node, str):
        return [node]
    return [document.text(place, item) for place, item in document.some(at, node)]


def _metadata(at: str, node: Node) -> Entries:
    pairs = [
        (key, value) for key, values in document.members(at, node).items() for value in _several(at, values)
    ]
    try:
        return sent(pairs)
    except ValueError as error:
        raise PolicyError(at, str(error)) from None
