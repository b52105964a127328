"""The frozen vectors: each case against the core, and macs against a twin made of HMAC alone."""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey

from mesh.core.chain import Head
from mesh.core.epochs import Epoch
from mesh.core.errors import Denied, PeerError
from mesh.core.examine import examine
from mesh.core.join import JoinRequester, JoinToken, read_request
from mesh.core.keys import Key, destination_key, join_keys, lp, pair_key, session_keys
from mesh.core.matcher import Matcher, Permit
from mesh.core.metadata import Entries, application_entries, digest
from mesh.core.names import FullMethod, InstanceId, KeyEpoch, ServiceName, TrustDomain
from mesh.core.policy import Policy, PolicyError, Section
from mesh.core.receiver import Incoming, Peer, Receiver
from mesh.core.replay import WINDOW, ReplayWindow
from mesh.core.seal import CallSeal, End, FrameOpener, FrameSealer, Session
from mesh.core.traffic_document import decode, encode
from mesh.core.vouching import JoinKey, Proof
from mesh.core.wire import CallHeader, Refusal, decode_call
from mesh.v1 import auth_pb2
from tests.vectors import make

HERE = Path(make.__file__).parent
Case = dict[str, Any]


def vectors(name: str) -> Case:
    loaded: Case = json.loads((HERE / f"{name}.json").read_bytes())
    return loaded


def key(text: str) -> Key:
    return Key(bytes.fromhex(text))


def instance(text: str) -> InstanceId:
    return InstanceId(bytes.fromhex(text))


def entries(cases: list[Case]) -> Entries:
    return tuple(
        (case["key"], case["text"] if "text" in case else bytes.fromhex(case["hex"])) for case in cases
    )


def label(case: Case) -> str:
    return str(case.get("name", ""))[:60]


def each(name: str, part: str = "cases") -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", vectors(name)[part], ids=label)


@pytest.mark.parametrize("name", make.files())
def test_frozen(name: str) -> None:
    """Making a file again gives the very bytes that are committed."""
    assert (HERE / name).read_bytes() == make.files()[name]


def test_nothing_else() -> None:
    """Every file of vectors is one that is made, and checked here."""
    assert {path.name for path in HERE.glob("*.json")} == set(make.files())


@each("names")
def test_names(case: Case) -> None:
    """Each text is a name, or is refused as one."""
    parse = ServiceName if case["kind"] == "service" else FullMethod
    if case["valid"]:
        assert str(parse(case["text"])) == case["text"]
    else:
        with pytest.raises(ValueError, match=r"^bad "):
            parse(case["text"])


# The twin: RFC 5869 and the formulas at the head of keys.py and seal.py, written down a second time.


def mac(secret: str | bytes, *parts: bytes) -> bytes:
    raw = bytes.fromhex(secret) if isinstance(secret, str) else secret
    return hmac.digest(raw, b"".join(parts), "sha256")


def twin_expand(secret: str | bytes, info: bytes) -> bytes:
    """Give the first two blocks of HKDF-Expand: all that is ever needed."""
    first = mac(secret, info, b"\1")
    return first + mac(secret, first, info, b"\2")


def number(value: int | str, width: int) -> bytes:
    return int(value).to_bytes(width, "big")


@each("derivation")
def test_derivation(case: Case) -> None:
    """Each key comes out of the one above it, for core and twin alike."""
    source, destination = ServiceName(case["source"]), ServiceName(case["destination"])
    ends = instance(case["source_instance"]), instance(case["destination_instance"])
    held = destination_key(key(case["root"]), TrustDomain(case["trust_domain"]), destination)
    pair = pair_key(held, source)
    derived = [each_key.reveal().hex() for each_key in (held, pair, *session_keys(pair, *ends))]
    expected = [case["destination_key"], case["pair_key"], case["request_key"], case["reply_key"]]
    assert derived == expected
    names = lp(case["trust_domain"].encode()) + lp(case["destination"].encode())
    first = twin_expand(case["root"], b"mesh/v1/destination" + names)[:32]
    second = twin_expand(first, b"mesh/v1/pair" + lp(case["source"].encode()))[:32]
    both = twin_expand(second, b"mesh/v1/session" + lp(ends[0].raw) + lp(ends[1].raw))
    assert [first.hex(), second.hex(), both[:32].hex(), both[32:].hex()] == expected


