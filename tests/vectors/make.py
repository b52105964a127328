"""Make the frozen vectors again: ``python -m tests.vectors.make``, from the root of the tree.

They change only with the wire format, and then its version does too. README.md explains what is in them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mesh.core import join
from mesh.core.audit import Entry, Kind, Verdict
from mesh.core.chain import Chain, Head, Limits
from mesh.core.epochs import Epoch
from mesh.core.keys import Key, destination_key, join_keys, lp, pair_key
from mesh.core.metadata import CALL, EMPTY_DIGEST, Entries, application_entries, digest
from mesh.core.names import MAX_EPOCH, FullMethod, InstanceId, KeyEpoch, ServiceName, TrustDomain
from mesh.core.policy import Policy
from mesh.core.replay import MAX_SEQUENCE, WINDOW
from mesh.core.seal import CallSeal, End, FrameSealer, Session
from mesh.core.traffic_document import encode
from mesh.core.vouching import PRIVATE_BYTES, JoinKey, Proof, read_join_key
from mesh.core.wire import (
    MAX_DEADLINE_MS,
    MAX_HEADER,
    CallHeader,
    Refusal,
    encode_call,
    encode_frame,
)
from mesh.v1 import auth_pb2, wire_pb2
from tests.core.test_names import BAD_METHODS, BAD_SERVICES, GOOD_METHODS, GOOD_SERVICES
from tests.core.test_policy import FULL, GOOD, NOT_JSON, REFUSED
from tests.core.test_traffic import FULL as FULL_TRAFFIC
from tests.core.test_traffic import REFUSED as REFUSED_TRAFFIC
from tests.core.test_traffic import SHORT as SHORT_TRAFFIC
from tests.core.test_traffic import document as with_traffic

HERE = Path(__file__).parent
#: HPKE draws fresh randomness for every seal, so this one was made once and is kept.
SEALED_BUNDLE = HERE / "sealed_bundle.hex"
SEALED_PROOF = HERE / "sealed_proof.hex"

Case = dict[str, Any]

DOMAIN = TrustDomain("shop.example")
FRONTEND, ORDERS, EVIL = ServiceName("frontend"), ServiceName("orders"), ServiceName("evil")
ROOT = Key(bytes(range(32)))
A, B = InstanceId(bytes(range(0xA0, 0xB0))), InstanceId(bytes(range(0xB0, 0xC0)))
C = InstanceId(bytes(range(0xC0, 0xD0)))
METHOD = FullMethod("/shop.v1.Orders/Get")
ENTRIES: Entries = (("x-tenant", "acme"), ("x-trace-bin", b"\0\1\xff"))
EPOCH = Epoch(KeyEpoch(7), 1_700_000_000_000, 1_700_003_600_000, 1_700_003_900_000)
NOW = EPOCH.begins_ms + 60_000
D = destination_key(ROOT, DOMAIN, ORDERS)
P = pair_key(D, FRONTEND)
SESSION = Session.derive(P, A, B)
HEADER = CallHeader(FRONTEND, A, ORDERS, B, EPOCH.number, 1, METHOD, digest(ENTRIES), NOW + 10_000)
CALL_SEAL = SESSION.seal(HEADER)[1]


def files() -> dict[str, bytes]:
    """Give every file with its bytes."""
    made = {
        "names": names(),
        "derivation": derivation(),
        "metadata": metadata(),
        "replay": replay(),
        "call": calls(),
        "frames": frames(),
        "reply": replies(),
        "receiver": receiver(),
        "policy": policy(),
        "traffic": traffic(),
        "join": joining(),
        "vouching": vouching(),
        "audit": auditing(),
    }
    return {f"{name}.json": (json.dumps(made[name], indent=1) + "\n").encode() for name in made}


def flipped(data: bytes, bit: int) -> bytes:
    """Change one bit."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# Names


def names() -> Case:
    """Say which texts are names."""

    def cases(kind: str, good: Iterable[str], bad: dict[str, str]) -> Iterator[Case]:
        for text in good:
            yield {"kind": kind, "text": text, "valid": True}
        for name, text in bad.items():
            if text.isascii() or text.encode("utf-8", "ignore").decode() == text:
                yield {"kind": kind, "name": name, "text": text, "valid": False}

    return {
        "cases": [
            *cases("service", GOOD_SERVICES, BAD_SERVICES),
            *cases("method", GOOD_METHODS, BAD_METHODS),
        ]
    }


# Keys


def derivation() -> Case:
    """Derive every key from the ones above it."""
    longest = ServiceName(".".join(["a" * 63, "b" * 61]))
    chains = [
        (ROOT, "shop.example", FRONTEND, ORDERS, A, B),
        (Key(b"\xff" * 32), "d", longest, longest, C, C),
    ]
    cases = []
    for root, domain, source, destination, by, to in chains:
        held = destination_key(root, TrustDomain(domain), destination)
        pair = pair_key(held, source)
        session = Session.derive(pair, by, to)
        cases.append(
            {
                "root": root.reveal().hex(),
                "trust_domain": domain,
                "source": source.text,
                "destination": destination.text,
                "source_instance": str(by),
                "destination_instance": str(to),
                "destination_key": held.reveal().hex(),
                "pair_key": pair.reveal().hex(),
                "request_key": session.request_key.reveal().hex(),
                "reply_key": session.reply_key.reveal().hex(),
            }
        )
    request, reply = join_keys(ROOT)
    secret = {
        "join_secret": ROOT.reveal().hex(),
        "request_key": request.reveal().hex(),
        "reply_key": reply.reveal().hex(),
    }
    return {"cases": cases, "join": [secret]}


