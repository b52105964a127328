"""``tests.yaml``: calls of a service, and what should come of them. Pure: bytes in, cases out.

Read as strictly as the manifest. Messages are parsed by their descriptors here, so that what could never be
sent is an error with its line, and no failed test. ``trial`` runs the cases.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import grpc
import yaml
from google.protobuf.descriptor import Descriptor

from mesh.core.metadata import Entries, Value, checked_entries
from mesh.core.names import FullMethod, ServiceName
from mesh.strict_yaml import YamlError, compose, fields, items, members, plain, text, wrong
from services.lua_host.bundle import Bundle
from services.lua_host.checked import BadMessageError, Checker
from services.lua_host.json_messages import NotAMessageError, to_bytes
from services.lua_host.library import instead
from services.lua_host.limits import seconds
from services.lua_host.problems import Problem, ProblemsError
from services.lua_host.protos import Rpc

FILE: Final = "tests.yaml"
#: The largest file, in bytes.
MAX_CASES: Final = 4 * 1024 * 1024
#: Who calls where a case does not say.
CALLER: Final = ServiceName("tester")

_CODES: Final = {code.name: code for code in grpc.StatusCode if code is not grpc.StatusCode.OK}
_T = TypeVar("_T")


class CasesError(ProblemsError):
    """A text that holds no cases, with everything that is wrong in it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error, as a case makes or expects one. ``message``: ``None`` if it does not matter."""

    code: grpc.StatusCode
    message: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call of the script should be, and what it gets: replies, and perhaps an error after them."""

    line: int
    service: ServiceName
    method: Rpc
    request: bytes | None
    """``None``: any."""
    replies: tuple[bytes, ...]
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class Case:
    """A call of the service, and what should come of it. Messages are as ``Checker`` writes them."""

    line: int
    name: str
    method: Rpc
    caller: ServiceName
    metadata: Entries
    timeout: float | None
    request: bytes
    answers: tuple[Answer, ...]
    expect: tuple[bytes, ...] | None
    """Replies, in order; ``None``: whatever came before the failure."""
    failure: Failure | None
    logs: tuple[str, ...]
    """Each a part of some line."""


def read_cases(document: bytes, bundle: Bundle, file: str = FILE) -> tuple[Case, ...]:
    """Read the cases of a service; raise ``CasesError``."""
    try:
        root = compose(document.decode())
        nodes = [] if root is None else items(root)
    except UnicodeDecodeError:
        raise CasesError([Problem(file, 0, "not UTF-8: save it as UTF-8")]) from None
    except YamlError as error:
        raise CasesError([Problem(file, error.line, str(error))]) from None
    reader, cases, problems = _Reader(bundle), [], []
    for node in nodes:
        try:
            cases.append(reader.case(node))
        except YamlError as error:
            problems.append(Problem(file, error.line, str(error)))
    if problems or not cases:
        raise CasesError(problems or [Problem(file, 0, "holds no cases: begin one with - name:")])
    return tuple(cases)