@each("derivation", "join")
def test_join_keys(case: Case) -> None:
    """Both keys come out of a join secret."""
    request, reply = join_keys(key(case["join_secret"]))
    assert (request.reveal().hex(), reply.reveal().hex()) == (case["request_key"], case["reply_key"])
    assert twin_expand(case["join_secret"], b"mesh/v1/join/request")[:32].hex() == case["request_key"]
    assert twin_expand(case["join_secret"], b"mesh/v1/join/reply")[:32].hex() == case["reply_key"]


@each("metadata")
def test_metadata(case: Case) -> None:
    """Each list gives the entries that are covered, and their digest."""
    covered = application_entries(entries(case["entries"]))
    assert covered == entries(case["covered"])
    assert digest(covered).hex() == case["digest"]


@each("replay")
def test_replay(case: Case) -> None:
    """A window says to each number what the vector says."""
    window = ReplayWindow()
    for step in case["steps"]:
        assert window.accept(int(step["sequence"])) is step["accepted"], step
    assert vectors("replay")["window"] == WINDOW


def session(case: Case) -> Session:
    nothing = "00" * 32
    return Session(key(case.get("request_key", nothing)), key(case.get("reply_key", nothing)))


CALL = vectors("call")


def header(case: Case) -> CallHeader:
    return CallHeader(
        ServiceName(case["source"]),
        instance(case["source_instance"]),
        ServiceName(case["destination"]),
        instance(case["destination_instance"]),
        KeyEpoch(case["key_epoch"]),
        int(case["sequence"]),
        FullMethod(case["method"]),
        bytes.fromhex(case["metadata_digest"]),
        int(case["deadline_ms"]),
    )


@each("call")
def test_call(case: Case) -> None:
    """Each header is sealed to those bytes, and opens from them."""
    sealed, seal = session(CALL).seal(header(case["header"]))
    encoded = bytes.fromhex(case["header_bytes"])
    assert sealed.hex() == case["mesh_call_bin"]
    assert seal.mac.hex() == case["mac"] == mac(CALL["request_key"], b"mesh/v1/call", lp(encoded)).hex()
    opened = decode_call(sealed)
    assert opened == (seal.mac, encoded)
    assert CallHeader.decode(encoded) == header(case["header"])
    assert session(CALL).open(*opened).mac == seal.mac


@each("call", "bad")
def test_bad_call(case: Case) -> None:
    """What is no sealed call does not open, for the cause that is named."""
    with pytest.raises(PeerError) as caught:
        open_call(bytes.fromhex(case["mesh_call_bin"]))
    assert caught.value.cause.name == case["cause"]


def open_call(data: bytes) -> None:
    mac_, encoded = decode_call(data)
    CallHeader.decode(encoded)
    session(CALL).open(mac_, encoded)


FRAMES = vectors("frames")
SEAL = CallSeal(session(FRAMES), bytes.fromhex(FRAMES["call_mac"]))


def ends(direction: str) -> tuple[FrameSealer, FrameOpener]:
    if direction == "request":
        return SEAL.request_sealer(), SEAL.request_opener()
    return SEAL.reply_sealer(), SEAL.reply_opener()


def shown(data: bytes, expected: str) -> str:
    long = expected.startswith("sha256:")
    return f"sha256:{hashlib.sha256(data).hexdigest()}" if long else data.hex()