# Metadata


def entry(key: str, value: str | bytes) -> Case:
    """Give one entry as it stands in a vector."""
    return {"key": key, "hex": value.hex()} if isinstance(value, bytes) else {"key": key, "text": value}


def metadata() -> Case:
    """Give digests of what is the application's."""
    rows: dict[str, Entries] = {
        "none": (),
        "text and bytes": ENTRIES,
        "keys in another order": tuple(reversed(ENTRIES)),
        "one key twice": (("k", "a"), ("k", "b")),
        "one key twice, in another order": (("k", "b"), ("k", "a")),
        "joined by a comma": (("k", "a,b"),),
        "empty value": (("k", ""),),
        "sorted by bytes": (("k_", "1"), ("k-", "2"), ("k.", "3"), ("k0", "4")),
        "status details are covered": (("grpc-status-details-bin", b"\x08\x05"),),
        "the transport's and the mesh's are not": (
            ("user-agent", "x"),
            ("te", "trailers"),
            ("grpc-timeout", "1S"),
            (CALL, b"x"),
            ("mesh-anything", "x"),
            *ENTRIES,
        ),
        "only the transport's": (("user-agent", "x"), ("content-type", "application/grpc")),
    }
    return {
        "cases": [
            {
                "name": name,
                "entries": [entry(*item) for item in rows[name]],
                "covered": [entry(*item) for item in application_entries(rows[name])],
                "digest": digest(application_entries(rows[name])).hex(),
            }
            for name in rows
        ]
    }


# Replay


def replay() -> Case:
    """Give sequences and what a window says to each number."""
    top = MAX_SEQUENCE
    rows: dict[str, list[tuple[int, bool]]] = {
        "in order": [(1, True), (2, True), (3, True)],
        "each once": [(1, True), (1, False), (2, True), (2, False), (1, False)],
        "out of order": [(5, True), (3, True), (4, True), (3, False), (1, True), (2, True), (5, False)],
        "edge": [(WINDOW + 5, True), (6, True), (5, False), (4, False), (6, False)],
        "a full turn": [(1, True), (WINDOW, True), (WINDOW + 1, True), (1, False), (2, True), (2, False)],
        "a word beyond": [(1, True), (WINDOW + 64, True), (64, False), (65, True), (1, False)],
        "a leap": [(1, True), (2**40, True), (1, False), (2**40 - WINDOW + 1, True), (2**40 - WINDOW, False)],
        "out of range": [(0, False), (1, True), (top + 1, False), (2**64 - 1, False), (2, True)],
        "the last number": [(top, True), (top, False), (top - WINDOW + 1, True), (top - WINDOW, False)],
    }
    return {
        "window": WINDOW,
        "cases": [
            {"name": name, "steps": [{"sequence": str(n), "accepted": ok} for n, ok in rows[name]]}
            for name in rows
        ],
    }


# Calls


def header_fields(header: CallHeader) -> Case:
    """Give a header as it stands in a vector: numbers of 64 bits are text."""
    return {
        "source": header.source.text,
        "source_instance": str(header.source_instance),
        "destination": header.destination.text,
        "destination_instance": str(header.destination_instance),
        "key_epoch": header.epoch.number,
        "sequence": str(header.sequence),
        "method": header.method.text,
        "metadata_digest": header.metadata_digest.hex(),
        "deadline_ms": str(header.deadline_ms),
    }


def calls() -> Case:
    """Seal headers, and give what is not a sealed call."""
    longest = ServiceName(".".join(["a" * 63, "b" * 61]))
    largest = CallHeader(
        longest,
        A,
        longest,
        B,
        KeyEpoch(MAX_EPOCH),
        MAX_SEQUENCE,
        FullMethod("/p.S/" + "M" * 507),
        b"\xff" * 32,
        MAX_DEADLINE_MS,
    )
    headers = {
        "typical": HEADER,
        "no deadline, no metadata": replace(HEADER, deadline_ms=0, metadata_digest=EMPTY_DIGEST),
        "largest": largest,
    }
    good = []
    for name, header in headers.items():
        sealed, seal = SESSION.seal(header)
        good.append(
            {
                "name": name,
                "header": header_fields(header),
                "header_bytes": header.encode().hex(),
                "mac": seal.mac.hex(),
                "mesh_call_bin": sealed.hex(),
            }
        )
    return {"request_key": SESSION.request_key.reveal().hex(), "cases": good, "bad": list(bad_calls())}


def bad_calls() -> Iterator[Case]:
    """Give calls with one thing wrong each."""

    def case(name: str, data: bytes, cause: str) -> Case:
        return {"name": name, "mesh_call_bin": data.hex(), "cause": cause}

    encoded = HEADER.encode()
    sealed, seal = SESSION.seal(HEADER)
    yield case("empty", b"", "MALFORMED")
    yield case("not protobuf", b"\xff" * 40, "MALFORMED")
    yield case("cut", sealed[:-1], "MALFORMED")
    yield case("no header", sealed[:34], "BAD_VERSION")
    yield case("no mac", sealed[34:], "MALFORMED")
    yield case("mac of 31 bytes", b"\x0a\x1f" + seal.mac[:31] + sealed[34:], "MALFORMED")
    yield case("header before mac", sealed[34:] + sealed[:34], "MALFORMED")
    yield case("mac twice", sealed[:34] + sealed, "MALFORMED")
    yield case("unknown field", sealed + b"\x7a\x01x", "MALFORMED")
    yield case("length in more bytes than needed", b"\x0a\xa0\x00" + sealed[2:], "MALFORMED")
    yield case("header too large", encode_call(seal.mac, b"h" * (MAX_HEADER + 1)), "TOO_LARGE")
    yield case("mac changed", encode_call(flipped(seal.mac, 0), encoded), "BAD_MAC")
    later = replace(HEADER, sequence=2)
    yield case("mac of another header", encode_call(seal.mac, later.encode()), "BAD_MAC")
    reversed_session = Session(SESSION.reply_key, SESSION.request_key)
    yield case("sealed with the reply key", reversed_session.seal(HEADER)[0], "BAD_MAC")
    for name, data, cause in bad_headers(encoded):
        yield case(name, encode_call(SESSION.request_key.mac(b"mesh/v1/call", lp(data)), data), cause)


