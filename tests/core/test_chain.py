"""The chain of the audit log, and what its examination finds: each test of the second half is an attack."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.audit import Entry, Kind, Verdict
from mesh.core.chain import (
    DAMAGED,
    MOST_SEGMENTS,
    NOTHING,
    RESTORED,
    BadLineError,
    Chain,
    Head,
    Limits,
    Line,
    Piece,
    after_segment,
    first_key,
    segment_key,
    step,
)
from mesh.core.examine import Examination, Fault, Finding, Mark, examine, latest
from mesh.core.keys import Key

ROOT = Key(bytes(range(32)))
LOG = "denials"
ENDLESS = Limits(10**9, 10**6)
Segments = dict[int, bytes]


def entry(number: int) -> Entry:
    return Entry(1000 + number, Kind.DENIAL, "call denied", Verdict.DENIED, service=f"caller-{number}")


def write(segments: Segments, pieces: list[Piece]) -> None:
    for piece in pieces:
        assert piece.offset == len(segments.get(piece.segment, b""))
        segments[piece.segment] = segments.get(piece.segment, b"") + piece.data


def written(count: int, limits: Limits = ENDLESS, batch: int = 1) -> tuple[Chain, Segments]:
    chain, segments = Chain.start(LOG, ROOT), Segments()
    for start in range(0, count, batch):
        batched = [entry(number) for number in range(start, min(start + batch, count))]
        pieces, chain = chain.extend(batched, limits)
        write(segments, pieces)
    kept = {number: data for number, data in segments.items() if number >= chain.head.first_segment}
    return chain, kept


def lines(segment: bytes) -> list[bytes]:
    return segment.split(b"\n")[:-1]


def joined(parts: list[bytes]) -> bytes:
    return b"".join(part + b"\n" for part in parts)


SMALL = Limits(1200, 4)


# The slow twin: nothing but SHA-256's HMAC, one formula after the other.


def twin_expand(key: bytes, info: bytes, length: int = 32) -> bytes:
    out, block = b"", b""
    for counter in range(1, length // 32 + 1):
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        out += block
    return out


def twin_mac(root: bytes, segment: int, place: int, sequence: int, before: bytes, body: bytes) -> bytes:
    """Give the mac of the line at a place (from 0) of a segment."""
    key = twin_expand(root, b"mesh/v1/audit/log" + len(LOG).to_bytes(4, "big") + LOG.encode())
    for _ in range(segment):
        key = twin_expand(key, b"mesh/v1/audit/segment")
    key = twin_expand(key, b"mesh/v1/audit/first")
    for _ in range(place):
        key = twin_expand(key, b"mesh/v1/audit/step", 64)[:32]
    mac_key = twin_expand(key, b"mesh/v1/audit/step", 64)[32:]
    covered = b"mesh/v1/audit/entry" + len(LOG).to_bytes(4, "big") + LOG.encode()
    covered += segment.to_bytes(8, "big") + sequence.to_bytes(8, "big") + before
    covered += len(body).to_bytes(4, "big") + body
    return hmac.new(mac_key, covered, hashlib.sha256).digest()


@settings(max_examples=40)
@given(st.integers(0, 40), st.integers(1, 9), st.integers(300, 3000), st.integers(1, 6))
def test_every_mac_is_that_of_the_slow_twin(count: int, batch: int, size: int, kept: int) -> None:
    """However entries come and segments turn: numbers run on, macs are the twin's, all is found whole."""
    chain, segments = written(count, Limits(size, kept), batch)
    assert len(segments) <= kept
    before, expected = None, None
    for number, data in sorted(segments.items()):
        assert len(data) <= size or len(lines(data)) == 2
        for place, raw in enumerate(lines(data)):
            line = Line.parse(raw)
            if place == 0:
                told = bytes.fromhex(line.entry.detail)
                assert before in (None, told)
                before = told
            assert expected in (None, line.sequence)
            assert before is not None
            assert line.mac == twin_mac(bytes(range(32)), number, place, line.sequence, before, line.body)
            before, expected = line.mac, line.sequence + 1
    assert expected in (None, chain.head.sequence)
    found = examine(chain.head, ROOT, segments)
    assert found == Examination(sum(len(lines(data)) for data in segments.values()), 0, 0, None)


def test_a_batch_is_what_its_entries_are_one_by_one() -> None:
    """Batches leave no trace."""
    assert written(20, SMALL, 1) == written(20, SMALL, 7)


def test_keys_do_not_print() -> None:
    """Nothing of a chain's keys is in its repr."""
    chain, _ = written(3)
    assert "key" not in repr(chain)
    assert repr(chain.head) in repr(chain)


