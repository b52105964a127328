"""``mesh lua new``, ``check`` and ``test``: from nothing to a service that is known to work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner, Result

from mesh.cli import bundles, cli
from mesh.cli.errors import Exit
from services.lua_host.worker import NotJailedError, Worker

HELLO = """\
mesh.handle("Hello", function(request, context)
  {}
end)
"""


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["lua", *map(str, arguments)])


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a service, ``shop`` in the current directory."""
    monkeypatch.chdir(tmp_path)
    assert invoke("new", "shop").exit_code == 0
    return Path("shop")


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def body(directory: Path, lines: str) -> None:
    """Give the service another handler."""
    (directory / "shop.lua").write_text(HELLO.format(lines))


# new ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shop", "billing.big-ledger", "hello-request", "message.rpc.service"])
def test_a_new_service_runs_as_it_is(tmp_path: Path, name: str) -> None:
    """Whatever its name: nothing is wrong with it, and its tests pass."""
    directory = tmp_path / "deep" / "down"
    result = invoke("new", name, "--dir", directory)
    assert result.exit_code == 0, result.output
    checked = invoke("check", directory)
    assert (checked.exit_code, checked.stdout, checked.stderr) == (0, f"ok: {name}\n", "")
    tested = invoke("test", directory)
    assert tested.exit_code == 0, tested.output
    assert tested.stdout.endswith("\n2 passed, 0 failed\n")


def test_what_is_made_is_told_with_what_to_do_next(made: Path) -> None:
    """Where it is, a policy for it, and the next commands."""
    said = invoke("new", "other").stdout
    assert "other holds a service that runs: service.toml, other.lua, other.proto, tests.yaml" in said
    assert 'paths: ["/other.v1.OtherService/*"]' in said
    assert re.findall(r"^  mesh lua .*$", said, re.MULTILINE) == [
        f"  mesh lua {command} other" for command in ("check", "test", "run")
    ]
    assert sorted(path.name for path in made.iterdir()) == [
        "service.toml",
        "shop.lua",
        "shop.proto",
        "tests.yaml",
    ]


def test_nothing_is_overwritten(made: Path) -> None:
    """Not one file, and nothing is written beside it."""
    for path in ("service.toml", "shop.proto", "tests.yaml"):
        (made / path).unlink()
    (made / "shop.lua").write_text("mine")
    result = invoke("new", "shop")
    assert result.exit_code == Exit.FAILED
    assert "shop/shop.lua is there already: nothing was written, choose another --dir" in result.stderr
    assert [path.name for path in made.iterdir()] == ["shop.lua"]
    assert (made / "shop.lua").read_text() == "mine"


@pytest.mark.parametrize("name", ["Shop", "mesh.auth", "a/b", ""])
def test_a_bad_name_is_no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Status 2, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    assert invoke("new", name).exit_code == Exit.USAGE
    assert list(tmp_path.iterdir()) == []


# check ----------------------------------------------------------------------------------------------------


def problems(directory: Path) -> list[str]:
    """Give what is wrong, without the directory."""
    result = invoke("check", directory)
    assert result.exit_code == Exit.REFUSED, result.output
    lines = result.stdout.splitlines()
    assert all(line.startswith(f"{directory}/") for line in lines)
    return [line.removeprefix(f"{directory}/") for line in lines]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x = = 1", "2: unexpected symbol near '='"),
        ("return os.time()", "2: os"),
        ('return string.format("%d", 1)', "2: string.format is not in allow"),
        ("return undefined", "2: there is no global undefined"),
        ('return mesh.cal("a", "/b.C/D", {})', "2: there is no mesh.cal"),
        ('return mesh.call("a", "/b.C/D", {})', "2: the manifest does not let this service call a"),
        ('mesh.handle("Bye", nil)', "2: no method Bye in what this service serves"),
    ],
)
def test_a_script_is_looked_at_without_being_run(made: Path, line: str, said: str) -> None:
    """Each finding has its line."""
    body(made, line)
    (told,) = problems(made)
    assert told.startswith(f"shop.lua:{said}")


def test_a_script_that_would_never_end_is_looked_at(made: Path) -> None:
    """It is not run, after all."""
    with (made / "shop.lua").open("a") as file:
        file.write("while true do end\n")
    assert invoke("check", made).exit_code == 0


