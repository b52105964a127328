"""The seal of one call: everything that an attacker could do to it, and that nothing of it passes."""

from collections.abc import Callable, Iterator
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import Cause, PeerError
from mesh.core.keys import Key
from mesh.core.seal import CallSeal, End, FrameOpener, FrameSealer, Session
from mesh.core.wire import EMPTY, decode_call, decode_frame, encode_frame
from tests.core import world

D1, D2 = b"1" * 32, b"2" * 32
END = End(2, 0, "fine", D1, D2)


def flips(data: bytes) -> Iterator[bytes]:
    """Give every string that differs from ``data`` in one bit."""
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def values(data: bytes) -> Iterator[bytes]:
    """Give every string that differs from ``data`` in one byte."""
    for at in range(len(data)):
        for value in range(256):
            if value != data[at]:
                yield data[:at] + bytes([value]) + data[at + 1 :]


def open_call(session: Session, data: bytes) -> CallSeal:
    return session.open(*decode_call(data))


def frames(sealer: FrameSealer, *payloads: bytes) -> list[bytes]:
    """Seal messages, the last one with END."""
    return [sealer.seal(p, end=at == len(payloads) - 1) for at, p in enumerate(payloads)]


def accepted(opener: FrameOpener, stream: list[bytes]) -> list[bytes | None]:
    """Give what an opener lets pass of a stream before it raises."""
    passed = []
    try:
        for data in stream:
            passed.append(opener.open(data))  # noqa: PERF401  what passed before an error counts
    except PeerError as error:
        fault = error.cause
    else:
        fault = Cause.BAD_FRAME
    assert fault in {Cause.BAD_FRAME, Cause.MALFORMED}
    return passed


DIRECTIONS: dict[str, tuple[Callable[[CallSeal], FrameSealer], Callable[[CallSeal], FrameOpener]]] = {
    "request": (CallSeal.request_sealer, CallSeal.request_opener),
    "reply": (CallSeal.reply_sealer, CallSeal.reply_opener),
}
both = pytest.mark.parametrize(("sealer", "opener"), DIRECTIONS.values(), ids=DIRECTIONS)
Sealer = Callable[[CallSeal], FrameSealer]
Opener = Callable[[CallSeal], FrameOpener]


# The call


def test_call_opens() -> None:
    """A sealed call opens with the session's keys, and both ends name it alike."""
    data, sealed = world.session().seal(world.header())
    opened = open_call(world.session(), data)
    assert opened.mac == sealed.mac
    assert opened.id == sealed.id == sealed.mac[:8].hex()


def test_call_with_any_bit_changed() -> None:
    """A sealed call with any one bit changed does not open."""
    data, _ = world.session().seal(world.header())
    for changed in flips(data):
        with pytest.raises(PeerError) as caught:
            open_call(world.session(), changed)
        assert caught.value.cause in {Cause.BAD_MAC, Cause.MALFORMED}


def test_call_with_any_byte_changed() -> None:
    """Nor with any one byte changed to any other."""
    data, _ = world.session().seal(world.header())
    for changed in values(data):
        with pytest.raises(PeerError):
            open_call(world.session(), changed)


@pytest.mark.parametrize(
    "other",
    [
        world.session(by=world.B),
        world.session(to=world.A),
        world.session(by=world.B, to=world.A),
        world.session(source=world.EVIL),
        world.session(epoch=world.NEXT),
        Session(world.session().reply_key, world.session().request_key),
    ],
    ids=[
        "other caller instance",
        "other callee instance",
        "turned round",
        "other source",
        "epoch",
        "keys swapped",
    ],
)
def test_call_of_another_session(other: Session) -> None:
    """A call sealed in any other session does not open in this one."""
    data, _ = other.seal(world.header())
    with pytest.raises(PeerError) as caught:
        open_call(world.session(), data)
    assert caught.value.cause is Cause.BAD_MAC


def test_mac_of_another_call() -> None:
    """A mac does not fit the header of another call of the same session."""
    (mac, _), (_, header) = (decode_call(world.session().seal(world.header(sequence=n))[0]) for n in (1, 2))
    with pytest.raises(PeerError) as caught:
        world.session().open(mac, header)
    assert caught.value.cause is Cause.BAD_MAC


# Frames


@both
def test_frames_pass(sealer: Sealer, opener: Opener) -> None:
    """Messages pass as they were sent, in order, and the last one ends the stream."""
    seal, opening = sealer(world.call()), opener(world.call())
    payloads = [b"", b"one", b"x" * 20000]
    for payload, data in zip(payloads, frames(seal, *payloads), strict=True):
        assert not opening.ended
        assert opening.open(data) == payload
    assert opening.ended
    assert seal.ended
    assert opening.count == seal.count == 3
    opening.finish()


def test_bare_end() -> None:
    """A stream may end without a message, and that end is no message."""
    seal, opening = world.call().request_sealer(), world.call().request_opener()
    assert opening.open(seal.seal(b"one")) == b"one"
    assert opening.open(seal.seal_end()) is None
    opening.finish()
    assert opening.count == 2


