"""What is said of a condition that CEL does not understand: what to write instead, and where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.condition import Condition
from mesh.core.document import PolicyError, TextError
from mesh.core.misread import misread
from mesh.core.policy import Policy

NAMES = "use source, destination, method, metadata or time, and put texts into quotes"
#: A condition with a mark where the mistake is, and what is said of it.
MISTAKES = [
    ('source == "a" ^and method == "/p.S/M"', "write && for and"),
    ('source == "a" ^AND true', "write && for and"),
    ('source == "a" ^or true', "write || for or"),
    ('not ^(source == "a")', "write ! for not"),
    ("not ^true", "write ! for not"),
    ('source ^not in ["a"]', "write !(a in b) for a not in b"),
    ('source ^= "a"', "write == for ="),
    ('source ==^= "a"', "write == for ==="),
    ('source ^is "a"', "write == for is"),
    ('source <^> "a"', "write != for <>"),
    ('source ^=~ "a"', "regular expressions are not supported: use startsWith, endsWith or contains"),
    ('source == "a" ^& true', "write && for &"),
    ('source == "a" ^| true', "write || for |"),
    ("^True", "write true"),
    ("^FALSE", "write false"),
    ('^if source == "a" then true', "write a ? b : c for if a then b else c"),
    ("true^;", "leave out ;"),
    (r'source == ^"\q"', r"a text with \ in it is written with \\"),
    ('source == ^"a', "the text is not closed: end it with the quote that it begins with"),
    ("source == ^'a\"", "the text is not closed: end it with the quote that it begins with"),
    ("source == 'it'^s'", "the text ends here: write one with ' in it between double quotes"),
    ('metadata.x-^tenant == "a"', 'write a key with a hyphen as metadata["x-tenant"]'),
    ('metadata[^x-tenant] == "a"', 'put the key into quotes, as in metadata["x-tenant"]'),
    ('source in ("a"^, "b")', "write a list in brackets: [a, b]"),
    ("true^)", "there is no ( for this )"),
    ("(true^", "a ( is not closed"),
    ("source ==^", "something is missing at its end"),
    ("true &&\n\n^", "something is missing at its end"),
    ("true && ^&& true", "& is not expected here"),
    ("true ^andd true", "andd is not expected here"),
    ("source == ^$x", "$ is not expected here"),
    ("true &&\n ^sauce", f"sauce is not known: {NAMES}"),
    ("source == ^orders", f"orders is not known: {NAMES}"),
    ('source.startswith^("a")', "there is no function startswith: use startsWith"),
    ("len^(source) > 1", "there is no function len: use size"),
    ("wibble^()", "there is no function wibble: see docs/policy.md"),
    ("source.startsWith^()", "startsWith takes something else: see docs/policy.md"),
    ("source.startsWith^(1)", "startsWith does not take a text and a whole number"),
    ("source ^== 1", "== does not take a text and a whole number"),
    ("metadata ^== source", "== does not take metadata and a text"),
    ("source ^? true : false", "? : does not take a text and true or false and true or false"),
    (
        "8 <= time.getHours() ^< 18",
        "< compares true or false with a number: write a < b && b < c for a < b < c",
    ),
    (
        'time ^> "2027-01-01T00:00:00Z"',
        '> compares a time with a text: write timestamp("2027-01-04T12:00:00Z")',
    ),
    ("time^.hour > 8", "a time has no such part: write time.getHours(), time.getDayOfWeek() and so on"),
    ("source^.tenant", "a text has no such part"),
    ("has(^metadata)", 'write has(metadata.tenant), or "x-tenant" in metadata'),
    ("^99999999999999999999 > 1", "CEL says: invalid int literal"),
]


@pytest.mark.parametrize(("marked", "said"), MISTAKES)
def test_a_mistake_is_told_with_its_place(marked: str, said: str) -> None:
    """In the words of who wrote it, not of CEL's grammar."""
    text = marked.replace("^", "")
    with pytest.raises(TextError) as raised:
        Condition.parse(text)
    before = marked.partition("^")[0]
    assert str(raised.value) == f"not a condition: {said}"
    assert raised.value.within == (before.count("\n") + 1, len(before) - before.rfind("\n"))


def test_what_has_no_place() -> None:
    """Brackets past what CEL reads are told by that alone."""
    assert "nested too deeply" in str(misread("true", "CANCELLED: Expression recursion limit exceeded"))


def test_the_place_goes_on_with_the_error_of_the_policy() -> None:
    """So whoever has the file can point at it."""
    rule = '{"principals": ["*"], "paths": ["*"], "when": "true and true"}'
    with pytest.raises(PolicyError) as raised:
        Policy.parse(f'{{"services": {{"a": {{"allow": [{rule}]}}}}}}')
    assert raised.value.within == (1, 6)
    assert str(raised.value) == "policy.services.a.allow[0].when: not a condition: write && for and"


WORDS = [
    "source",
    "and",
    "not",
    "=",
    "&",
    "|",
    "(",
    ")",
    '"',
    "'",
    '"a"',
    "in",
    "[",
    "metadata",
    ".x",
    "-",
    "\n",
]


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12))
def test_any_text_has_an_error_in_one_line(parts: list[str]) -> None:
    """Whatever is written, there is one line, without the grammar's, or the text is a condition."""
    try:
        Condition.parse(" ".join(parts))
    except ValueError as error:
        said = str(error)
        assert "\n" not in said
        assert "expecting" not in said
        assert "<EOF>" not in said
