"""``service.toml``: what it says, its defaults and bounds, and every mistake in it at once with its line."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.names import FullMethod, ServiceName
from services.lua_host.limits import LIMITS, Limits, cap, seconds
from services.lua_host.manifest import Grant, Manifest, ManifestError
from services.lua_host.problems import Problem
from services.lua_host.shapes import MAX_DEPTH

LEAST = """\
name = "pricing"
script = "pricing.lua"
protos = ["pricing.proto"]
serves = ["shop.v1.Pricing"]
"""
WHOLE = """\
name = "shop.pricing"
script = "lua/pricing.lua"
protos = ["pricing.proto", "inventory.binpb"]
includes = [".", "imports"]
serves = ["shop.v1.Pricing"]
allow = ["string", "table.concat", "load"]
state = "kept"

[calls]
inventory = ["/shop.v1.Inventory/Check", "/shop.v1.Inventory/Levels"]
"billing.ledger" = ["/shop.v1.Ledger/Post"]

[limits]
deadline = "1.5s"
memory = "1GiB"
message = "16MiB"
depth = 1
calls_per_request = 0
calls_per_second = 1
logs_per_second = 1
workers = 1
calls_per_worker = 1
"""


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(ManifestError) as raised:
        Manifest.parse(text if isinstance(text, bytes) else text.encode())
    said = [str(problem) for problem in raised.value.problems]
    assert all("\n" not in line for line in said)
    return [line.removeprefix("service.toml:").strip() for line in said]


def told(text: bytes) -> tuple[Problem, ...]:
    """Give what is wrong with a manifest, nothing if it is good."""
    try:
        Manifest.parse(text)
    except ManifestError as error:
        return error.problems
    return ()


def with_line(line: str) -> str:
    """Give a manifest with one more line, the first."""
    return f"{line}\n{LEAST}"


def limits(text: str) -> Limits:
    return Manifest.parse(f"{LEAST}{text}".encode()).limits


def test_all_that_a_manifest_can_say() -> None:
    """Each value is of the type that the rest of the host works with."""
    manifest = Manifest.parse(WHOLE.encode())
    assert manifest.name == ServiceName("shop.pricing")
    assert (manifest.script, manifest.protos) == ("lua/pricing.lua", ("pricing.proto", "inventory.binpb"))
    assert (manifest.includes, manifest.serves) == ((".", "imports"), ("shop.v1.Pricing",))
    assert (manifest.allow, manifest.kept) == (("string", "table.concat", "load"), True)
    check, levels = FullMethod("/shop.v1.Inventory/Check"), FullMethod("/shop.v1.Inventory/Levels")
    assert manifest.calls == (
        Grant(ServiceName("inventory"), (check, levels)),
        Grant(ServiceName("billing.ledger"), (FullMethod("/shop.v1.Ledger/Post"),)),
    )
    assert manifest.limits == Limits(1.5, 2**30, 2**24, 1, 0, 1, 1, 1, 1)


def test_what_is_not_said_is_the_least() -> None:
    """Nothing is allowed, nothing may be called, nothing is kept."""
    manifest = Manifest.parse(LEAST.encode())
    assert (manifest.allow, manifest.calls, manifest.kept, manifest.includes) == ((), (), False, (".",))
    assert manifest.limits == Limits(1.0, 2**24, 2**20, 32, 16, 200, 50, 2, 0)


def test_what_is_kept_is_in_one_worker() -> None:
    """That is the default then, and more are refused."""
    assert Manifest.parse(with_line('state = "kept"').encode()).limits.workers == 1
    said = problems(with_line('state = "kept"') + "[limits]\nworkers = 2\n")
    assert said == ['7: workers has to be 1 with state = "kept": what is kept is in one worker']


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = \n", "1: not TOML: Invalid value"),
        ('name = "a"\nname = "b"\n', "2: not TOML: Cannot overwrite a value"),
        ("a = '''\n\n", "2: not TOML: Expected \"'''\""),
        (b'name = "a"\nscript = "\xff"', "2: not UTF-8: save it as UTF-8"),
        ("a = " + "[" * 9000 + "]" * 9000, "not TOML: nested too deeply"),
        ("#" * 300_000, "300000 bytes are too many: use at most 262144"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(text: str | bytes, said: str) -> None:
    """There is one problem then, and no other."""
    assert problems(text) == [said]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('calls_ = "x"', "1: unknown key 'calls_': did you mean calls"),
        ("includes = []\nlimits = 3", "2: limits has to be a table, [limits], not a number"),
        ("allow = 'string'", "1: allow has to be a list, [...], not a text"),
        ("allow = [1]", "1: allow: 1 is no text: put it into quotes"),
        ('allow = [\n"string",\n"io"]', "3: allow: 'io' is never allowed"),
        ('allow = ["string.dump"]', "1: allow: 'string.dump' is never allowed"),
        ('allow = ["os.exit"]', "1: allow: 'os.exit' is never allowed"),
        ('allow = ["table.concatenate"]', "did you mean table.concat"),
        ('allow = ["math", "math"]', "1: allow: 'math' is there twice: remove one"),
        ("state = true", "1: state: True is no text: put it into quotes"),
        ('state = "warm"', '1: state: \'warm\' is neither "fresh" nor "kept"'),
        ('includes = ["../up"]', "1: includes: '../up' is no file in the directory"),
        ('includes = ["/abs"]', "1: includes: '/abs' is no file in the directory"),
        ("when = 2026-01-01", "1: unknown key 'when'"),
        ("allow = 2026-01-01", "1: allow has to be a list, [...], not a date or a time"),
    ],
)
def test_a_doubtful_key_is_told_with_its_line(line: str, said: str) -> None:
    """In a list, with the line of the entry."""
    assert any(said in told for told in problems(with_line(line)))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("name", '"Pricing"', "1: name: bad service name 'Pricing'"),
        ("name", '"mesh.auth"', "1: name: 'mesh.auth' belongs to the mesh"),
        ("script", '"../pricing.lua"', "2: script: '../pricing.lua' is no file in the directory"),
        ("script", '"a/../b.lua"', "2: script: 'a/../b.lua' is no file"),
        ("script", '"/etc/passwd"', "2: script: '/etc/passwd' is no file"),
        ("script", '"a:3.lua"', "2: script: 'a:3.lua' is no file"),
        ("script", '""', "2: script: '' is no file"),
        ("script", '"x\\ny"', "2: script: 'x\\ny' is no file"),
        ("protos", "[]", "3: protos is empty: name at least one"),
        ("protos", '["pricing.txt"]', "3: protos: 'pricing.txt' is neither a .proto file nor a .binpb file"),
        ("protos", '["../x.proto"]', "3: protos: '../x.proto' is no file in the directory"),
        ("serves", "[]", "4: serves is empty: name at least one"),
        ("serves", '["shop.v1/Pricing"]', "4: serves: 'shop.v1/Pricing' is no gRPC service"),
    ],
)
def test_a_value_that_has_to_be_there_is_judged(key: str, value: str, said: str) -> None:
    """A path that leads out of the directory is none."""
    lines = [f"{key} = {value}" if line.startswith(key) else line for line in LEAST.splitlines()]
    assert any(told.startswith(said) for told in problems("\n".join(lines)))


def test_all_that_is_missing_is_told() -> None:
    """There is no line to blame."""
    missing = [f"1: {key} is missing: add it" for key in ("name", "protos", "script", "serves")]
    assert problems("") == missing


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'inventory = ["/shop/Check", "Check"]',
            "6: inventory: bad method 'Check': not /package.Service/Method",
        ),
        ("inventory = []", "6: inventory is empty: name at least one"),
        ('Inventory = ["/s/C"]', "6: Inventory: bad service name 'Inventory'"),
        ('"mesh.auth" = ["/mesh.v1.AuthService/Renew"]', "6: mesh.auth: 'mesh.auth' is a part of the mesh"),
        (
            'billing.ledger = ["/s/C"]',
            "6: billing has to be a list of methods: a name with a dot stands in quotes",
        ),
        ('inventory = ["/s/C", "/s/C"]', "6: inventory: '/s/C' is there twice: remove one"),
    ],
)
def test_calls_are_judged(text: str, said: str) -> None:
    """Services by their names in the mesh, methods by their full names."""
    (told,) = problems(f"{LEAST}[calls]\n{text}\n")
    assert told.startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('deadline = "1h"', "6: deadline: '1h' is no time: write it as 500ms, 2s or 1m"),
        ("deadline = 1", "6: deadline: 1 is no text: put it into quotes"),
        ('memory = "16MB"', "6: memory: '16MB' is no size: write it as 64KiB, 16MiB or 1GiB"),
        ("workers = true", "6: workers has to be a whole number, not true or false"),
        ("workers = 1.0", "6: workers has to be a whole number, not a number"),
        ("worker = 1", "6: unknown key 'worker': did you mean workers"),
        ('message = "8MiB"', "6: message has to be at most a quarter of memory"),
    ],
)
def test_limits_are_judged(text: str, said: str) -> None:
    """Times and sizes are texts with a unit, all else is a whole number."""
    (told,) = problems(f"{LEAST}[limits]\n{text}\n")
    assert told.startswith(said)


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_has_bounds(name: str) -> None:
    """They are good themselves; what lies just outside is refused."""
    bound = LIMITS[name]

    def said(number: float) -> str:
        """Tell what comes of a value that is given in the limit's smallest unit."""
        written = (
            f"{number:.0f}"
            if bound.read is None
            else f'"{number:.0f}{"ms" if bound.read is seconds else "B"}"'
        )
        others = (
            '\nmemory = "1GiB"' if name == "message" else '\nmessage = "1KiB"' if name == "memory" else ""
        )
        try:
            found = limits(f"[limits]\n{name} = {written}{others}\n")
        except ManifestError as error:
            return error.problems[0].text
        assert getattr(found, name) == pytest.approx(number / scale)
        return "good"

    scale = 1000 if bound.read is seconds else 1
    least, most = (bound.value(end) * scale for end in (bound.least, bound.most))
    outside = f"{name} has to lie between {bound.least} and {bound.most}"
    assert said(least) == said(most) == "good"
    assert said(most + 1) == outside
    if least > 0:
        assert said(least - 1) == outside