def test_a_chain_is_taken_up_again() -> None:
    """From its head and its secret, a chain goes on as if nothing had been between."""
    chain, segments = written(5)
    again = Chain.restore(chain.head, chain.secret)
    assert again.extend([entry(5)], ENDLESS) == chain.extend([entry(5)], ENDLESS)
    with pytest.raises(ValueError, match="bad key"):
        Chain.restore(chain.head, chain.secret[:-1])
    assert examine(again.head, ROOT, segments).bad is None


def test_the_present_key_does_not_tell_the_past() -> None:
    """With all that a writer holds, no mac of what is written can be made, under any key it leads to."""
    chain, segments = written(8, SMALL)
    macs = {Line.parse(raw).mac for data in segments.values() for raw in lines(data)}
    reachable = []
    key, segment = chain.key, chain.next_segment
    for _ in range(20):
        key, mac_key = step(key)
        reachable.append(mac_key)
    for _ in range(5):
        key = first_key(segment)
        for _ in range(20):
            key, mac_key = step(key)
            reachable.append(mac_key)
        segment = after_segment(segment)
    for number, data in segments.items():
        before = NOTHING
        for place, raw in enumerate(lines(data)):
            line = Line.parse(raw)
            if place == 0:
                before = bytes.fromhex(line.entry.detail)
            head = Head(LOG, 0, number, line.sequence, 0, before)
            made = {key.mac(_covered(head, line.body)) for key in reachable}
            assert not made & macs
            before = line.mac


def _covered(head: Head, body: bytes) -> bytes:
    place = head.segment.to_bytes(8, "big") + head.sequence.to_bytes(8, "big")
    log = len(LOG).to_bytes(4, "big") + LOG.encode()
    return b"mesh/v1/audit/entry" + log + place + head.mac + len(body).to_bytes(4, "big") + body


def test_logs_do_not_share_keys() -> None:
    """A line of one log does not verify in another."""
    assert segment_key(ROOT, "actions", 0) != segment_key(ROOT, LOG, 0)
    chain, segments = written(3)
    found = examine(replace(chain.head, log="actions"), ROOT, segments)
    assert found.bad == Finding(0, 0, 1, Fault.CHANGED)


@pytest.mark.parametrize(
    "line", [b"", b"no", b"00" * 32, b"00" * 32 + b" {}", b"AA" * 32 + b" {}", b"0" * 63 + b" {}"]
)
def test_what_is_no_line(line: bytes) -> None:
    """A line is a mac in lower-case hex, a blank, and an entry."""
    with pytest.raises(BadLineError):
        Line.parse(line)


# Attacks


@pytest.fixture(scope="module")
def log() -> tuple[Chain, Segments]:
    """Give a log of several segments, the oldest of which are dropped already."""
    chain, segments = written(24, SMALL)
    assert chain.head.first_segment > 0
    assert len(segments) == 4
    return chain, segments


def test_every_changed_byte_is_found_and_named() -> None:
    """Whichever byte of a log is changed, the first bad entry is the one that it belongs to."""
    chain, segments = written(6, Limits(900, 9))
    sequence = 0
    for number, data in segments.items():
        for place, raw in enumerate(lines(data)):
            start = sum(len(line) + 1 for line in lines(data)[:place])
            for at in range(start, start + len(raw) + 1):
                for bit in (1, 0x80):
                    changed = bytearray(data)
                    changed[at] ^= bit
                    bad = examine(chain.head, ROOT, {**segments, number: bytes(changed)}).bad
                    assert bad is not None, (number, at)
                    assert (bad.sequence, bad.segment, bad.line) == (sequence, number, place + 1)
            sequence += 1


def test_every_cut_is_found_and_named() -> None:
    """Wherever the end is cut off, the first entry that is missing is named."""
    chain, segments = written(4)
    data = segments[0]
    for length in range(len(data)):
        bad = examine(chain.head, ROOT, {0: data[:length]}).bad
        whole = data[:length].count(b"\n")
        assert bad == Finding(whole, 0, whole + 1, Fault.CUT)


def test_every_deleted_line_is_found(log: tuple[Chain, Segments]) -> None:
    """Whichever entry is deleted, it is the one named."""
    chain, segments = log
    for number, data in segments.items():
        for place, raw in enumerate(lines(data)):
            kept = lines(data)
            del kept[place]
            bad = examine(chain.head, ROOT, {**segments, number: joined(kept)}).bad
            assert bad is not None
            if number == chain.head.first_segment and place == 0:
                assert bad.fault is Fault.CHANGED  # what begins the log is gone: nothing vouches for the rest
            else:
                assert bad.sequence == Line.parse(raw).sequence
                assert bad.fault in (Fault.MISSING, Fault.CUT)


