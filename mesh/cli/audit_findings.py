"""What ``mesh audit verify`` says about what it found: for people in a line, for programs as data."""

from __future__ import annotations

from mesh.core.chain import Head
from mesh.core.examine import Examination, Fault


def as_data(head: Head, found: Examination) -> dict[str, object]:
    """Give what was found in a log as it is shown in JSON."""
    bad = found.bad
    return {
        "whole": bad is None,
        "sound": found.sound,
        "restored": found.restored,
        "damaged": found.damaged,
        "gone": found.gone and {"first": found.gone[0], "last": found.gone[1]},
        "entries": found.entries,
        "sequence": head.sequence,
        "mac": head.mac.hex(),
        "ahead": found.ahead,
        "torn_bytes": found.torn,
        "first_bad": bad
        and {"seq": bad.sequence, "segment": bad.segment, "line": bad.line, "fault": bad.fault.value},
    }


def summary(head: Head, found: Examination) -> str:
    """Say of a whole log how much there is of it."""
    last = head.sequence + found.ahead - 1
    many = "1 entry" if found.entries == 1 else f"{found.entries} entries"
    text = f"whole, {many}, the last is {last}" if found.entries else "whole, and empty"
    if found.restored is not None:
        text += f", put back from a backup in entry {found.restored}"
    if found.ahead:
        text += f", {found.ahead} of them written when a crash came"
    if found.torn:
        text += f", and {found.torn} bytes of one that a crash cut short"
    return text


def accused(log: str, found: Examination) -> str:
    """Say what is wrong with a log that is not sound, the first bad place first."""
    said = [_lost(found), _bad(found), _damaged(found)]
    return f"audit log {log} " + ", and ".join(one for one in said if one)


def put_back(found: Examination) -> bool:
    """Whether a log lacks what was seen, and says itself that it was put back from a backup."""
    return found.bad is not None and found.bad.fault is Fault.OLDER and found.restored is not None


def _lost(found: Examination) -> str:
    if found.gone is None:
        return ""
    first, last = found.gone
    return (
        f"has lost entries {first} to {last} before they were verified: verify more often or raise "
        "--audit-megabytes, and verify with --accept to go on from here"
    )


def _bad(found: Examination) -> str:
    bad = found.bad
    if bad is None:
        return ""
    if put_back(found):
        return (
            f"was put back from a backup: what it had from entry {found.restored} on, "
            "and was seen, is gone: if that was you, verify with --restored"
        )
    where = f"segment {bad.segment}, line {bad.line}"
    hint = ", or this is not its audit key" if not found.entries else ""
    return f"is not whole: entry {bad.sequence} ({where}) is {bad.fault.value}{hint}"


def _damaged(found: Examination) -> str:
    if found.damaged is None:
        return ""
    return (
        f"says in entry {found.damaged} that somebody changed it: see mesh audit query --alarms, "
        "and verify with --accept once that is cleared up"
    )
