"""What CEL says that it does not understand of a condition, in words that say what to write instead.

It speaks in terms of its grammar, and names a place. Where it stopped is marked in the text, and a table of
what people write there has the answer; the words of CEL remain where there is none. Nothing is refused here
that CEL would take.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Final

from mesh.core.document import TextError

#: Where CEL stopped; no condition has such a character.
_HERE: Final = "\0"
_ERROR: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?(.*)")
_KEY: Final = 'metadata["x-tenant"]'
#: What stands before and after that place, in the order in which it is tried.
_WRITTEN: Final = (
    (r"\0not\s+in\b", "write !(a in b) for a not in b"),
    (r"(?i)\0and\b", "write && for and"),
    (r"(?i)\0or\b", "write || for or"),
    (r"(?i)\0not\b|\bnot\s*\0", "write ! for not"),
    (r"\0is\b", "write == for is"),
    (r"==\0=", "write == for ==="),
    (r"<\0>", "write != for <>"),
    (r"\0=~", "regular expressions are not supported: use startsWith, endsWith or contains"),
    (r"\0=(?!=)", "write == for ="),
    (r"\0&(?!&)", "write && for &"),
    (r"\0\|(?!\|)", "write || for |"),
    (r"(?i)\0true\b", "write true"),
    (r"(?i)\0false\b", "write false"),
    (r"\0if\b", "write a ? b : c for if a then b else c"),
    (r"\0;", "leave out ;"),
    (r"\0(\"[^\"]*|'[^']*)\\", r"a text with \ in it is written with \\"),
    (r"\0(\"[^\"]*|'[^']*)$", "the text is not closed: end it with the quote that it begins with"),
    (r"'\0\w", "the text ends here: write one with ' in it between double quotes"),
    (r"metadata\.\w+(-\w+)*-\0", f"write a key with a hyphen as {_KEY}"),
    (r"metadata\[\0[a-z]", f"put the key into quotes, as in {_KEY}"),
    (r"\bin\s*\([^()]*\0,", "write a list in brackets: [a, b]"),
    (r"\0\)", "there is no ( for this )"),
)
_CALLED: Final = {
    name.lower(): name
    for name in (
        "startsWith",
        "endsWith",
        "contains",
        "size",
        "has",
        "timestamp",
        "duration",
        "int",
        "string",
    )
} | {"len": "size", "length": "size"}
_KINDS: Final = {
    "string": "a text",
    "int": "a whole number",
    "double": "a number",
    "bool": "true or false",
    "null_type": "null",
    "google.protobuf.Timestamp": "a time",
    "google.protobuf.Duration": "a duration",
    "map(string, string)": "metadata",
}
_KIND: Final = re.compile(rf"(?:{'|'.join(map(re.escape, _KINDS))})(?!\w)")
_UNDECLARED: Final = re.compile(r"undeclared reference to '(\w+)'")
_OVERLOAD: Final = re.compile(r"no matching overload for '(.+?)' applied to '(.*)'")
_SELECTED: Final = re.compile(r"expression of type '(.+)' cannot be the operand of a select")
_UNEXPECTED: Final = re.compile(r"(?:mismatched|extraneous) input|token recognition|no viable alternative")


def misread(text: str, said: str) -> ValueError:
    """Give the error about a condition for what CEL said of it."""
    found = _ERROR.search(said)
    if not found:
        return ValueError("not a condition: nested too deeply to be read: write it with fewer brackets")
    line, column = int(found[1]), int(found[2])
    row = text.split("\n")[line - 1]
    words = _words(row[: column - 1], row[column - 1 :], found[3])
    return TextError(f"not a condition: {words}", line, column)


def _words(before: str, after: str, problem: str) -> str:
    marked = f"{before}{_HERE}{after}"
    known = next((words for pattern, words in _WRITTEN if re.search(pattern, marked)), None)
    if known:
        return known
    if undeclared := _UNDECLARED.search(problem):
        return _unknown(undeclared[1], called=after.startswith("("))
    if overload := _OVERLOAD.search(problem):
        return _unfit(overload[1], overload[2])
    if selected := _SELECTED.search(problem):
        hint = ": write time.getHours(), time.getDayOfWeek() and so on" if "Timestamp" in problem else ""
        return f"{_told(selected[1])} has no such part{hint}"
    return _unexpected(after, problem)


def _unexpected(after: str, problem: str) -> str:
    if problem.startswith("has()"):
        return 'write has(metadata.tenant), or "x-tenant" in metadata'
    if problem.startswith("missing ')'"):
        return "a ( is not closed"
    if _UNEXPECTED.match(problem):
        sign = re.match(r"\s*(\w+|\S)", after)
        return f"{sign[1]} is not expected here" if sign else "something is missing at its end"
    return f"CEL says: {problem:.200}"


def _unknown(name: str, *, called: bool) -> str:
    if called and name in _CALLED.values():
        return f"{name} takes something else: see docs/policy.md"
    if called:
        near = get_close_matches(name.lower(), _CALLED, 1)
        return f"there is no function {name}: {f'use {_CALLED[near[0]]}' if near else 'see docs/policy.md'}"
    return (
        f"{name} is not known: use source, destination, method, metadata or time, and put texts into quotes"
    )


def _unfit(function: str, kinds: str) -> str:
    operator = function.strip("_@").replace("_", " ")
    if "Timestamp" in kinds and "string" in kinds:
        return f'{operator} compares a time with a text: write timestamp("2027-01-04T12:00:00Z")'
    if "(bool, int)" in kinds:
        return f"{operator} compares true or false with a number: write a < b && b < c for a < b < c"
    return f"{operator} does not take {_told(kinds.replace('.(', ', ').strip('()')).replace(', ', ' and ')}"


def _told(kinds: str) -> str:
    return _KIND.sub(lambda kind: _KINDS[kind[0]], kinds)