def test_every_swap_is_found(log: tuple[Chain, Segments]) -> None:
    """Whichever neighbours are swapped, the place of the first is named."""
    chain, segments = log
    for number, data in segments.items():
        for place in range(1, len(lines(data)) - 1):
            swapped = lines(data)
            swapped[place : place + 2] = swapped[place + 1], swapped[place]
            bad = examine(chain.head, ROOT, {**segments, number: joined(swapped)}).bad
            sequence = Line.parse(lines(data)[place]).sequence
            assert bad == Finding(sequence, number, place + 1, Fault.MISSING)


def test_a_repeated_line(log: tuple[Chain, Segments]) -> None:
    """An entry that stands twice is out of place the second time."""
    chain, segments = log
    number = chain.head.segment
    twice = lines(segments[number])
    twice.insert(1, twice[0])
    bad = examine(chain.head, ROOT, {**segments, number: joined(twice)}).bad
    assert bad
    assert (bad.line, bad.fault) == (2, Fault.REPEATED)


def test_swapped_missing_and_foreign_segments(log: tuple[Chain, Segments]) -> None:
    """A segment that is gone, or stands for another, is found where it should begin."""
    chain, segments = log
    first, second, third, last = sorted(segments)
    starts = {number: Line.parse(lines(data)[0]).sequence for number, data in segments.items()}

    def bad(changed: Segments) -> Finding | None:
        return examine(chain.head, ROOT, changed).bad

    without = {number: data for number, data in segments.items() if number != second}
    assert bad(without) == Finding(starts[second], second, 1, Fault.MISSING)
    without_last = {number: data for number, data in segments.items() if number != last}
    assert bad(without_last) == Finding(starts[last], last, 1, Fault.CUT)
    without_first = {number: data for number, data in segments.items() if number != first}
    found = bad(without_first)
    assert found
    assert (found.segment, found.line, found.fault) == (first, 1, Fault.MISSING)
    swapped = {**segments, second: segments[third], third: segments[second]}
    assert bad(swapped) == Finding(starts[second], second, 1, Fault.MISSING)
    shifted = {**segments, first: segments[second]}
    assert bad(shifted) == Finding(starts[second], first, 1, Fault.CHANGED)
    cut = {**segments, second: joined(lines(segments[second])[:-1])}
    assert bad(cut) == Finding(starts[third] - 1, third, 1, Fault.MISSING)
    torn = {**segments, second: segments[second][:-5]}
    found = bad(torn)
    assert found
    assert (found.sequence, found.fault) == (starts[third] - 1, Fault.GARBLED)


def test_an_older_copy_of_the_whole_log() -> None:
    """What was whole once is not whole any more: the first entry that it lacks is named."""
    chain, _ = written(30, SMALL)
    for count in range(1, 30):
        old, copy = written(count, SMALL)
        bad = examine(chain.head, ROOT, copy).bad
        assert bad is not None, count
        if chain.head.first_segment <= old.head.segment:
            assert bad.sequence == old.head.sequence


def test_a_log_of_another_past(log: tuple[Chain, Segments]) -> None:
    """One who has the keys of the start and writes all anew does not get the head."""
    chain, segments = Chain.start(LOG, ROOT), Segments()
    pieces, chain = chain.extend([entry(number) for number in range(5)], ENDLESS)
    write(segments, pieces)
    other = Segments()
    pieces, forged = Chain.start(LOG, ROOT).extend(
        [entry(0), entry(1), entry(2), entry(3), entry(5)], ENDLESS
    )
    write(other, pieces)
    assert forged.head.size == chain.head.size
    assert examine(chain.head, ROOT, other).bad == Finding(5, 0, 7, Fault.OLDER)
    assert log


def test_a_wrong_key(log: tuple[Chain, Segments]) -> None:
    """Under another audit key the very first entry does not verify."""
    chain, segments = log
    bad = examine(chain.head, Key(b"k" * 32), segments).bad
    assert bad
    assert (bad.segment, bad.line, bad.fault) == (chain.head.first_segment, 1, Fault.CHANGED)