def test_no_deeper_than_is_checked() -> None:
    """A manifest may ask for no more levels than the host can look into."""
    assert LIMITS["depth"].most == MAX_DEPTH


def test_an_operator_may_lower_limits() -> None:
    """Each to his own maximum; 0 for an endless life is above every number."""
    asked = limits('[limits]\ndeadline = "5s"\nworkers = 8\n')
    lowered = asked.within({"deadline": 2.0, "workers": 16, "calls_per_worker": 100})
    assert lowered == replace(asked, deadline=2.0, calls_per_worker=100)
    assert lowered.within({"calls_per_worker": 1000}) == lowered
    with pytest.raises(KeyError):
        asked.within({"dead_line": 1})


def test_a_cap_is_written_as_the_limit_is() -> None:
    """Within the same bounds; a message is capped with the memory that it needs."""
    caps = dict(map(cap, ["memory=4MiB", "deadline=500ms", "workers=1"]))
    asked = Manifest.parse(WHOLE.encode()).limits
    assert asked.within(caps) == replace(asked, memory=2**22, message=2**20, deadline=0.5, workers=1)


@pytest.mark.parametrize(
    "text", ["memory", "memory=1", "memory=2MiB", "workers=x", "workers=0", "worker=1", "=1"]
)
def test_a_bad_cap_is_refused(text: str) -> None:
    """Not taken for another."""
    with pytest.raises(ValueError, match=r"."):
        cap(text)


