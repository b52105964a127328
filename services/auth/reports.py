"""What nodes denied, from the messages of audit.proto to entries: names parsed, causes known, texts bounded.

It is the word of the node, whom gatekeeper has verified: that is in ``by``. A node can lie about calls to
itself, and about nothing else.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from mesh.core.audit import Entry, Kind, Verdict
from mesh.core.errors import Cause
from mesh.core.names import FullMethod, InstanceId, ServiceName
from mesh.core.observed import VERDICTS
from mesh.core.receiver import Peer
from mesh.v1 import audit_pb2
from services.auth.audit import by_whom
from services.auth.errors import InvalidError

MAX_REPORTS: Final = 64
MAX_DENIALS: Final = 64
#: How far back a node may date what it denied: it may have been without gatekeeper for so long.
MAX_AGE_MS: Final = 86_400_000

DENIED: Final = "denied"
UNAVAILABLE: Final = "name unavailable"
AUDITED: Final = "audited"
_CAUSES: Final = frozenset(
    {
        DENIED,
        UNAVAILABLE,
        AUDITED,
        *(cause.value for cause in Cause),
        *(f"reply: {cause.value}" for cause in Cause),
    }
)
_RULE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/:-]{0,159}")
_CALL_ID: Final = re.compile(r"[0-9a-f]{0,32}")


def entries(reports: Iterable[audit_pb2.NodeDenials], now_ms: int) -> Iterator[Entry]:
    """Read reports; raise ``InvalidError`` for too many, or for one that names nobody.

    A report with something in it that no node says is one entry about who sent it, and keeps none of those
    beside it from being written.
    """
    for number, report in enumerate(reports):
        if number >= MAX_REPORTS or len(report.denials) > MAX_DENIALS:
            raise InvalidError(f"over {MAX_REPORTS} reports or {MAX_DENIALS} denials: send them in parts")
        try:
            by = by_whom(Peer(ServiceName(report.service), InstanceId(report.instance)))
        except ValueError as error:
            raise InvalidError(f"bad report: {error}") from None
        try:
            told = [_entry(denial, by, now_ms) for denial in report.denials]
        except ValueError:
            told = [Entry(now_ms, Kind.DENIAL, "bad report", Verdict.DENIED, alarm=True, by=by)]
        yield from told


def instance(raw: bytes) -> InstanceId:
    """Read an instance id; raise ``InvalidError`` for what is none."""
    try:
        return InstanceId(raw)
    except ValueError as error:
        raise InvalidError(str(error)) from None


def tap(request: audit_pb2.RecordTapRequest, operator: Peer, now_ms: int) -> Entry:
    """Say that an operator looks at calls to a service; raise ``InvalidError`` for what is none."""
    wanted = request.filter
    try:
        destination = ServiceName(request.destination).text
        method = FullMethod(wanted.method).text if wanted.method else ""
        source = f"from {ServiceName(wanted.source)}" if wanted.source else ""
    except ValueError as error:
        raise InvalidError(f"bad tap: {error}") from None
    verdict = f"verdict {wanted.verdict}" if wanted.verdict in (*VERDICTS, "reject") else ""
    detail = ", ".join(filter(None, (source, verdict)))
    by = by_whom(operator)
    return Entry(now_ms, Kind.TAP, "tap begun", service=destination, by=by, method=method, detail=detail)


def _entry(denial: audit_pb2.Denial, by: str, now_ms: int) -> Entry:
    if denial.cause not in _CAUSES | {""} or not _CALL_ID.fullmatch(denial.call_id) or not denial.count:
        raise ValueError("unknown cause, bad call id or no call")
    if denial.rule and not _RULE.fullmatch(denial.rule):
        raise ValueError("bad name of a rule")
    first_ms, last_ms = (
        min(max(at_ms, now_ms - MAX_AGE_MS), now_ms) for at_ms in (denial.first_ms, denial.last_ms)
    )
    return Entry(
        first_ms,
        Kind.AUDIT if denial.cause == AUDITED else Kind.DENIAL,
        _event(denial),
        Verdict.DONE if denial.cause == AUDITED else Verdict.DENIED,
        service=ServiceName(denial.source).text if denial.source else "",
        instance=str(InstanceId(denial.source_instance)) if denial.source_instance else "",
        by=by,
        method=FullMethod(denial.method).text if denial.method else "",
        rule=denial.rule,
        call_id=denial.call_id,
        detail=_detail(denial, by.partition("/")[0]),
        count=min(denial.count, 2**32),
        until_ms=last_ms if denial.count > 1 else 0,
    )


def _detail(denial: audit_pb2.Denial, destination: str) -> str:
    if denial.cause not in (DENIED, AUDITED):
        return denial.cause
    return "" if denial.rule or _is_count(denial) else f"no rule of {destination} allows it"


def _event(denial: audit_pb2.Denial) -> str:
    if denial.cause == DENIED:
        return "call denied"
    if denial.cause == AUDITED:
        return "audits counted" if _is_count(denial) else "would be denied"
    if denial.cause == UNAVAILABLE:
        return "name refused"
    return "call rejected" if denial.cause else "denials counted"


def _is_count(denial: audit_pb2.Denial) -> bool:
    return denial.cause == AUDITED and not denial.method