def test_a_method_without_a_handler_is_a_problem(made: Path) -> None:
    """If it is certain; a name that the script makes up may be the one."""
    (made / "shop.lua").write_text("")
    assert problems(made) == ["shop.lua: nothing handles /shop.v1.ShopService/Hello: add mesh.handle"]
    (made / "shop.lua").write_text('local o = "o"\nmesh.handle("Hell" .. o, function() end)')
    result = invoke("check", made)
    assert (result.exit_code, result.stdout) == (0, "ok: shop\n")
    assert result.stderr == "note: perhaps nothing handles /shop.v1.ShopService/Hello\n"


def test_everything_is_told_at_once(made: Path) -> None:
    """Of the manifest and the protos first; then of the script and the tests."""
    rewrite(made / "service.toml", "allow = []", 'alow = []\nstate = "warm"')
    assert [line.partition(": ")[0] for line in problems(made)] == ["service.toml:8", "service.toml:9"]
    rewrite(made / "service.toml", 'alow = []\nstate = "warm"', "")
    body(made, "return nothing")
    rewrite(made / "tests.yaml", "request: {name: world}", "request: {nam: world}")
    assert [line.partition(": ")[0] for line in problems(made)] == ["shop.lua:2", "tests.yaml:4"]


def test_a_service_needs_no_tests(made: Path) -> None:
    """It is good without; there is nothing to try then."""
    (made / "tests.yaml").unlink()
    assert invoke("check", made).exit_code == 0
    result = invoke("test", made)
    assert (result.exit_code, result.stdout) == (Exit.REFUSED, "shop/tests.yaml: no such file\n")


def test_protos_may_be_elsewhere(made: Path) -> None:
    """Where -I says."""
    (made / "shop.proto").rename("shop.proto")
    assert "or say with -I where it is" in problems(made)[0]
    assert invoke("check", made, "-I", ".").exit_code == 0
    assert invoke("test", made, "-I", ".").exit_code == 0


def test_without_a_jail_it_is_said_loudly(made: Path) -> None:
    """On every start."""
    for command in ("check", "test"):
        result = invoke(command, made, "--unsafe-no-jail")
        assert result.exit_code == 0, result.output
        assert "WARNING: NO JAIL" in result.stderr


