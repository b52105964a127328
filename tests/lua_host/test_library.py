"""What a manifest may allow is what the sandbox can give."""

from __future__ import annotations

from typing import Any

import pytest

from services.lua_host.library import CORE, FUNCTIONS, MODULES, NEVER, checked_entry
from tests.lua_host.lua.box import Box


def names(table: Any) -> set[str]:
    """Give the keys of a Lua table."""
    return {key.decode() for key in table}


def test_it_is_the_library_of_the_sandbox() -> None:
    """Name by name: an entry that passes here would otherwise end every worker at its start."""
    allowed = Box().parts[b"sandbox"][b"allowed"]
    assert names(allowed[b"core"]) == CORE
    assert names(allowed[b"functions"]) == FUNCTIONS
    assert names(allowed[b"never"]) == NEVER
    modules = allowed[b"modules"]
    assert {name: names(modules[name.encode()]) for name in names(modules)} == MODULES


@pytest.mark.parametrize("entry", ["string", "string.format", "load", "utf8.charpattern", "pairs"])
def test_modules_and_functions_can_be_allowed(entry: str) -> None:
    """What is there in any case can be named, too."""
    assert checked_entry(entry) == entry


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("debug", "'debug' is never allowed"),
        ("debug.traceback", "'debug.traceback' is never allowed"),
        ("string.dump", "'string.dump' is never allowed"),
        ("math.randomseed", "'math.randomseed' is never allowed"),
        ("strings", "there is no 'strings' in Lua's library: did you mean string"),
        ("string.", "there is no 'string.' in Lua's library: did you mean string"),
        ("string.*", "there is no 'string.*' in Lua's library: did you mean string"),
        ("", "there is no '' in Lua's library"),
    ],
)
def test_all_else_cannot(entry: str, said: str) -> None:
    """What is dangerous is told apart from what does not exist."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011  the text is compared
        checked_entry(entry)
    assert str(raised.value).startswith(said)