def test_a_problem_found_later_has_a_line_too() -> None:
    """Of a key, of an entry in it, or of the closest that is there."""
    manifest = Manifest.parse(WHOLE.encode())
    assert manifest.problem("x", "serves").line == 5
    assert manifest.problem("x", "calls", "inventory", item="/shop.v1.Inventory/Levels").line == 10
    assert manifest.problem("x", "calls", "billing.ledger").line == 11
    assert manifest.problem("x", "calls", "nobody").line == 9
    assert str(manifest.problem("x", "state")) == "service.toml:7: x"


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_a_manifest_or_none(text: bytes) -> None:
    """There is no third way out, and each problem is a line."""
    assert all(problem.line >= 0 for problem in told(text))


_VALUES = st.recursive(
    st.sampled_from(['"a"', "1", "true", "1.5", "2026-01-01", '"/a.B/C"', '"1s"', '"string"', "inf", "nan"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda found: f"[{', '.join(found)}]")
        | st.dictionaries(st.sampled_from(["a", "b", '"c.d"']), inner, max_size=2).map(
            lambda found: "{" + ", ".join(f"{key} = {value}" for key, value in found.items()) + "}"
        )
    ),
    max_leaves=5,
)


_KEYS = ["name", "script", "protos", "includes", "serves", "allow", "state", "calls", "limits"]


@given(st.dictionaries(st.sampled_from(_KEYS), _VALUES))
def test_any_value_of_any_key_is_good_or_told(values: dict[str, str]) -> None:
    """A wrong type is a problem like every other."""
    text = "\n".join(f"{key} = {value}" for key, value in values.items())
    assert all("\n" not in problem.text for problem in told(text.encode()))
