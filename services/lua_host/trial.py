"""A service's own tests: its cases, each a call in a rehearsal, its calls out answered by what the case says.

A case passes or fails for reasons in words; nothing here raises for a service that does wrong.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import unified_diff
from typing import Final

import grpc
from google.protobuf.descriptor import Descriptor

from services.lua_host.bundle import Bundle
from services.lua_host.cases import Answer, Case, Failure
from services.lua_host.json_messages import to_lines
from services.lua_host.outside import OutgoingCall, Refused
from services.lua_host.rehearsal import Outcome, rehearse

_C = grpc.StatusCode
_OK: Final = Failure(_C.OK, "")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a case: nothing wrong, or lines that say what."""

    case: Case
    wrong: tuple[str, ...]
    logs: tuple[str, ...]
    """Lines of the script's, and then of its host's."""


async def try_cases(bundle: Bundle, cases: Sequence[Case], *, jailed: bool = True) -> AsyncIterator[Verdict]:
    """Call a service as its cases say, in their order; give a verdict on each.

    Raises what ``rehearse`` does.
    """
    others = _Others()
    with _listening() as heard:
        async with rehearse(bundle, others, jailed=jailed) as stage:
            for case in cases:
                others.begin(case.answers)
                heard.lines.clear()
                outcome = await stage.call(
                    case.method.name,
                    case.request,
                    caller=case.caller.text,
                    metadata=case.metadata,
                    timeout=case.timeout,
                )
                wrong = (*others.end(), *_judged(case, outcome))
                yield Verdict(case, wrong, (*outcome.logs, *heard.lines))


class _Heard(logging.Handler):
    """What the host says to its operator: why a script failed, above all."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of a line."""
        self.lines.append(record.getMessage())


@contextmanager
def _listening() -> Iterator[_Heard]:
    heard, logger = _Heard(), logging.getLogger("mesh.lua")
    logger.addHandler(heard)
    try:
        yield heard
    finally:
        logger.removeHandler(heard)


class _Others:
    """The outside of a service, as a case has it: which calls come, and what each gets."""

    def __init__(self) -> None:
        self._expected: deque[Answer] = deque()
        self._wrong: list[str] = []

    def begin(self, answers: Sequence[Answer]) -> None:
        """Begin another case."""
        self._expected = deque(answers)
        self._wrong = []

    def end(self) -> list[str]:
        """Give what was wrong with the calls that came, or did not."""
        for answer in self._expected:
            self._wrong.append(
                f"no call to {answer.service} {answer.method.name}, as line {answer.line} has it"
            )
        return self._wrong

    async def call(self, call: OutgoingCall) -> AsyncGenerator[bytes]:
        """Answer a call with what is next."""
        if not self._expected:
            raise self._refusal(f"a call to {call.service} {call.method}, and no answer for it")
        answer = self._expected.popleft()
        expected = f"{answer.service} {answer.method.name}"
        if f"{call.service} {call.method}" != expected:
            raise self._refusal(
                f"a call to {call.service} {call.method}, and line {answer.line} has {expected}"
            )
        if answer.request is not None and answer.request != call.payload:
            self._wrong.append(f"another request to {expected} than line {answer.line} has:")
            self._wrong += _difference([answer.request], [call.payload], answer.method.input)
        for reply in answer.replies:
            yield reply
        if answer.failure is not None:
            raise Refused(answer.failure.code, answer.failure.message or "", answer.failure.reason)

    def _refusal(self, wrong: str) -> Refused:
        self._wrong.append(wrong)
        return Refused(_C.INTERNAL, f"not in the case: {wrong}")


def _judged(case: Case, outcome: Outcome) -> list[str]:
    wrong = _judged_status(case.failure or _OK, outcome)
    replies = outcome.code is _C.OK or case.failure is not None
    if replies and case.expect is not None and list(case.expect) != outcome.messages:
        wrong.append("another answer than expected:")
        wrong += _difference(case.expect, outcome.messages, case.method.output)
    for part in case.logs:
        if not any(part in line for line in outcome.logs):
            wrong.append(f"nothing logged with {part!r}")
    return wrong


def _judged_status(expected: Failure, outcome: Outcome) -> list[str]:
    if outcome.code is not expected.code:
        return [f"came to {outcome.code.name}{_said(outcome)}, not to {expected.code.name}"]
    if expected.message not in {None, outcome.details}:
        return [f"failed with {outcome.details!r}, not with {expected.message!r}"]
    return []


def _said(outcome: Outcome) -> str:
    return f" ({outcome.details})" if outcome.details else ""


def _difference(expected: Sequence[bytes], got: Sequence[bytes], kind: Descriptor) -> list[str]:
    meant, came = ([line for one in all_ for line in _shown(one, kind)] for all_ in (expected, got))
    lines = list(unified_diff(meant, came, "expected", "got", lineterm=""))
    return lines or ["the same but for what YAML does not show, such as the sign of zero"]


def _shown(message: bytes, kind: Descriptor) -> list[str]:
    first, *rest = to_lines(message, kind)
    return [f"- {first}", *(f"  {line}" for line in rest)]
