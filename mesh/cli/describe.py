"""``mesh describe``: from the id that a refused caller was told to the rule, and what would permit the call.

The audit log has every denial, with the node that denied, its true cause and the rule; auth has the policy
that was of record then. Who asks is the operator, and nobody else learns what is said here. What is no call
id is the name of a service, and for ``describe_service``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from mesh.cli.audit_filter import as_data
from mesh.cli.audit_source import PATIENCE, Place, ask
from mesh.cli.causes import HINTS
from mesh.cli.checks import PAGE
from mesh.cli.completion import completed
from mesh.cli.data import DataDirectory, data_option
from mesh.cli.describe_service import describe_service
from mesh.cli.errors import CliError
from mesh.cli.kinds import A_CALL_ID, find_call_id
from mesh.cli.operator import Operator, asked
from mesh.cli.output import harmless, instant, output_option, show_json
from mesh.cli.policy_explain import as_lines
from mesh.core.audit import Entry, Kind
from mesh.core.condition import Call
from mesh.core.errors import Cause
from mesh.core.explain import explain
from mesh.core.names import ServiceName
from mesh.core.policy import Policy
from mesh.v1 import auth_pb2

_LOG: Final = "denials"
#: What policy decided, by the event of its entry; the detail of any other says why it was not believed.
_BY_POLICY: Final = ("call denied", "would be denied")
_REPLY: Final = "reply: "


@dataclass(frozen=True, slots=True)
class Found:
    """A denial in the log, the policy of record at that time, and the version that is of record now."""

    sequence: int
    entry: Entry
    policy: Policy | None
    version: int
    newest: int

    @property
    def destination(self) -> str:
        """Who denied."""
        return self.entry.by.partition("/")[0]


@click.command()
@click.argument("words", metavar="SERVICE|CALL-ID", nargs=-1, required=True, shell_complete=completed)
@output_option
@data_option
def describe(words: tuple[str, ...], output: str, data: Path) -> None:
    """Say what is known of SERVICE, or why a call was refused: CALL-ID is in its caller's error."""
    what = " ".join(words)  # an id as it is pasted, [id 0123456789abcdef], is two
    call_id = find_call_id(what)
    if call_id is None:
        describe_service(_service(what), output, DataDirectory(data))
        return
    found = asked(DataDirectory(data), lambda operator: _look(operator, call_id))
    if output == "json":
        show_json({**as_data(_LOG, found.sequence, found.entry), "say": list(_lines(found))})
        return
    for line in _lines(found):
        click.echo(harmless(line))


def _service(text: str) -> ServiceName:
    try:
        return ServiceName(text)
    except ValueError:
        raise click.UsageError(f"{text!r:.40} is neither a service's name nor {A_CALL_ID}") from None


async def _look(operator: Operator, call_id: str) -> Found:
    entries, _, _ = (await ask(operator, _LOG, Place())).entries(Place())
    matching = [(number, entry) for number, entry in entries if entry.call_id == call_id]
    if not matching:
        raise CliError(
            f"no denial {call_id} in the audit log: it may be too old, counted with others like it, or not "
            f"reported yet; mesh audit tail shows what is, and {PAGE}#denials where else to look"
        )
    number, entry = matching[-1]
    kept = await operator.auth.ListPolicies(auth_pb2.ListPoliciesRequest(), timeout=PATIENCE)
    version = _of_record(kept.policies, entry.at_ms)
    if version is None:
        return Found(number, entry, None, 0, 0)
    record = await operator.auth.GetPolicy(auth_pb2.GetPolicyRequest(version=version), timeout=6 * PATIENCE)
    document = record.policy.document
    policy = Policy.parse(document) if document else None
    return Found(number, entry, policy, version, kept.policies[0].version)


def _of_record(policies: Sequence[auth_pb2.PolicyInfo], at_ms: int) -> int | None:
    """Give the version that was of record at a time; the newest if none of those kept was."""
    for one in policies:
        if one.applied_ms <= at_ms:
            return one.version
    return policies[0].version if policies else None


def _lines(found: Found) -> Iterator[str]:
    entry = found.entry
    caller = f"{entry.service}/{entry.instance}" if entry.instance else entry.service or "somebody unverified"
    yield f"{instant(entry.at_ms)} {caller} -> {found.destination} {entry.method or 'an unknown method'}"
    if entry.count > 1:
        yield f"{entry.count} times alike, until {instant(entry.until_ms)}"
    cause = "" if entry.event in _BY_POLICY else entry.detail.removeprefix(_REPLY)
    if entry.kind is Kind.AUDIT:
        yield "it passed, for the policy is in audit: enforced, it would be denied"
    if cause:
        about = (
            "the reply was not believed" if entry.detail.startswith(_REPLY) else "the call was not believed"
        )
        yield f"why: {about}: {cause}"
        yield from (f"do: {hint}" for hint in _hints(cause))
    elif entry.rule:
        yield f"why: rule {entry.rule!r} of {found.destination} denied it"
    else:
        yield f"why: no rule of {found.destination} allowed it, or {found.destination} had no policy in force"
    if not cause and found.policy is not None and entry.service and entry.method:
        later = f", {found.newest} is now" if found.newest != found.version else ""
        yield f"under policy {found.version}, of record then{later}:"
        yield from (f"  {line}" for line in _then(found, found.policy))
    yield f"more: {PAGE}#denials"


def _hints(cause: str) -> Iterator[str]:
    if cause in {known.value for known in Cause}:
        yield HINTS[Cause(cause)]


def _then(found: Found, policy: Policy) -> Iterator[str]:
    entry = found.entry
    if found.destination.startswith("mesh."):
        yield f"no policy decides about calls to {found.destination}: the code does"
        return
    call = Call(entry.service, found.destination, entry.method, (), entry.at_ms)
    lines: list[Any] = list(as_lines(policy, call, explain(policy, call)))
    yield from lines