@pytest.mark.parametrize("change", [flips, values])
@both
def test_frame_changed(sealer: Sealer, opener: Opener, change: Callable[[bytes], Iterator[bytes]]) -> None:
    """A frame with any bit flipped or any byte replaced does not pass, and nothing passes after it."""
    good = sealer(world.call()).seal(b"pay 10")
    for changed in change(good):
        opening = opener(world.call())
        assert accepted(opening, [changed]) == []
        assert accepted(opening, [good]) == []
        assert opening.count == 0
        assert not opening.ended


@both
def test_frame_cut_or_extended(sealer: Sealer, opener: Opener) -> None:
    """A frame that lost its last bytes or gained some does not pass."""
    good = sealer(world.call()).seal(b"pay 10")
    for bad in [*(good[:end] for end in range(len(good))), good + b"\0", good + good]:
        assert accepted(opener(world.call()), [bad]) == []


@both
def test_flags_added(sealer: Sealer, opener: Opener) -> None:
    """An end cannot be put on a frame, nor taken off."""
    for end in (False, True):
        frame = decode_frame(sealer(world.call()).seal(b"", end=end))
        for flags in {0, 1, 3} - {frame.flags}:
            assert accepted(opener(world.call()), [encode_frame(frame.mac, flags, b"")]) == []


@both
def test_every_order_but_the_right_one(sealer: Sealer, opener: Opener) -> None:
    """However frames are dropped, swapped or repeated, only the beginning that is in order passes."""
    payloads = [b"a", b"b", b"c"]
    sent = frames(sealer(world.call()), *payloads)
    for length in range(1, 5):
        for order in permutations([0, 1, 2, 0, 1, 2], length):
            in_order = 0
            while in_order < min(length, 3) and order[in_order] == in_order:
                in_order += 1
            passed = accepted(opener(world.call()), [sent[place] for place in order])
            assert passed == payloads[:in_order]


@both
def test_stream_cut_short(sealer: Sealer, opener: Opener) -> None:
    """A stream that stops before its end is an error, wherever it stops, and dead after it."""
    sent = frames(sealer(world.call()), b"a", b"b", b"c")
    for length in range(3):
        opening = opener(world.call())
        assert accepted(opening, sent[:length]) == [b"a", b"b"][:length]
        with pytest.raises(PeerError) as caught:
            opening.finish()
        assert caught.value.cause is Cause.CUT_SHORT
        assert accepted(opening, sent[length:]) == []


@both
def test_after_the_end(sealer: Sealer, opener: Opener) -> None:
    """Nothing passes after the end: not the end again, not a frame with the index that would come next."""
    call = world.call()
    (last,) = frames(sealer(call), b"a")
    beyond = sealer(call)
    beyond.count = 1
    for data in (last, beyond.seal(b"b")):
        opening = opener(call)
        assert opening.open(last) == b"a"
        with pytest.raises(PeerError) as caught:
            opening.open(data)
        assert caught.value.cause is Cause.BAD_FRAME


@both
def test_sealer_ends(sealer: Sealer, opener: Opener) -> None:
    """Nothing can be sealed after the end: that is a mistake of this side, and says so."""
    by_message, bare = sealer(world.call()), sealer(world.call())
    by_message.seal(b"a", end=True)
    bare.seal_end()
    for seal in (by_message, bare):
        with pytest.raises(RuntimeError, match="ended"):
            seal.seal(b"b")
        with pytest.raises(RuntimeError, match="ended"):
            seal.seal_end()
    assert opener(world.call()).open(sealer(world.call()).seal(b"a")) == b"a"


def test_other_direction() -> None:
    """A request frame is no reply frame, and a reply frame no request frame."""
    call = world.call()
    assert accepted(call.reply_opener(), [call.request_sealer().seal(b"a")]) == []
    assert accepted(call.request_opener(), [call.reply_sealer().seal(b"a")]) == []


def test_other_direction_under_one_key() -> None:
    """Even if both directions had the same key, their frames would differ."""
    key = Key(b"k" * 32)
    call = Session(key, key).seal(world.header())[1]
    assert accepted(call.reply_opener(), [call.request_sealer().seal(b"a")]) == []


@both
@pytest.mark.parametrize(
    "other",
    [
        world.call(2),
        world.session(by=world.C).seal(world.header(source_instance=world.C))[1],
        world.session(to=world.C).seal(world.header(destination_instance=world.C))[1],
        world.session(source=world.EVIL).seal(world.header(source=world.EVIL))[1],
        world.session(epoch=world.NEXT).seal(world.header(epoch=world.NEXT.number))[1],
    ],
    ids=["other call", "other caller", "other callee", "other source", "other epoch"],
)
def test_spliced_from_another_call(sealer: Sealer, opener: Opener, other: CallSeal) -> None:
    """A frame of another call, session or epoch does not pass, at the start or in the middle."""
    foreign, own = frames(sealer(other), b"a", b"b"), frames(sealer(world.call()), b"a", b"b")
    assert accepted(opener(world.call()), foreign) == []
    assert accepted(opener(world.call()), [own[0], foreign[1]]) == [b"a"]