@each("frames")
def test_frames(case: Case) -> None:
    """Each stream is sealed to those frames, and opens to those messages."""
    sealer, opener = ends(case["direction"])
    direction = {"request": b"\0", "reply": b"\1"}[case["direction"]]
    for index, (text, expected) in enumerate(zip(case["payloads"], case["frames"], strict=True)):
        last = case["ended"] and index == len(case["payloads"]) - 1
        payload = b"" if text is None else bytes.fromhex(text)
        data = sealer.seal_end() if text is None else sealer.seal(payload, end=last)
        assert shown(data, expected) == expected
        assert opener.open(data) == (None if text is None else payload)
        covered = SEAL.mac + direction + number(index, 8) + number(data[35], 1) + lp(payload)
        assert data[2:34] == mac(FRAMES[f"{case['direction']}_key"], b"mesh/v1/frame", covered)
    assert opener.ended is case["ended"]


@each("frames", "bad")
def test_bad_frames(case: Case) -> None:
    """Of a stream that was tampered with only its beginning passes, then comes the cause that is named."""
    _, opener = ends(case["direction"])
    stream = [bytes.fromhex(text) for text in case["frames"]]
    for data in stream[: case["passed"]]:
        opener.open(data)
    with pytest.raises(PeerError) as caught:
        finish(opener, stream[case["passed"] :])
    assert caught.value.cause.name == case["cause"]


def finish(opener: FrameOpener, rest: list[bytes]) -> None:
    for data in rest:
        opener.open(data)
    opener.finish()


REPLY = vectors("reply")
REPLIED = CallSeal(session(REPLY), bytes.fromhex(REPLY["call_mac"]))


def cause_of(attempt: object, *arguments: Any) -> str | None:
    assert callable(attempt)
    try:
        attempt(*arguments)
    except PeerError as error:
        return error.cause.name
    return None


@each("reply", "initial")
def test_initial(case: Case) -> None:
    """Initial metadata passes with its own mac and no other."""
    proof, seen = bytes.fromhex(case["mesh_initial_bin"]), bytes.fromhex(case["digest"])
    assert cause_of(REPLIED.open_initial, proof, seen) == case["cause"]
    assert (mac(REPLY["reply_key"], b"mesh/v1/initial", REPLIED.mac, seen) == proof) == (
        case["cause"] is None
    )


@each("reply", "end")
def test_end(case: Case) -> None:
    """An end passes with its own mac and no other."""
    digests = bytes.fromhex(case["initial_digest"]), bytes.fromhex(case["trailing_digest"])
    end = End(int(case["count"]), case["code"], case["message"], *digests)
    proof = bytes.fromhex(case["mesh_end_bin"])
    assert cause_of(REPLIED.open_end, proof, end) == case["cause"]
    said = number(case["count"], 8) + number(case["code"], 4) + lp(case["message"].encode())
    covered = REPLIED.mac + said + digests[0] + digests[1]
    assert (mac(REPLY["reply_key"], b"mesh/v1/end", covered) == proof) == (case["cause"] is None)


@each("reply", "refusal")
def test_refusal(case: Case) -> None:
    """A refusal is believed, ignored, or cannot be read."""
    try:
        refusal = Refusal.decode(bytes.fromhex(case["mesh_refusal_bin"]))
    except PeerError as error:
        assert error.cause.name == case["outcome"]  # noqa: PT017  one of three outcomes
        return
    by = Session.derive(key(case["pair_key"]), instance(case["source_instance"]), refusal.instance)
    believed = by.is_refusal(refusal.mac, REPLIED.mac)
    assert case["outcome"] == ("believed" if believed else "ignored")
    proof = mac(by.reply_key.reveal(), b"mesh/v1/refusal", lp(REPLIED.mac))
    assert (proof == refusal.mac) is believed