@pytest.mark.parametrize("detail", ["", "zz", "00"])
def test_a_first_line_that_names_no_mac(log: tuple[Chain, Segments], detail: str) -> None:
    """The oldest segment has to say what came before it."""
    chain, segments = log
    first = chain.head.first_segment
    line = lines(segments[first])[0]
    mac, _, body = line.partition(b" ")
    told = json.loads(body)
    told["detail"] = detail
    changed = joined([mac + b" " + json.dumps(told).encode(), *lines(segments[first])[1:]])
    bad = examine(chain.head, ROOT, {**segments, first: changed}).bad
    assert bad
    assert (bad.line, bad.fault) == (1, Fault.CHANGED)


def test_a_segment_that_does_not_begin_as_one() -> None:
    """A genuine entry in the place of a segment's first line is refused, whoever could make it."""
    chain = Chain.start(LOG, ROOT)
    pieces, chain = chain.append([], entry(0))
    assert examine(chain.head, ROOT, {0: pieces[0].data}).bad == Finding(0, 0, 1, Fault.CHANGED)


# Crashes


def test_every_torn_end_is_told_from_an_attack() -> None:
    """However much of the next entries got to the disk: whole ones count, a torn one is told."""
    before, segments = written(4)
    pieces, _ = before.extend([entry(4), entry(5)], ENDLESS)
    tail = pieces[0].data
    for length in range(len(tail) + 1):
        whole = tail[:length].count(b"\n")
        torn = length - len(joined(lines(tail)[:whole]))
        found = examine(before.head, ROOT, {0: segments[0] + tail[:length]})
        assert found == Examination(5 + whole, whole, torn, None)
        adopted, left = before.adopt(tail[:length])
        assert (adopted.head.sequence, left) == (before.head.sequence + whole, torn)
        assert adopted.head.size == before.head.size + length - torn


def test_room_that_was_never_filled_is_torn() -> None:
    """After a loss of power a file may end in zeros."""
    chain, segments = written(2)
    assert examine(chain.head, ROOT, {0: segments[0] + bytes(500)}) == Examination(3, 0, 500, None)


def test_a_segment_begun_before_a_crash() -> None:
    """Entries that began a segment which the head does not know of yet are ahead of it, too."""
    chain, segments = written(4, SMALL)
    while True:
        pieces, after = chain.extend([entry(9)], SMALL)
        if pieces[0].segment != chain.head.segment:
            break
        write(segments, pieces)
        chain = after
    found = examine(chain.head, ROOT, {**segments, pieces[0].segment: pieces[0].data[:-1]})
    assert found.bad is None
    assert (found.ahead, found.torn > 0) == (1, True)
    found = examine(chain.head, ROOT, {**segments, pieces[0].segment: b"x\n"})
    assert found.bad == Finding(chain.head.sequence, chain.head.segment + 1, 1, Fault.FORGED)


def test_a_forged_end() -> None:
    """A whole line behind the end that is not the next entry is no crash."""
    chain, segments = written(3)
    for forged in (lines(segments[0])[-1], b"{}", lines(segments[0])[1]):
        found = examine(chain.head, ROOT, {0: segments[0] + forged + b"\n"})
        assert found.bad == Finding(4, 0, 5, Fault.FORGED)
        assert chain.adopt(forged + b"\n") == (chain, len(forged) + 1)


def test_nothing_is_whole() -> None:
    """A log that holds nothing yet is whole, as is one whose first entry was torn."""
    chain = Chain.start(LOG, ROOT)
    assert examine(chain.head, ROOT, {}) == Examination(0, 0, 0, None)
    assert examine(chain.head, ROOT, {0: b"ab"}) == Examination(0, 0, 2, None)


# Marks


def test_marks_show_that_log_and_head_were_both_put_back(log: tuple[Chain, Segments]) -> None:
    """A log that has passed through all marks is whole; a shorter one, or another, is not."""
    chain, segments = log
    marks, seen = [], Chain.start(LOG, ROOT)
    for number in range(24):
        _, seen = seen.extend([entry(number)], SMALL)
        marks.append(latest(seen.head))
    assert examine(chain.head, ROOT, segments, marks).bad is None
    old, copy = written(20, SMALL)
    assert examine(old.head, ROOT, copy).bad is None
    bad = examine(old.head, ROOT, copy, marks).bad
    assert bad
    assert (bad.sequence, bad.fault) == (old.head.sequence - 1, Fault.OLDER)
    wrong = Mark(chain.head.sequence - 1, b"w" * 32)
    bad = examine(chain.head, ROOT, segments, [wrong]).bad
    assert bad
    assert (bad.sequence, bad.fault) == (wrong.sequence - 1, Fault.OLDER)
    fresh = Chain.start(LOG, ROOT)
    assert examine(fresh.head, ROOT, {}, marks).bad == Finding(0, 0, 1, Fault.OLDER)