def test_frame_is_no_call_mac() -> None:
    """The mac of one thing never serves for another, though the key is the same."""
    call = world.call()
    reply = call.session.reply_key
    macs = {
        call.mac,
        decode_frame(call.request_sealer().seal(b"")).mac,
        decode_frame(call.reply_sealer().seal(b"")).mac,
        call.seal_initial(D1),
        call.seal_end(END),
        call.session.refuse(call.mac),
        reply.mac(b""),
    }
    assert len(macs) == 7


@given(st.lists(st.binary(max_size=50), max_size=8), st.data())
def test_any_tampered_stream(payloads: list[bytes], data: st.DataObject) -> None:
    """Whatever is done to a stream, what passes is a beginning of what was sent."""
    seal = world.call().request_sealer()
    sent = [*map(seal.seal, payloads), seal.seal_end()]
    pieces = st.sampled_from(sent) | st.binary(max_size=60)
    stream = data.draw(st.lists(pieces, max_size=12))
    passed = accepted(world.call().request_opener(), stream)
    assert passed == [*payloads, None][: len(passed)]


# Initial metadata, end and refusal


def test_initial() -> None:
    """Initial metadata passes as it was sealed."""
    world.call().open_initial(world.call().seal_initial(D1), D1)


def test_initial_tampered() -> None:
    """A changed mac, other metadata, or the seal of another call's metadata do not pass."""
    call = world.call()
    good = call.seal_initial(D1)
    attempts = [(mac, D1) for mac in (*flips(good), b"", good[:31], good + b"\0")]
    attempts += [(good, digest) for digest in (*flips(D1), D2)]
    attempts += [(world.call(2).seal_initial(D1), D1), (call.session.request_key.mac(b""), D1)]
    for mac, digest in attempts:
        with pytest.raises(PeerError) as caught:
            call.open_initial(mac, digest)
        assert caught.value.cause is Cause.BAD_METADATA


def test_end() -> None:
    """An end passes as it was sealed."""
    world.call().open_end(world.call().seal_end(END), END)


@pytest.mark.parametrize(
    "seen",
    [
        End(1, 0, "fine", D1, D2),
        End(3, 0, "fine", D1, D2),
        End(2, 1, "fine", D1, D2),
        End(2, 0, "", D1, D2),
        End(2, 0, "fine ", D1, D2),
        End(2, 0, "Fine", D1, D2),
        End(2, 0, "fine", D2, D2),
        End(2, 0, "fine", D1, D1),
        End(2, 0, "fine", D2, D1),
        End(2 << 32, 0, "fine", D1, D2),
    ],
)
def test_end_with_anything_else(seen: End) -> None:
    """An end with another count, status, text or metadata does not pass."""
    with pytest.raises(PeerError) as caught:
        world.call().open_end(world.call().seal_end(END), seen)
    assert caught.value.cause is Cause.CUT_SHORT


def test_end_tampered() -> None:
    """A changed or missing mac, or the end of another call, do not pass."""
    good = world.call().seal_end(END)
    for mac in (*flips(good), b"", good[:31], good + b"\0", world.call(2).seal_end(END), None):
        with pytest.raises(PeerError) as caught:
            world.call().open_end(mac, END)
        assert caught.value.cause is Cause.CUT_SHORT


@given(st.text(st.characters()), st.text(st.characters()))
def test_end_binds_any_text(sealed: str, seen: str) -> None:
    """Any status text can be sealed, half of a surrogate pair too, and no other passes for it."""
    left, right = (End(0, 2, text, D1, D2).encode() for text in (sealed, seen))
    assert (left == right) == (sealed == seen)


def test_end_of_half_a_pair() -> None:
    """A text that no UTF-8 can hold does not keep an end from being sealed."""
    end = End(0, 2, "bad \ud800", D1, D2)
    world.call().open_end(world.call().seal_end(end), end)
    for other in ("bad ?", "bad \ud801", "bad \ufffd", "bad "):
        assert End(0, 2, other, D1, D2).encode() != end.encode()


def test_refusal() -> None:
    """A refusal holds for the call that it names, in the session of the instance that refuses, only."""
    call, session = world.call(), world.session(to=world.C)
    good = session.refuse(call.mac)
    assert session.is_refusal(good, call.mac)
    assert not any(session.is_refusal(mac, call.mac) for mac in (*flips(good), b"", good[:31]))
    assert not any(session.is_refusal(good, mac) for mac in (*flips(call.mac), world.call(2).mac))
    assert not world.session().is_refusal(good, call.mac)
    assert not world.session(epoch=world.NEXT).is_refusal(good, call.mac)


def test_empty_flag_opens_as_no_message() -> None:
    """The flag EMPTY is what tells an end from an empty message."""
    call = world.call()
    assert call.request_opener().open(call.request_sealer().seal(b"", end=True)) == b""
    assert decode_frame(call.request_sealer().seal_end()).flags & EMPTY


def test_secrets_do_not_show() -> None:
    """Neither a session nor a call shows its keys."""
    text = f"{world.session()} {world.call()}"
    assert world.session().request_key.reveal().hex() not in text
    assert "Key(...)" in text