def test_a_missing_layer_is_told(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the script has run then; status 1, for nothing is wrong with the service."""

    async def refuse(*_: object) -> NoReturn:
        raise NotJailedError("a layer of the jail is missing: landlock: no such thing")

    monkeypatch.setattr(Worker, "spawn", refuse)
    for command in ("check", "test"):
        result = invoke(command, made)
        assert (result.exit_code, result.stdout) == (Exit.FAILED, "")
        assert "a layer of the jail is missing: landlock: no such thing: see docs/lua.md" in result.stderr


@pytest.mark.parametrize("missing", ["lupa", "grpc_tools"])
def test_what_is_not_installed_is_told(made: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """With how to get it; a new service can be made in any case."""
    monkeypatch.setattr(bundles, "find_spec", lambda name: None if name == missing else name)
    for command in ("check", "test"):
        result = invoke(command, made)
        assert result.exit_code == Exit.FAILED
        assert "Lua is not installed here: pip install 'sealmesh[lua]'" in result.stderr


# test -----------------------------------------------------------------------------------------------------


def failed(directory: Path) -> str:
    """Give what is told of the first case, which fails."""
    result = invoke("test", directory)
    assert result.exit_code == Exit.FAILED, result.output
    first, _, _ = result.stdout.partition("\nok  ")
    assert first.startswith("FAIL  a greeting names both\n")
    return first


def only(directory: Path, more: str) -> None:
    """Give the service tests whose first case has these lines besides its expectation."""
    case = (
        '- name: a greeting names both\n  call: Hello\n  request: {name: world}\n  expect: {text: "hello"}\n'
    )
    last = "- name: another\n  call: Hello\n  expect: {text: hello}\n"
    (directory / "tests.yaml").write_text(case + more + last)


CALLS = """\

[calls]
stock = ["/shop.v1.ShopService/Hello"]
"""
#: The beginning of an answer.
ANSWER = "{service: stock, method: /shop.v1.ShopService/Hello"


@pytest.fixture
def calling(made: Path) -> Path:
    """Let the service call another one for its greetings."""
    body(
        made,
        'if request.name == "" then return {text = "hello"} end\n'
        '  return mesh.call("stock", "/shop.v1.ShopService/Hello", {name = request.name .. "!"})',
    )
    with (made / "service.toml").open("a") as file:
        file.write(CALLS)
    return made


def test_another_answer_is_shown_beside_the_expected_one(made: Path) -> None:
    """As a difference of what one would write."""
    rewrite(made / "shop.lua", '"hello "', '"hi "')
    said = failed(made)
    assert "another answer than expected:" in said
    assert "-- text: hello world, from visitor" in said
    assert "+- text: hi world, from visitor" in said


def test_an_unexpected_failure_is_told_with_its_cause(made: Path) -> None:
    """What a caller sees, what the script logged, and its traceback."""
    body(made, 'mesh.log.info("so far") local none = nil\n  return none.text')
    said = failed(made)
    assert "came to UNKNOWN (the script failed: see the service's log), not to OK" in said
    assert "log: so far" in said
    assert "shop.lua:3: attempt to index a nil value (local 'none')" in said


def test_another_failure_is_told(made: Path) -> None:
    """Status and text are what a case can ask for."""
    rewrite(made / "tests.yaml", 'expect: {text: "hello world, from visitor"}', "fails: {code: NOT_FOUND}")
    assert "came to OK, not to NOT_FOUND" in failed(made)
    body(made, 'mesh.fail("NOT_FOUND", "who")')
    rewrite(made / "tests.yaml", "{code: NOT_FOUND}", "{code: NOT_FOUND, message: whom}")
    assert "failed with 'who', not with 'whom'" in failed(made)


def test_a_log_line_that_does_not_come_is_told(made: Path) -> None:
    """A case asks for parts of lines."""
    rewrite(made / "tests.yaml", "visitor has world greeted", "nobody has")
    said = failed(made)
    assert "nothing logged with 'nobody has'" in said
    assert "log: visitor has world greeted" in said


def test_calls_get_their_answers(calling: Path) -> None:
    """In order, whatever the request if the case does not say."""
    for request in ("", 'request: {name: "world!"}, '):
        only(calling, f"  answers: [{ANSWER}, {request}response: {{text: hello}}}}]\n")
        result = invoke("test", calling)
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "a call to stock /shop.v1.ShopService/Hello, and no answer for it"),
        (
            "request: {name: x}, response: {text: hello}",
            "another request to stock /shop.v1.ShopService/Hello than line 5 has:",
        ),
        ("fails: {code: UNAVAILABLE, message: gone}", "came to UNKNOWN"),
    ],
)
def test_a_wrong_call_fails_the_case(calling: Path, answer: str, said: str) -> None:
    """One that the case does not have, or another one than it has."""
    only(calling, f"  answers: [{ANSWER}, {answer}}}]\n" if answer else "")
    assert said in failed(calling)


def test_a_call_that_does_not_come_fails_the_case(calling: Path) -> None:
    """Its answer is left over."""
    answer = f"  - {ANSWER}, response: {{text: hello}}}}\n"
    only(calling, f"  answers:\n{answer * 2}")
    assert "no call to stock /shop.v1.ShopService/Hello, as line 7 has it" in failed(calling)


def test_a_script_that_does_not_load_fails_before_any_case(made: Path) -> None:
    """With its line, and the status of a service that is none."""
    (made / "shop.lua").write_text('local none = nil\nnone.handle("Hello")')
    result = invoke("test", made)
    assert (result.exit_code, result.stdout) == (Exit.REFUSED, "")
    assert "shop/shop.lua:2: attempt to index a nil value (local 'none')" in result.stderr


def test_a_service_that_is_none_is_not_tried(made: Path) -> None:
    """One problem is told, with where to learn of the others."""
    rewrite(made / "service.toml", "allow = []", "allow = 1\nstate = 1")
    result = invoke("test", made)
    assert (result.exit_code, result.stdout) == (Exit.REFUSED, "")
    assert "shop/service.toml:8: allow has to be a list" in result.stderr
    assert "(and 1 more: see mesh lua check shop)" in result.stderr


def test_cases_that_make_no_sense_are_not_tried(made: Path) -> None:
    """They are told as by check."""
    rewrite(made / "tests.yaml", "call: Hello", "call: Helo")
    result = invoke("test", made)
    assert result.exit_code == Exit.REFUSED
    places = [line.partition(": ")[0] for line in result.stdout.splitlines()]
    assert places == ["shop/tests.yaml:2", "shop/tests.yaml:9"]