def test_receiver() -> None:
    """Each call that arrives at a receiver has the outcome that is named, in their order."""
    world = vectors("receiver")
    epoch = world["epoch"]
    times = [int(epoch[name]) for name in ("begins_ms", "ends_ms", "accepted_until_ms")]
    receiver = Receiver(ServiceName(world["service"]), instance(world["instance"]))
    receiver.learn(Epoch(KeyEpoch(epoch["number"]), *times), key(epoch["destination_key"]))
    judge = Matcher(Section.parse(json.dumps(world["rules"]))).permit
    for step in world["steps"]:
        peer = Peer(ServiceName(step["peer"]["service"]), instance(step["peer"]["instance"]))
        deadline = None if step["deadline_ms"] is None else int(step["deadline_ms"])
        incoming = Incoming(step["path"], entries(step["metadata"]), peer, deadline)
        try:
            verdict: object = receiver.admit(incoming, judge, int(step["now_ms"])).verdict
        except PeerError as error:
            verdict = error
        assert outcome(verdict) == step["outcome"], step["name"]


def outcome(verdict: object) -> str:
    if isinstance(verdict, PeerError):
        return verdict.cause.name
    return {Permit: "permit", Denied: "denied"}[type(verdict)]


POLICY = vectors("policy")


@each("policy", "decisions")
def test_decision(case: Case) -> None:
    """Each call is judged as the vector says, by the rule that it names."""
    policy = Policy.parse(json.dumps(POLICY["document"]))
    by = Matcher(policy.section(ServiceName(case["destination"])))
    try:
        decision: str | None = "+" + by.permit(case["source"], case["method"], entries(case["metadata"])).rule
    except Denied as denied:
        decision = denied.rule and f"-{denied.rule}"
    assert decision == case["decision"]


@pytest.mark.parametrize("case", POLICY["language"]["decisions"])
def test_decision_in_the_whole_language(case: Case) -> None:
    """Groups, modes and conditions: the decision, and what would have denied a call in audit."""
    policy = Policy.parse(json.dumps(POLICY["language"]["document"]))
    by = Matcher(policy.section(ServiceName(case["destination"])))
    now_ms = int(case["now_ms"]) if case["now_ms"] else None
    try:
        permit = by.permit(case["source"], case["method"], entries(case["metadata"]), now_ms)
    except Denied as denied:
        assert (denied.rule and f"-{denied.rule}", False) == (case["decision"], case["audited"])  # noqa: PT017
        return
    audited = permit.audited.rule if permit.audited else False
    assert (f"+{permit.rule}", audited) == (case["decision"], case["audited"])


@pytest.mark.parametrize(("source", "known"), POLICY["destinations"].items())
def test_destinations(source: str, known: list[str]) -> None:
    """Each service may know of exactly the services that the vector lists."""
    policy = Policy.parse(json.dumps(POLICY["document"]))
    assert [name.text for name in policy.destinations(ServiceName(source))] == known


@pytest.mark.parametrize("document", POLICY["accepted"])
def test_accepted_policy(document: str) -> None:
    """A good document is read."""
    assert Policy.parse(Policy.parse(document).encode()) == Policy.parse(document)


@each("traffic", "accepted")
def test_accepted_traffic(case: Case) -> None:
    """What is said of traffic has one canonical form."""
    assert Policy.parse(case["document"]).encode().decode() == case["canonical"]


@each("traffic", "told")
def test_told_traffic(case: Case) -> None:
    """A caller is told what the vector says, and can read it."""
    told = Policy.parse(vectors("traffic")["accepted"][0]["document"]).traffic_to(ServiceName("orders"))
    assert encode(told.of_caller(set(case["known"]))).decode() == case["traffic"]
    assert encode(decode(case["traffic"].encode())).decode() == case["traffic"]
    assert encode(told.of_callee).decode() == vectors("traffic")["callee"]


@each("traffic", "refused")
def test_refused_traffic(case: Case) -> None:
    """It is refused at its place."""
    with pytest.raises(PolicyError) as refused:
        Policy.parse(case["document"])
    assert refused.value.path == case["path"]