def bad_headers(good: bytes) -> Iterator[tuple[str, bytes, str]]:
    """Give headers with one thing wrong each; their macs are right."""
    changes: list[tuple[str, object, str]] = [
        ("version", 0, "BAD_VERSION"),
        ("version", 2, "BAD_VERSION"),
        ("source", "Frontend", "MALFORMED"),
        ("source", "", "MALFORMED"),
        ("source_instance", A.raw[:15], "MALFORMED"),
        ("destination", "orders ", "MALFORMED"),
        ("destination_instance", b"", "MALFORMED"),
        ("key_epoch", 0, "MALFORMED"),
        ("sequence", 0, "MALFORMED"),
        ("sequence", MAX_SEQUENCE + 1, "MALFORMED"),
        ("metadata_digest", b"", "MALFORMED"),
        ("metadata_digest", b"d" * 33, "MALFORMED"),
        ("deadline_ms", MAX_DEADLINE_MS + 1, "MALFORMED"),
        ("method", "shop.v1.Orders/Get", "BAD_METHOD"),
        ("method", "/shop.v1.Orders//Get", "BAD_METHOD"),
        ("method", "/shop.v1.Orders/%2FGet", "BAD_METHOD"),
    ]
    for field, value, cause in changes:
        raw = wire_pb2.CallHeader.FromString(good)
        setattr(raw, field, value)
        yield f"header with {field} {value!r}", raw.SerializeToString(deterministic=True), cause
    yield "header with an unknown field", good + b"\x7a\x01x", "MALFORMED"
    yield "header with a field twice", good + good[-7:], "MALFORMED"
    without = replace(HEADER, deadline_ms=0).encode()
    yield "header with a default spelled out", without + b"\x50\x00", "MALFORMED"
    yield "header that is not UTF-8", good.replace(b"frontend", b"fronten\xff"), "MALFORMED"


# Frames


def frames() -> Case:
    """Seal streams in both directions, and give streams that were tampered with."""
    streams: list[tuple[str, list[bytes], bool]] = [
        ("one message", [b"hello"], False),
        ("one empty message", [b""], False),
        ("three messages", [b"a", b"", b"c"], False),
        ("a bare end", [], True),
        ("messages and a bare end", [b"a", b"b"], True),
        ("lengths of one, two and three bytes", [b"p" * 127, b"p" * 128, b"p" * 16384], False),
    ]
    good = []
    for direction, make in (("request", CallSeal.request_sealer), ("reply", CallSeal.reply_sealer)):
        for name, payloads, bare in streams:
            if direction == "request" or not bare:
                sealer = make(CALL_SEAL)
                ends = direction == "request" and not bare
                sent = [sealer.seal(p, end=ends and at == len(payloads) - 1) for at, p in enumerate(payloads)]
                sent += [sealer.seal_end()] if bare else []
                good.append(
                    {
                        "name": name,
                        "direction": direction,
                        "payloads": [*map(bytes.hex, payloads), *([None] if bare else [])],
                        "frames": [data.hex() if len(data) < 1024 else long(data) for data in sent],
                        "ended": ends or bare,
                    }
                )
    return {
        "call_mac": CALL_SEAL.mac.hex(),
        "request_key": SESSION.request_key.reveal().hex(),
        "reply_key": SESSION.reply_key.reveal().hex(),
        "cases": good,
        "bad": list(bad_frames()),
    }