class _Reader:
    """Reads nodes by a service's manifest and protos; raises ``YamlError``."""

    def __init__(self, bundle: Bundle) -> None:
        self._granted = {grant.service: grant.methods for grant in bundle.manifest.calls}
        self._known = bundle.protos.methods
        self._limits = bundle.manifest.limits
        self._served: dict[str, list[Rpc]] = {}
        for name, rpc in self._known.items():
            if rpc.service in bundle.manifest.serves:
                for called in (name, name.rpartition("/")[2]):
                    self._served.setdefault(called, []).append(rpc)

    def case(self, node: yaml.Node) -> Case:
        """Read a case."""
        optional = ("as", "metadata", "timeout", "request", "answers", "expect", "fails", "logs")
        found = fields(node, ("name", "call"), optional)
        rpc = self._rpc(found["call"])
        replies, failure = self._outcome(node, rpc, "expect", "expect")
        return Case(
            line=_line(node),
            name=text(found["name"]),
            method=rpc,
            caller=_checked(found["as"], ServiceName) if "as" in found else CALLER,
            metadata=_metadata(found["metadata"]) if "metadata" in found else (),
            timeout=_checked(found["timeout"], seconds) if "timeout" in found else None,
            request=self._request(found, rpc) or b"",
            answers=tuple(self._answer(one) for one in _some(found, "answers")),
            expect=replies,
            failure=failure,
            logs=tuple(text(one) for one in _some(found, "logs")),
        )

    def _answer(self, node: yaml.Node) -> Answer:
        optional = ("request", "response", "responses", "fails")
        found = fields(node, ("service", "method"), optional)
        service = _checked(found["service"], ServiceName)
        method = _checked(found["method"], FullMethod)
        if method not in self._granted.get(service, ()):
            raise wrong(found["method"], f"the manifest does not let this service call {service} {method}")
        rpc = self._known[method.text]
        replies, failure = self._outcome(node, rpc, "response", "responses")
        return Answer(_line(node), service, rpc, self._request(found, rpc), replies or (), failure)

    def _rpc(self, node: yaml.Node) -> Rpc:
        name = text(node)
        rpcs = self._served.get(name, [])
        if not rpcs:
            raise wrong(node, f"{name!r:.80} is not served{instead(name, tuple(self._served))}")
        if len(rpcs) > 1:
            raise wrong(node, f"{name} could be {' or '.join(rpc.name.text for rpc in rpcs)}: say which")
        return rpcs[0]

    def _outcome(
        self, node: yaml.Node, rpc: Rpc, one: str, many: str
    ) -> tuple[tuple[bytes, ...] | None, Failure | None]:
        """Read the replies that are under ``one`` or ``many``, and the error that is under ``fails``."""
        found, streams = members(node), rpc.server_streaming
        key, other = (many, one) if streams else (one, many)
        if key != other and other in found:
            raise wrong(
                found[other], f"{rpc.name} has {'many replies' if streams else 'one reply'}: write {key}"
            )
        if key not in found and "fails" not in found:
            raise wrong(node, f"{key} and fails are both missing: add one")
        if key in found and "fails" in found and not streams:
            raise wrong(found["fails"], f"{rpc.name} has one reply or fails: remove {key} or fails")
        failure = _failure(found["fails"]) if "fails" in found else None
        if key not in found:
            return None, failure
        nodes = items(found[key]) if streams else [found[key]]
        return tuple(self._message(reply, rpc.output) for reply in nodes), failure

    def _request(self, found: dict[str, yaml.Node], rpc: Rpc) -> bytes | None:
        return self._message(found["request"], rpc.input) if "request" in found else None

    def _message(self, node: yaml.Node, kind: Descriptor) -> bytes:
        checker = Checker(kind, self._limits.message, self._limits.depth)
        try:
            return checker.clean(to_bytes(plain(node), kind))
        except (NotAMessageError, BadMessageError) as error:
            raise wrong(node, str(error)) from None


def _failure(node: yaml.Node) -> Failure:
    found = fields(node, ("code",), ("message", "reason"))
    code = _CODES.get(text(found["code"]))
    if code is None:
        what = f"no status {found['code'].value!r:.80}{instead(found['code'].value, tuple(_CODES))}"
        raise wrong(found["code"], what)
    message = text(found["message"]) if "message" in found else None
    return Failure(code, message, text(found["reason"]) if "reason" in found else "")


def _metadata(node: yaml.Node) -> Entries:
    entries = [(key, one) for key, value in members(node).items() for one in _one_or_more(value)]
    try:
        return checked_entries((key, _value(key, one)) for key, one in entries)
    except ValueError as error:
        raise wrong(node, str(error)) from None


def _value(key: str, node: yaml.Node) -> Value:
    if not key.endswith("-bin"):
        return text(node)
    try:
        return base64.b64decode(text(node), validate=True)
    except binascii.Error:
        raise wrong(node, f"{key} holds bytes: write them as base64") from None


def _one_or_more(node: yaml.Node) -> list[yaml.Node]:
    return items(node) if isinstance(node, yaml.SequenceNode) else [node]


def _some(found: dict[str, yaml.Node], key: str) -> list[yaml.Node]:
    return items(found[key]) if key in found else []


def _checked(node: yaml.Node, check: Callable[[str], _T]) -> _T:
    try:
        return check(text(node))
    except YamlError:
        raise
    except ValueError as error:
        raise wrong(node, str(error)) from None


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line + 1
    return line