@each("policy", "refused")
def test_refused_policy(case: Case) -> None:
    """A bad document is refused, with the path of the field that is wrong."""
    with pytest.raises(PolicyError) as caught:
        Policy.parse(case["document"])
    assert caught.value.path == case["path"]


JOIN = vectors("join")


@each("join", "requests")
def test_join_request(case: Case) -> None:
    """A request is proven, unproven, or cannot be read."""
    request = auth_pb2.JoinRequest(body=bytes.fromhex(case["body"]), mac=bytes.fromhex(case["mac"]))
    try:
        proven = read_request(request).proven_by(JoinToken.parse(JOIN["token"]).secret)
    except PeerError as error:
        assert error.cause.name == case["outcome"]  # noqa: PT017  one of three outcomes
        return
    assert case["outcome"] == ("proven" if proven else "unproven")


@pytest.fixture
def requester(monkeypatch: pytest.MonkeyPatch) -> JoinRequester:
    """Give a node that made the good request, with its fixed keys."""
    made = JoinRequester(
        JoinToken.parse(JOIN["token"]), bytes.fromhex(JOIN["csr"]), bytes.fromhex(JOIN["nonce"])
    )
    mlkem = MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(JOIN["mlkem768_seed"]))
    x25519 = X25519PrivateKey.from_private_bytes(bytes.fromhex(JOIN["x25519_private_key"]))
    monkeypatch.setattr(made, "_private", MLKEM768X25519PrivateKey(mlkem, x25519))
    body = auth_pb2.JoinBody.FromString(made.request().body)
    body.hpke_public_key = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    monkeypatch.setattr(made, "_body", body.SerializeToString(deterministic=True))
    good = JOIN["requests"][0]
    assert (made.request().body.hex(), made.request().mac.hex()) == (good["body"], good["mac"])
    return made


@each("join", "answers")
def test_join_answer(case: Case, requester: JoinRequester) -> None:
    """The good answer opens to the bundle, and no other opens."""
    answer = auth_pb2.JoinResponse(
        sealed_bundle=bytes.fromhex(case["sealed_bundle"]), mac=bytes.fromhex(case["mac"])
    )
    assert cause_of(requester.open, answer) == case["cause"]
    if case["cause"] is None:
        assert requester.open(answer).SerializeToString(deterministic=True).hex() == JOIN["bundle"]


@each("vouching", "requests")
def test_vouching(case: Case) -> None:
    """A proof opens for the request that it was sealed for, and for no other."""
    told = vectors("vouching")
    join_key = JoinKey(bytes.fromhex(told["join_key_seeds"]))
    assert join_key.text == told["join_key"]
    assert twin_expand(told["secret"], b"mesh/v1/join/id")[:8].hex() == told["token_id"]
    parts = {name: bytes.fromhex(case[name]) for name in ("body", "mac", "sealed_proof")}

    def opened(request: auth_pb2.JoinRequest) -> Proof:
        return join_key.open(read_request(request))

    assert cause_of(opened, auth_pb2.JoinRequest(**parts)) == case["cause"]
    if case["cause"] is None:
        proof = opened(auth_pb2.JoinRequest(**parts))
        assert (proof.secret.reveal().hex(), proof.token) == (told["secret"], told["service_account_token"])


@each("audit")
def test_audit(case: Case) -> None:
    """A log is whole, ahead of its head, torn, or its first bad entry is found with its fault."""
    told = vectors("audit")
    numbers = {name: int(case["head"][name]) for name in ("first_segment", "segment", "sequence", "size")}
    head = Head(told["log"], **numbers, mac=bytes.fromhex(case["head"]["mac"]))
    segments = {int(number): text.encode("latin-1") for number, text in case["segments"].items()}
    found = examine(head, key(told["audit_key"]), segments)
    outcome = "ahead" if found.ahead else "torn" if found.torn else "whole"
    assert (found.bad.fault.name if found.bad else outcome) == case["outcome"]