@settings(max_examples=60)
@given(st.data())
def test_any_tampering_is_found(data: st.DataObject) -> None:
    """Whatever is cut out, put in or changed up to the head, the log is not found whole."""
    chain, segments = written(9, SMALL)
    number = data.draw(st.sampled_from(sorted(segments)))
    whole = segments[number]
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 40)))
    changed = whole[:start] + data.draw(st.binary(max_size=40)) + whole[end:]
    found = examine(chain.head, ROOT, {**segments, number: changed})
    if changed == whole:
        assert found.bad is None
    elif number == chain.head.segment and changed.startswith(whole):
        assert found.torn == len(changed) - len(whole) or found.bad
    else:
        assert found.bad is not None


def test_a_log_that_was_put_back_says_so() -> None:
    """It is whole, names the entry that says it, and is still of another past to whoever saw what is gone."""
    chain, segments = written(5)
    later, _ = written(9)
    pieces, restored = chain.extend([Entry(2000, Kind.LOG, RESTORED, alarm=True)], ENDLESS)
    write(segments, pieces)
    pieces, restored = restored.extend([entry(6), entry(7)], ENDLESS)
    write(segments, pieces)
    found = examine(restored.head, ROOT, segments)
    assert (found.bad, found.restored) == (None, chain.head.sequence)
    for seen in (later.head, written(30)[0].head):
        found = examine(restored.head, ROOT, segments, [latest(seen)])
        assert found.bad
        assert (found.bad.fault, found.restored) == (Fault.OLDER, chain.head.sequence)
    assert examine(restored.head, ROOT, segments, [latest(chain.head)]).bad is None
    forged = {0: segments[0].replace(RESTORED.encode(), b"recovered from a backup")}
    assert examine(restored.head, ROOT, forged).restored is None


def test_a_chain_that_is_taken_up_again_keeps_the_same_segments() -> None:
    """What the segments take of the room is sealed with the keys, and has to be there for each."""
    chain, _ = written(24, SMALL)
    again = Chain.restore(chain.head, chain.secret)
    assert again == chain
    assert again.rotated(SMALL).head == chain.rotated(SMALL).head
    for secret in (chain.secret[:-8], chain.secret + bytes(8), chain.secret[:-1]):
        with pytest.raises(ValueError, match="not the sizes"):
            Chain.restore(chain.head, secret)


def test_what_is_left_early_takes_what_stands_in_it() -> None:
    """A spoilt segment has none retired before its own bytes do, and there is an end to how many are kept."""
    chain, _ = written(2)
    one = chain.head.size
    limits = Limits(10 * one, 3)
    for number in range(1, 21):
        chain = replace(chain, head=replace(chain.head, size=one)).rotated(limits, full=False)
        assert chain.head.first_segment == 0
        assert chain.closed == (one,) * number
    assert chain.rotated(limits).head.first_segment == 10
    for _ in range(MOST_SEGMENTS):
        chain = replace(chain, head=replace(chain.head, size=1)).rotated(ENDLESS, full=False)
    assert len(chain.closed) == MOST_SEGMENTS - 1


def test_what_went_before_it_was_seen_is_named() -> None:
    """A log is whole, and not sound, if entries behind the last mark are not kept any more."""
    chain, segments = written(40, SMALL)
    first = int(lines(segments[chain.head.first_segment])[0].split(b'"seq":')[1].split(b",")[0])
    assert first > 2
    _, early = Chain.start(LOG, ROOT).extend([entry(0)], SMALL)
    found = examine(chain.head, ROOT, segments, [latest(early.head)])
    assert (found.bad, found.gone, found.sound) == (None, (early.head.sequence, first - 1), False)
    assert examine(chain.head, ROOT, segments).sound
    assert examine(chain.head, ROOT, segments, [latest(chain.head)]).gone is None


def test_a_genuine_alarm_about_damage_is_named_until_it_was_seen() -> None:
    """The first such entry behind the last mark, written before the head or after it."""
    chain, segments = written(3)
    alarms = [Entry(2000, Kind.LOG, DAMAGED, alarm=True)] * 2
    pieces, after = chain.extend(alarms, ENDLESS)
    write(segments, pieces)
    for head in (after.head, chain.head):
        found = examine(head, ROOT, segments, [latest(chain.head)])
        assert (found.bad, found.damaged, found.sound) == (None, chain.head.sequence, False)
    assert examine(after.head, ROOT, segments).damaged == chain.head.sequence
    assert examine(after.head, ROOT, segments, [latest(after.head)]).sound
