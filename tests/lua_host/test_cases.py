"""``tests.yaml``: what a case can say, and that everything else is refused with its line."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core.names import ServiceName
from services.lua_host.bundle import Bundle
from services.lua_host.cases import Case, CasesError, Failure, read_cases
from tests.lua_host.stage import write_service

LEAST = "- name: a\n  call: Do\n  expect: {}\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_service(tmp_path_factory.mktemp("own"), "", depth=4)


def refused(text: str | bytes, bundle: Bundle) -> list[str]:
    with pytest.raises(CasesError) as raised:
        read_cases(text.encode() if isinstance(text, str) else text, bundle)
    said = [str(problem) for problem in raised.value.problems]
    assert all("\n" not in line for line in said)
    return [line.removeprefix("tests.yaml:").strip() for line in said]


def case(text: str, bundle: Bundle) -> Case:
    (only,) = read_cases(text.encode(), bundle)
    return only


def test_what_a_case_does_not_say(bundle: Bundle) -> None:
    """An empty request by nobody in particular, no time of its own, no calls out."""
    least = case(LEAST, bundle)
    assert (least.name, least.line, least.method.name.text) == ("a", 1, "/t.Own/Do")
    assert (least.caller, least.metadata, least.timeout) == (ServiceName("tester"), (), None)
    assert (least.request, least.answers, least.expect, least.failure, least.logs) == (
        b"",
        (),
        (b"",),
        None,
        (),
    )


def test_all_that_a_case_can_say(bundle: Bundle) -> None:
    """Each value is of the type that the rest of the host works with."""
    whole = case(
        """
- name: no
  call: /t.Own/Stream
  as: shop.front
  metadata: {x-a: [one, two], x-b-bin: AAE=}
  timeout: 500ms
  request: {text: on, number: "7", blob: AP8=, notes: [{text: "1"}]}
  answers:
    - {service: other, method: /t.Other/Ask, request: {number: 1}, response: {text: x}}
    - {service: other, method: /t.Other/Watch, responses: [{}, {text: y}], fails: {code: ABORTED}}
    - service: other
      method: /t.Other/Ask
      fails: {code: UNAVAILABLE, message: gone, reason: a/B}
  expect: [{text: "1"}, {}]
  fails: {code: NOT_FOUND, message: none}
  logs: [a part, another]
