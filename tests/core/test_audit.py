"""Entries of the audit log: what is written is what is read, and nothing else is."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.audit import LENGTHS, MAX_BODY, Entry, Kind, Verdict, decode

FULL = Entry(
    1_700_000_000_000,
    Kind.DENIAL,
    "call denied",
    Verdict.DENIED,
    alarm=True,
    service="orders",
    instance="a0" * 16,
    by="inventory/" + "b0" * 16,
    method="/shop.v1.Inventory/Purge",
    rule="no-purge",
    call_id="0123456789abcdef",
    token_id="fedcba9876543210",
    detail="denied",
    count=7,
    until_ms=1_700_000_000_900,
)
PLAIN = Entry(1, Kind.KEY, "epoch made")


def test_what_does_not_apply_is_left_out() -> None:
    """A plain entry is three fields and its number."""
    assert PLAIN.encode(5) == b'{"seq":5,"at_ms":1,"kind":"key","event":"epoch made"}'


@pytest.mark.parametrize("entry", [FULL, PLAIN])
def test_round_trip(entry: Entry) -> None:
    """Reading a body gives the entry and its number back."""
    assert decode(entry.encode(9)) == (9, entry)


def entries() -> st.SearchStrategy[Entry]:
    texts = {name: st.text(max_size=length) for name, length in LENGTHS.items()}
    numbers = st.integers(0, 2**63 - 1)
    return st.builds(
        Entry,
        at_ms=numbers,
        kind=st.sampled_from(Kind),
        verdict=st.sampled_from(Verdict),
        alarm=st.booleans(),
        count=numbers,
        until_ms=numbers,
        **texts,
    )


@given(entries(), st.integers(0, 2**63 - 1))
def test_any_entry_makes_the_round_trip_on_one_line(entry: Entry, sequence: int) -> None:
    """Whatever the texts, a body is one line of ASCII within its bound."""
    body = entry.encode(sequence)
    assert len(body) <= MAX_BODY
    assert body.isascii()
    assert b"\n" not in body
    assert decode(body) == (sequence, entry)


def test_long_texts_are_cut() -> None:
    """A text that is longer than its field is written as far as it fits."""
    long = dict.fromkeys(LENGTHS, "😀" * 5000)
    body = replace(FULL, **long).encode(2**63 - 1)  # type: ignore[arg-type]
    assert len(body) <= MAX_BODY
    assert decode(body)[1].method == "\N{GRINNING FACE}" * LENGTHS["method"]


BAD = [
    b"",
    b"\xff",
    b"null",
    b"[]",
    b"[" * MAX_BODY,
    b"{}",
    b'{"seq":1}',
    b'{"seq":1,"at_ms":1,"kind":"key"}',
    b'{"seq":1,"at_ms":1,"kind":"key","event":"e","more":1}',
    b'{"seq":1,"seq":1,"at_ms":1,"kind":"key","event":"e"}',
    b'{"seq":true,"at_ms":1,"kind":"key","event":"e"}',
    b'{"seq":-1,"at_ms":1,"kind":"key","event":"e"}',
    b'{"seq":9223372036854775808,"at_ms":1,"kind":"key","event":"e"}',
    b'{"seq":1.0,"at_ms":1,"kind":"key","event":"e"}',
    b'{"seq":"1","at_ms":1,"kind":"key","event":"e"}',
    b'{"seq":1,"at_ms":null,"kind":"key","event":"e"}',
    b'{"seq":1,"at_ms":1,"kind":"else","event":"e"}',
    b'{"seq":1,"at_ms":1,"kind":[],"event":"e"}',
    b'{"seq":1,"at_ms":1,"kind":"key","event":7}',
    b'{"seq":1,"at_ms":1,"kind":"key","event":"e","verdict":"maybe"}',
    b'{"seq":1,"at_ms":1,"kind":"key","event":"e","alarm":1}',
    b'{"seq":' + b"9" * 5000 + b',"at_ms":1,"kind":"key","event":"e"}',
    json.dumps({"seq": 1, "at_ms": 1, "kind": "key", "event": "e" * MAX_BODY}).encode(),
]


@pytest.mark.parametrize("body", BAD, ids=lambda body: body[:60].decode("latin-1"))
def test_what_is_no_entry_is_refused(body: bytes) -> None:
    """Anything but an entry is a ``ValueError``."""
    with pytest.raises(ValueError, match=r"."):
        decode(body)


@given(st.binary(max_size=200))
def test_garbage_gives_a_value_or_a_value_error(body: bytes) -> None:
    """Nothing else comes out of garbage."""
    try:
        sequence, entry = decode(body)
    except ValueError:
        return
    assert decode(entry.encode(sequence)) == (sequence, entry)