def long(data: bytes) -> str:
    """Stand for data that is too long to print."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def bad_frames() -> Iterator[Case]:
    """Give streams of requests of which only a beginning passes."""

    def case(name: str, stream: list[bytes], passed: int, cause: str, direction: str = "request") -> Case:
        return {
            "name": name,
            "direction": direction,
            "frames": [data.hex() for data in stream],
            "passed": passed,
            "cause": cause,
        }

    sealer = CALL_SEAL.request_sealer()
    one, two, last = sealer.seal(b"one"), sealer.seal(b"two"), sealer.seal(b"three", end=True)
    other = SESSION.seal(replace(HEADER, sequence=2))[1].request_sealer().seal(b"one")
    end = CALL_SEAL.request_sealer().seal_end()
    yield case("no end", [one, two], 2, "CUT_SHORT")
    yield case("nothing at all", [], 0, "CUT_SHORT")
    yield case("first dropped", [two, last], 0, "BAD_FRAME")
    yield case("middle dropped", [one, last], 1, "BAD_FRAME")
    yield case("swapped", [two, one, last], 0, "BAD_FRAME")
    yield case("repeated", [one, one, two, last], 1, "BAD_FRAME")
    yield case("more after the end", [one, two, last, one], 3, "BAD_FRAME")
    yield case("the end twice", [one, two, last, last], 3, "BAD_FRAME")
    yield case("good after bad", [two, one], 0, "BAD_FRAME")
    yield case("of another call", [other], 0, "BAD_FRAME")
    yield case("of the other direction", [one], 0, "BAD_FRAME", "reply")
    yield case("mac changed", [flipped(one, 16)], 0, "BAD_FRAME")
    yield case("payload changed", [flipped(one, 8 * 38)], 0, "BAD_FRAME")
    yield case("end put on", [encode_frame(one[2:34], 1, b"one")], 0, "BAD_FRAME")
    yield case("end taken off", [one, two, encode_frame(last[2:34], 0, b"three")], 2, "BAD_FRAME")
    yield case("bare end made an empty message", [encode_frame(end[2:34], 1, b"")], 0, "BAD_FRAME")
    key = Key(bytes(32))
    forged = FrameSealer(key, CALL_SEAL.mac, b"\0").seal(b"one")
    yield case("under another key", [forged], 0, "BAD_FRAME")
    head = one[:34]
    yield case("cut", [one[:-1]], 0, "MALFORMED")
    yield case("extended", [one + b"\0"], 0, "MALFORMED")
    yield case("empty", [b""], 0, "MALFORMED")
    yield case("not a frame", [b"hello"], 0, "MALFORMED")
    yield case("no flags", [head + b"\x1a\x03one"], 0, "MALFORMED")
    yield case("no payload", [head + b"\x10\x00"], 0, "MALFORMED")
    yield case("payload before flags", [head + b"\x1a\x03one\x10\x00"], 0, "MALFORMED")
    yield case("flags in two bytes", [head + b"\x10\x80\x00\x1a\x03one"], 0, "MALFORMED")
    yield case("length in two bytes", [head + b"\x10\x00\x1a\x83\x00one"], 0, "MALFORMED")
    yield case("length beyond the end", [head + b"\x10\x00\x1a\xff\xff\xff\xff\x0fone"], 0, "MALFORMED")
    yield case("EMPTY without END", [head + b"\x10\x02\x1a\x00"], 0, "MALFORMED")
    yield case("unknown flag", [head + b"\x10\x04\x1a\x03one"], 0, "MALFORMED")
    yield case("EMPTY with a payload", [head + b"\x10\x03\x1a\x03one"], 0, "MALFORMED")
    yield case("unknown field", [one + b"\x22\x00"], 0, "MALFORMED")


# Replies


def replies() -> Case:
    """Give the macs of initial metadata, ends and refusals, and some that are not."""
    initial, trailing = digest((("x-served-by", "b1"),)), digest((("x-cost-bin", b"\5"),))
    ends = {
        "one message, OK": End(1, 0, "", initial, trailing),
        "no message, an error": End(0, 5, "no such order", EMPTY_DIGEST, EMPTY_DIGEST),
        "many messages, text beyond ASCII": End(2**40, 16, "n\u00e4\U0001f512", initial, EMPTY_DIGEST),
    }
    good = SESSION.seal(HEADER)[1]
    end = ends["one message, OK"]
    other = SESSION.seal(replace(HEADER, sequence=2))[1]

    def end_case(name: str, seen: End, mac: bytes, cause: str | None) -> Case:
        return {
            "name": name,
            "count": str(seen.count),
            "code": seen.code,
            "message": seen.message,
            "initial_digest": seen.initial_digest.hex(),
            "trailing_digest": seen.trailing_digest.hex(),
            "mesh_end_bin": mac.hex(),
            "cause": cause,
        }

    def initial_case(name: str, seen: bytes, mac: bytes, cause: str | None) -> Case:
        return {"name": name, "digest": seen.hex(), "mesh_initial_bin": mac.hex(), "cause": cause}

    mac = good.seal_end(end)
    return {
        "call_mac": good.mac.hex(),
        "reply_key": SESSION.reply_key.reveal().hex(),
        "initial": [
            initial_case("some", initial, good.seal_initial(initial), None),
            initial_case("none", EMPTY_DIGEST, good.seal_initial(EMPTY_DIGEST), None),
            initial_case("other metadata", trailing, good.seal_initial(initial), "BAD_METADATA"),
            initial_case("of another call", initial, other.seal_initial(initial), "BAD_METADATA"),
            initial_case("empty mac", initial, b"", "BAD_METADATA"),
        ],
        "end": [
            *(end_case(name, seen, good.seal_end(seen), None) for name, seen in ends.items()),
            end_case("a message less", replace(end, count=0), mac, "CUT_SHORT"),
            end_case("a message more", replace(end, count=2), mac, "CUT_SHORT"),
            end_case("another status", replace(end, code=1), mac, "CUT_SHORT"),
            end_case("another text", replace(end, message=" "), mac, "CUT_SHORT"),
            end_case("other initial", replace(end, initial_digest=EMPTY_DIGEST), mac, "CUT_SHORT"),
            end_case("other trailing", replace(end, trailing_digest=EMPTY_DIGEST), mac, "CUT_SHORT"),
            end_case("of another call", end, other.seal_end(end), "CUT_SHORT"),
            end_case("empty mac", end, b"", "CUT_SHORT"),
        ],
        "refusal": refusals(good, other),
    }


def refusals(call: CallSeal, other: CallSeal) -> list[Case]:
    """Give refusals of a call by another instance, C, than the one that it was sealed for."""
    mac = Session.derive(P, A, C).refuse(call.mac)
    good = Refusal(mac, C, EPOCH.number).encode()

    def case(name: str, data: bytes, outcome: str) -> Case:
        return {
            "name": name,
            "pair_key": P.reveal().hex(),
            "source_instance": str(A),
            "mesh_refusal_bin": data.hex(),
            "outcome": outcome,
        }

    return [
        case("by another instance", good, "believed"),
        case(
            "of another call",
            Refusal(Session.derive(P, A, C).refuse(other.mac), C, EPOCH.number).encode(),
            "ignored",
        ),
        case("instance changed", Refusal(mac, B, EPOCH.number).encode(), "ignored"),
        case("epoch of 0", good[:-2], "MALFORMED"),
        case("mac changed", flipped(good, 16), "ignored"),
        case("unknown field", good + b"\x7a\x01x", "MALFORMED"),
        case("cut", good[:-1], "MALFORMED"),
    ]


# The receiver


def receiver() -> Case:
    """Let calls arrive at one receiver, one after the other, and say what becomes of each."""
    rules = {"allow": [{"principals": ["frontend"], "paths": [METHOD.text]}]}
    return {
        "service": ORDERS.text,
        "instance": str(B),
        "epoch": {
            "number": EPOCH.number.number,
            "begins_ms": str(EPOCH.begins_ms),
            "ends_ms": str(EPOCH.ends_ms),
            "accepted_until_ms": str(EPOCH.accepted_until_ms),
            "destination_key": D.reveal().hex(),
        },
        "rules": rules,
        "steps": list(arrivals()),
    }


def arrivals() -> Iterator[Case]:
    """Give calls in order: each step finds the receiver as the ones before have left it."""

    def step(
        name: str,
        outcome: str,
        header: CallHeader,
        *,
        session: Session = SESSION,
        path: str = METHOD.text,
        entries: Entries = ENTRIES,
        peer: tuple[ServiceName, InstanceId] = (FRONTEND, A),
        deadline: int | None = NOW + 10_000,
        now: int = NOW,
    ) -> Case:
        return {
            "name": name,
            "now_ms": str(now),
            "path": path,
            "metadata": [entry(CALL, session.seal(header)[0]), *(entry(*item) for item in entries)],
            "peer": {"service": peer[0].text, "instance": str(peer[1])},
            "deadline_ms": None if deadline is None else str(deadline),
            "outcome": outcome,
        }

    evil = Session.derive(pair_key(D, EVIL), C, B)
    from_evil = replace(HEADER, source=EVIL, source_instance=C)
    yield step("forged by one without the pair key", "BAD_MAC", HEADER, session=evil, peer=(EVIL, C))
    yield step("captured, sent by another", "WRONG_PEER", HEADER, peer=(EVIL, C))
    yield step("captured, sent by another instance", "WRONG_PEER", HEADER, peer=(FRONTEND, C))
    yield step("good, after all of these", "permit", HEADER)
    yield step("the same again", "REPLAYED", HEADER)
    yield step("another path", "BAD_METHOD", replace(HEADER, sequence=2), path="/shop.v1.Orders/Drop")
    yield step("for another service", "NOT_ME", replace(HEADER, destination=EVIL))
    yield step("for another instance", "NOT_THIS_INSTANCE", replace(HEADER, destination_instance=C))
    yield step("of another epoch", "UNKNOWN_EPOCH", replace(HEADER, epoch=KeyEpoch(8)))
    yield step("under the name of another", "BAD_MAC", from_evil, peer=(EVIL, C))
    yield step("by one without a rule", "denied", from_evil, session=evil, peer=(EVIL, C))
    yield step("the same denied call again", "REPLAYED", from_evil, session=evil, peer=(EVIL, C))
    drop = replace(HEADER, sequence=3, method=FullMethod("/shop.v1.Orders/Drop"))
    yield step("of a method without a rule", "denied", drop, path=drop.method.text)
    yield step("metadata removed", "BAD_METADATA", replace(HEADER, sequence=4), entries=())
    more = (*ENTRIES, ("x-admin", "1"))
    yield step("metadata added", "BAD_METADATA", replace(HEADER, sequence=5), entries=more)
    hop = (("user-agent", "x"), *ENTRIES)
    yield step("the transport's metadata added", "permit", replace(HEADER, sequence=6), entries=hop)
    yield step("deadline removed", "BAD_DEADLINE", replace(HEADER, sequence=7), deadline=None)
    late = NOW + 15_001
    yield step("deadline lengthened", "BAD_DEADLINE", replace(HEADER, sequence=8), deadline=late)
    yield step("deadline lengthened by the skew", "permit", replace(HEADER, sequence=9), deadline=late - 1)
    yield step("deadline past", "BAD_DEADLINE", replace(HEADER, sequence=10), now=late)
    yield step("out of order", "permit", replace(HEADER, sequence=2))
    yield step("far ahead", "permit", replace(HEADER, sequence=100_000))
    yield step("too old", "REPLAYED", replace(HEADER, sequence=11))
    end = EPOCH.accepted_until_ms
    endless = replace(HEADER, sequence=100_001, deadline_ms=0)
    yield step("after the epoch", "UNKNOWN_EPOCH", endless, now=end)
    yield step("in its last millisecond", "permit", endless, now=end - 1, deadline=None)


# Policy


def policy() -> Case:
    """Give documents with decisions, and documents that are refused."""
    services: Case = {
        "frontend": {},
        "evil": {},
        "team.a": {},
        "team.a.b": {},
        "orders": {
            "allow": [
                {"name": "read", "principals": ["frontend"], "paths": ["/shop.v1.Orders/*"]},
                {"principals": ["team.*"], "paths": ["*/Get"]},
                {
                    "name": "tenants",
                    "principals": ["*.b"],
                    "paths": ["*"],
                    "headers": [{"key": "x-tenant", "values": ["acme", "ac-*", "*-me"]}],
                },
            ],
            "deny": [
                {"name": "no-drop", "principals": ["*"], "paths": ["*/Drop"]},
                {
                    "name": "not-from-there",
                    "principals": ["frontend"],
                    "paths": ["*"],
                    "headers": [{"key": "x-from", "values": ["abroad"]}],
                },
            ],
        },
        "closed": {
            "allow": [{"principals": ["*"], "paths": ["*"]}],
            "deny": [{"principals": ["evil"], "paths": ["*"]}],
        },
    }
    rows: list[tuple[str, str, Entries, str | None]] = [
        ("frontend", "/shop.v1.Orders/Get", (), "+read"),
        ("frontend", "/shop.v1.Orders/Drop", (), "-no-drop"),
        ("frontend", "/shop.v1.OrdersX/Get", (), None),
        ("frontend", "/shop.v1.orders/Get", (), None),
        ("frontend", "/shop.v1.Orders/Get", (("x-from", "abroad"),), "-not-from-there"),
        ("frontend", "/shop.v1.Orders/Get", (("x-from", "home"), ("x-from", "abroad")), "-not-from-there"),
        ("frontend", "/shop.v1.Orders/Get", (("x-from", "abroad,home"),), "+read"),
        ("frontend.x", "/shop.v1.Orders/Get", (), None),
        ("evil", "/shop.v1.Orders/Get", (), None),
        ("team.a", "/any.S/Get", (), "+orders/allow/1"),
        ("team", "/any.S/Get", (), None),
        ("teams.a", "/any.S/Get", (), None),
        ("team.a.b", "/any.S/Put", (), None),
        ("team.a.b", "/any.S/Put", (("x-tenant", "acme"),), "+tenants"),
        ("team.a.b", "/any.S/Put", (("x-tenant", "ac-1"), ("x-tenant", "to-me")), "+tenants"),
        ("team.a.b", "/any.S/Put", (("x-tenant", "acme"), ("x-tenant", "other")), None),
        ("team.a.b", "/any.S/Put", (("x-tenant", "acme,other"),), None),
        ("team.a.b", "/any.S/Put", (("x-tenant", "Acme"),), None),
    ]
    decisions = [
        {
            "source": source,
            "destination": "orders",
            "method": method,
            "metadata": [entry(*item) for item in entries],
            "decision": decision,
        }
        for source, method, entries, decision in rows
    ]
    known = {
        "frontend": ["closed", "orders"],
        "evil": [],
        "team.a.b": ["closed", "orders"],
        "x.b": ["closed", "orders"],
        "stranger": ["closed"],
    }
    bad = [{"document": json.dumps(document), "path": path} for path, _, document in REFUSED] + [
        {"name": name, "document": document.decode(), "path": "policy"}
        for name, document in NOT_JSON.items()
        if isinstance(document, bytes) and document.isascii() and len(document) < 1000
    ]
    return {
        "document": {"services": services},
        "decisions": decisions,
        "language": policy_language(),
        "destinations": known,
        "accepted": [json.dumps(GOOD), '{"services": {}}', json.dumps(FULL)],
        "refused": bad,
    }


def traffic() -> Case:
    """Give documents with traffic and their canonical form, what callers are told, and what is refused."""
    accepted = [json.dumps(with_traffic(said)) for said in (FULL_TRAFFIC, SHORT_TRAFFIC)]
    to = Policy.parse(accepted[0]).traffic_to(ORDERS)
    return {
        "accepted": [
            {"document": document, "canonical": Policy.parse(document).encode().decode()}
            for document in accepted
        ],
        "told": [
            {"known": sorted(known), "traffic": encode(to.of_caller(known)).decode()}
            for known in ({"orders"}, {"orders", "orders-next"})
        ],
        "callee": encode(to.of_callee).decode(),
        "refused": [{"document": json.dumps(bad), "path": path} for path, _, bad in REFUSED_TRAFFIC],
    }


def policy_language() -> Case:
    """Give a document with groups, modes and conditions, and decisions by it."""
    noon, night = "1700046000000", "1700002800000"
    document: Case = {
        "groups": {"partners": ["acme", "group:branches"], "branches": ["branch.*"]},
        "services": {
            "acme": {},
            "branch.two": {},
            "evil": {},
            "open": {"mode": "audit", "deny": [{"principals": ["evil"], "paths": ["*"], "mode": "enforce"}]},
            "shop": {
                "allow": [
                    {
                        "name": "by-day",
                        "principals": ["group:partners"],
                        "paths": ["*/Get"],
                        "when": "time.getHours() >= 8 && time.getHours() < 18",
                    },
                    {
                        "name": "tenant",
                        "principals": ["group:branches"],
                        "paths": ["*"],
                        "when": 'metadata["x-tenant"] == "acme" && destination == "shop"',
                    },
                    {"name": "old", "principals": ["evil"], "paths": ["*/Get"], "mode": "audit"},
                ],
                "deny": [
                    {
                        "name": "not-from-there",
                        "principals": ["branch.two"],
                        "paths": ["*"],
                        "when": 'metadata["x-from"] == "abroad"',
                    },
                    {"name": "new", "principals": ["acme"], "paths": ["*/Get"], "mode": "audit"},
                ],
            },
        },
    }
    tenant, home = ("x-tenant", "acme"), ("x-from", "home")
    rows: list[tuple[str, str, str, Entries, str | None, str | None, str | bool | None]] = [
        ("acme", "shop", "/p.S/Get", (), noon, "+by-day", "new"),
        ("acme", "shop", "/p.S/Get", (), night, None, False),
        ("acme", "shop", "/p.S/Get", (), None, None, False),
        ("branch.one", "shop", "/p.S/Get", (), noon, "+by-day", False),
        ("branch.one", "shop", "/p.S/Get", (tenant,), night, "+tenant", False),
        ("branch.one", "shop", "/p.S/Put", (tenant, tenant), noon, None, False),
        ("branch", "shop", "/p.S/Get", (tenant,), noon, None, False),
        ("branch.two", "shop", "/p.S/Get", (home,), noon, "+by-day", False),
        ("branch.two", "shop", "/p.S/Get", (), noon, "-not-from-there", False),
        ("branch.two", "shop", "/p.S/Get", (home, home), noon, "-not-from-there", False),
        ("branch.two", "shop", "/p.S/Get", (("x-from", "abroad"),), noon, "-not-from-there", False),
        ("evil", "shop", "/p.S/Get", (), noon, "+old", None),
        ("evil", "shop", "/p.S/Put", (), noon, None, False),
        ("acme", "open", "/p.S/Get", (), noon, "+", None),
        ("evil", "open", "/p.S/Get", (), noon, "-open/deny/0", False),
    ]
    decisions = [
        {
            "source": source,
            "destination": destination,
            "method": method,
            "metadata": [entry(*item) for item in entries],
            "now_ms": now_ms,
            "decision": decision,
            "audited": audited,
        }
        for source, destination, method, entries, now_ms, decision, audited in rows
    ]
    return {"document": document, "decisions": decisions}


# Joining


def joining() -> Case:
    """Give a join with fixed keys, and requests and answers that are refused."""
    token = join.JoinToken("0123456789abcdef", ROOT)
    seed, scalar = bytes(range(64)), bytes(range(64, 96))
    mlkem, x25519 = MLKEM768PrivateKey.from_seed_bytes(seed), X25519PrivateKey.from_private_bytes(scalar)
    fields: Case = {
        "version": 1,
        "token_id": token.id,
        "hpke_public_key": mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw(),
        "csr": b"not a certificate request, which this layer does not read",
        "nonce": bytes(range(16)),
    }
    body = auth_pb2.JoinBody(**fields).SerializeToString(deterministic=True)
    request_key, reply_key = join_keys(token.secret)
    bundle = auth_pb2.JoinBundle(auth_address="auth:7701", gatekeeper_address="gatekeeper:7702")
    asked = join.read_request(auth_pb2.JoinRequest(body=body, mac=request_key.mac(body)))
    if not SEALED_BUNDLE.exists():
        SEALED_BUNDLE.write_text(asked.answer(token.secret, bundle).sealed_bundle.hex() + "\n")
    sealed = bytes.fromhex(SEALED_BUNDLE.read_text())
    mac = reply_key.mac(lp(body) + lp(sealed))

    def request(name: str, made: bytes, outcome: str, proof: bytes | None = None) -> Case:
        shown = request_key.mac(made) if proof is None else proof
        return {"name": name, "body": made.hex(), "mac": shown.hex(), "outcome": outcome}

    def changed(**changes: object) -> bytes:
        return auth_pb2.JoinBody(**(fields | changes)).SerializeToString(deterministic=True)

    def answer(name: str, made: bytes, proof: bytes, cause: str | None) -> Case:
        return {"name": name, "sealed_bundle": made.hex(), "mac": proof.hex(), "cause": cause}

    tampered = flipped(sealed, len(sealed) * 8 - 1)
    covered = lp(body) + lp(tampered)
    mlkem_public = fields["hpke_public_key"][:-32]
    return {
        "token": token.text,
        "mlkem768_seed": seed.hex(),
        "x25519_private_key": scalar.hex(),
        "csr": fields["csr"].hex(),
        "nonce": fields["nonce"].hex(),
        "bundle": bundle.SerializeToString(deterministic=True).hex(),
        "requests": [
            request("good", body, "proven"),
            request("mac changed", body, "unproven", flipped(request_key.mac(body), 0)),
            request("proven with the key for answers", body, "unproven", reply_key.mac(body)),
            request(
                "another nonce under the same mac",
                changed(nonce=b"n" * 16),
                "unproven",
                request_key.mac(body),
            ),
            request("mac of 31 bytes", body, "TOO_LARGE", request_key.mac(body)[:31]),
            request("body too large", b"\xff" * (join.MAX_BODY + 1), "TOO_LARGE"),
            request("not protobuf", b"\xff" * 64, "MALFORMED"),
            request("unknown field", body + b"\x7a\x01x", "MALFORMED"),
            request("another version", changed(version=2), "BAD_VERSION"),
            request("token id in upper case", changed(token_id="0123456789ABCDEF"), "MALFORMED"),
            request("nonce of 15 bytes", changed(nonce=b"n" * 15), "MALFORMED"),
            request(
                "key of 1215 bytes", changed(hpke_public_key=fields["hpke_public_key"][:-1]), "MALFORMED"
            ),
            request(
                "x25519 point of low order", changed(hpke_public_key=mlkem_public + bytes(32)), "MALFORMED"
            ),
            request("ml-kem key out of range", changed(hpke_public_key=b"\xff" * 1216), "MALFORMED"),
        ],
        "answers": [
            answer("good", sealed, mac, None),
            answer("mac changed", sealed, flipped(mac, 7), "BAD_PROOF"),
            answer("mac of 31 bytes", sealed, mac[:31], "BAD_PROOF"),
            answer("ciphertext changed", tampered, mac, "BAD_PROOF"),
            answer(
                "ciphertext changed by a holder of the secret", tampered, reply_key.mac(covered), "MALFORMED"
            ),
            answer(
                "proven with the key for requests",
                sealed,
                request_key.mac(lp(body) + lp(sealed)),
                "BAD_PROOF",
            ),
            answer("nothing sealed", b"", reply_key.mac(lp(body) + lp(b"")), "MALFORMED"),
        ],
    }


def vouching() -> Case:
    """Give a proof sealed to a fixed join key, and requests that it does not go with."""
    raw = bytes(range(PRIVATE_BYTES))
    key, proof = JoinKey(raw), Proof(ROOT, "header.payload.signature")

    def body(**changes: object) -> bytes:
        fields: Case = {
            "version": 1,
            "token_id": proof.join_token.id,
            "hpke_public_key": key.public,
            "csr": b"not a certificate request, which this layer does not read",
            "nonce": bytes(range(16)),
        }
        return auth_pb2.JoinBody(**(fields | changes)).SerializeToString(deterministic=True)

    if not SEALED_PROOF.exists():
        SEALED_PROOF.write_text(proof.seal(read_join_key(key.text), body()).hex() + "\n")
    sealed = bytes.fromhex(SEALED_PROOF.read_text())

    def request(
        name: str, made: bytes, cause: str | None, *, carried: bytes = sealed, mac: bytes | None = None
    ) -> Case:
        shown = join_keys(ROOT)[0].mac(made) if mac is None else mac
        return {
            "name": name,
            "body": made.hex(),
            "mac": shown.hex(),
            "sealed_proof": carried.hex(),
            "cause": cause,
        }

    return {
        "join_key_seeds": raw.hex(),
        "join_key": key.text,
        "secret": ROOT.reveal().hex(),
        "token_id": proof.join_token.id,
        "service_account_token": proof.token,
        "requests": [
            request("good", body(), None),
            request("mac changed", body(), "BAD_PROOF", mac=flipped(join_keys(ROOT)[0].mac(body()), 0)),
            request("ciphertext changed", body(), "MALFORMED", carried=flipped(sealed, len(sealed) * 8 - 1)),
            request("encapsulated key changed", body(), "MALFORMED", carried=flipped(sealed, 0)),
            request("with another request of the same secret", body(nonce=b"n" * 16), "MALFORMED"),
            request("under another token id", body(token_id="0123456789abcdef"), "MALFORMED"),
            request("nothing sealed", body(), "MALFORMED", carried=b""),
            request("too large", body(), "TOO_LARGE", carried=bytes(join.MAX_PROOF + 1)),
        ],
    }


def auditing() -> Case:
    """Make a small audit log of three segments, and what is found of it whole and harmed."""
    limits = Limits(segment_bytes=900, segments=2)
    chain, segments = Chain.start("denials", ROOT), dict[int, bytes]()
    heads = [chain.head]
    for number in range(8):
        denied = Entry(
            NOW + number,
            Kind.DENIAL,
            "call denied",
            Verdict.DENIED,
            service=FRONTEND.text,
            instance=str(A),
            by=f"{ORDERS}/{B}",
            method=METHOD.text,
            call_id=f"{number:016x}",
        )
        pieces, chain = chain.extend([denied], limits)
        heads.append(chain.head)
        for piece in pieces:
            segments[piece.segment] = segments.get(piece.segment, b"") + piece.data
    first, last = chain.head.first_segment, chain.head.segment
    kept = {number: segments[number] for number in (first, last)}

    def found(name: str, head: Head, changed: dict[int, bytes], outcome: str) -> Case:
        texts = {str(number): data.decode("latin-1") for number, data in changed.items()}
        return {"name": name, "head": _head(head), "segments": texts, "outcome": outcome}

    lines = kept[last].splitlines(keepends=True)
    edited = kept[last].replace(b"frontend", b"nobodies", 1)
    return {
        "audit_key": ROOT.reveal().hex(),
        "log": "denials",
        "cases": [
            found("whole", chain.head, kept, "whole"),
            found("a line edited", chain.head, {**kept, last: edited}, "CHANGED"),
            found("a line deleted", chain.head, {**kept, last: lines[0] + b"".join(lines[2:])}, "MISSING"),
            found("the end cut off", chain.head, {**kept, last: b"".join(lines[:-1])}, "CUT"),
            found("the end cut in a line", chain.head, {**kept, last: kept[last][:-9]}, "CUT"),
            found("a segment gone", chain.head, {last: kept[last]}, "MISSING"),
            found("written when a crash came", heads[-2], kept, "ahead"),
            found("torn by a crash", chain.head, {**kept, last: kept[last] + lines[0][:40]}, "torn"),
            found(
                "a whole line forged behind the end",
                chain.head,
                {**kept, last: kept[last] + lines[0]},
                "FORGED",
            ),
        ],
    }


def _head(head: Head) -> Case:
    return {
        "first_segment": head.first_segment,
        "segment": head.segment,
        "sequence": str(head.sequence),
        "size": head.size,
        "mac": head.mac.hex(),
    }


if __name__ == "__main__":
    for filename, content in files().items():
        (HERE / filename).write_bytes(content)