""",
        bundle,
    )
    assert (whole.name, whole.line, whole.method.name.text) == ("no", 2, "/t.Own/Stream")
    assert (whole.caller, whole.timeout) == (ServiceName("shop.front"), 0.5)
    assert whole.metadata == (("x-a", "one"), ("x-a", "two"), ("x-b-bin", b"\0\1"))
    note: Any = bundle.protos.message("t.Note").FromString(whole.request)
    assert (note.text, note.number, note.blob, note.notes[0].text) == ("on", 7, b"\0\xff", "1")
    ask, watch, gone = whole.answers
    assert (ask.line, ask.request, ask.replies, ask.failure) == (9, b"\x10\x01", (b"\n\x01x",), None)
    assert (watch.request, watch.replies) == (None, (b"", b"\n\x01y"))
    assert watch.failure == Failure(grpc.StatusCode.ABORTED)
    assert (gone.line, gone.replies, gone.failure) == (
        11,
        (),
        Failure(grpc.StatusCode.UNAVAILABLE, "gone", "a/B"),
    )
    assert whole.expect == (b"\n\x011", b"")
    assert whole.failure == Failure(grpc.StatusCode.NOT_FOUND, "none")
    assert whole.logs == ("a part", "another")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"- name: \xff", "not UTF-8: save it as UTF-8"),
        ("", "holds no cases: begin one with - name:"),
        ("[]", "holds no cases: begin one with - name:"),
        ("name: a", "1: has to be a list, [...]"),
        ("- name: [", "2: did not find expected node content"),
        ("- a", "1: has to be a mapping, {key: value}"),
        ("- {name: a, name: b}", "1: 'name' is there twice: remove one"),
        ("- &x {name: a}\n- *x", "1: aliases are not supported: write it out"),
    ],
)
def test_what_is_no_list_of_cases_is_refused(bundle: Bundle, text: str | bytes, said: str) -> None:
    """Read as strictly as a policy."""
    assert said in refused(text, bundle)[0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("expects: {}", "4: unknown key 'expects': use name, call, as"),
        ("as: Front", "4: bad service name 'Front'"),
        ("as: 1", "4: has to be a text: put it into quotes"),
        ("timeout: 1h", "4: '1h' is no time: write it as 500ms, 2s or 1m"),
        ("metadata: {mesh-peer: x}", "4: metadata key 'mesh-peer' belongs to the mesh"),
        ("metadata: {x-a: 1}", "4: has to be a text"),
        ('metadata: {X: "1"}', "4: bad metadata key 'X'"),
        ('metadata: {x-bin: "1"}', "4: x-bin holds bytes: write them as base64"),
        ("request: {txt: x}", '4: message type "t.Note" has no field named "txt"'),
        ("request: {number: 1.5}", "4: failed to parse number field: Couldn't parse integer: 1.5"),
        ("request: {number: 9223372036854775808}", "4: failed to parse number field: Value out of range"),
        ("request: text", "4: a message has to be a mapping, {field: value}"),
        ("request: {notes: [{notes: [{notes: [{notes: [{}]}]}]}]}", "4: t.Note: nested deeper than 4 levels"),
        ("fails: {code: NOT_FOUND}", "4: /t.Own/Do has one reply or fails: remove expect or fails"),
        ("logs: text", "4: has to be a list, [...]"),
        ("answers: [{service: other}]", "4: method is missing: add it"),
        ("answers: [{service: other, method: Ask}]", "4: bad method 'Ask': not /package.Service/Method"),
        (
            "answers: [{service: other, method: /t.Vault/Open}]",
            "4: the manifest does not let this service call",
        ),
        (
            "answers: [{service: third, method: /t.Other/Ask}]",
            "4: the manifest does not let this service call",
        ),
        (
            "answers: [{service: other, method: /t.Other/Ask}]",
            "4: response and fails are both missing: add one",
        ),
        (
            "answers: [{service: other, method: /t.Other/Ask, responses: []}]",
            "4: /t.Other/Ask has one reply: write response",
        ),
        (
            "answers: [{service: other, method: /t.Other/Watch, response: {}}]",
            "4: /t.Other/Watch has many replies: write responses",
        ),
        (
            "answers: [{service: other, method: /t.Other/Ask, response: {}, fails: {code: ABORTED}}]",
            "4: /t.Other/Ask has one reply or fails: remove response or fails",
        ),
    ],
)
def test_a_doubtful_value_is_refused_with_its_line(bundle: Bundle, line: str, said: str) -> None:
    """What could never be sent is an error in the file, and no failed case."""
    told = refused(f"{LEAST}  {line}\n", bundle)
    assert len(told) == 1
    assert told[0].startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- name: a\n  call: Doo\n  expect: {}", "2: 'Doo' is not served: did you mean Do"),
        ("- name: a\n  call: /t.Other/Ask\n  expect: {}", "2: '/t.Other/Ask' is not served"),
        ("- name: a\n  call: Do", "1: expect and fails are both missing: add one"),
        ("- call: Do\n  expect: {}", "1: name is missing: add it"),
        ("- name: a\n  call: Stream\n  expect: {}", "3: has to be a list, [...]"),
        ("- name: a\n  call: Do\n  fails: {code: OK}", "3: no status 'OK'"),
        (
            "- name: a\n  call: Do\n  fails: {code: NOTFOUND}",
            "3: no status 'NOTFOUND': did you mean NOT_FOUND",
        ),
        ("- name: a\n  call: Do\n  fails: {code: ABORTED, text: x}", "3: unknown key 'text'"),
    ],
)
def test_a_case_that_makes_no_sense_is_refused(bundle: Bundle, text: str, said: str) -> None:
    """With the line of what is wrong, or of the case."""
    assert refused(text, bundle)[0].startswith(said)


def test_each_bad_case_is_told(bundle: Bundle) -> None:
    """The good ones between them are not."""
    bad = "- name: b\n  call: No\n  expect: {}\n"
    assert [line.split(":")[0] for line in refused(bad + LEAST + bad, bundle)] == ["2", "8"]


_WORDS = st.sampled_from(
    [
        "name",
        "call",
        "Do",
        "Stream",
        "expect",
        "fails",
        "code",
        "ABORTED",
        "request",
        "text",
        "answers",
        "a",
        "1",
        "~",
    ]
)
_YAML = st.recursive(
    _WORDS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda found: f"[{', '.join(found)}]")
        | st.dictionaries(_WORDS, inner, max_size=4).map(
            lambda found: "{" + ", ".join(f"{key}: {value}" for key, value in found.items()) + "}"
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_YAML.map(lambda one: f"[{one}]".encode()) | st.binary(max_size=60))
def test_any_bytes_are_cases_or_none(bundle: Bundle, document: bytes) -> None:
    """There is no third way out."""
    try:
        found = read_cases(document, bundle)
    except CasesError as error:
        assert error.problems  # noqa: PT017  there may be none
    else:
        assert found
