"""Scripts as people write them have nothing wrong, and what is told of any script is so when it runs.

``scripts`` holds whole ones, each with what it gives in its last line. Others are made by chance: what their
variables hold is a library or something else, in all the shapes that code can have.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lua_host.lua.box import ALL, Box
from tests.lua_host.lua.test_inspect import inspected

BOX = Box()
#: How many statements are no blocks.
SIMPLE = 0.6
SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.lua"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_as_people_write_them(path: Path) -> None:
    """Nothing is wrong with them, and they give in the sandbox what they should."""
    script = path.read_text()
    expected = script.rstrip().rpartition("\n-- gives ")[2]
    assert inspected(script, ALL) == ([], "")
    assert BOX.value(script) == expected


READ = """
local _, parts, text = ...
local main = assert(load(text, "=script", "t"))
-- Lua's own word on which lines have code, for a function and those within: by the line that each is on.
local function lines_of(one)
  local seen = {}
  for at = 0, one.count - 1 do seen[one.lines[at]] = true end
  return seen
end
local read = parts.inspect_bytecode(string.dump(main))
local mine, lua = lines_of(read), debug.getinfo(main, "L").activelines
for line in pairs(lua) do if not mine[line] then return "a line is missing: " .. line end end
for line in pairs(mine) do
  -- Lua does not count where a function takes its arguments.
  if not lua[line] and line ~= read.lines[0] then return "a line is too much: " .. line end
end
return read.count
"""


@pytest.mark.parametrize("gap", [1, 2, 120, 127, 128, 129, 300, 40000])
def test_lines_are_lua_s(gap: int) -> None:
    """Near and far from each other, and by the hundred."""
    script = ("\n" * gap).join(f"local a{number % 100} = f({number})" for number in range(150))
    count = BOX.trusted(READ, BOX.parts, script.encode())
    assert isinstance(count, int), count


WORDS = """
and break do else elseif end false for function goto if in local nil not or repeat return then true until
while + - * / % ^ # & ~ | << >> // == ~= <= >= < > = ( ) { } [ ] :: ; : , . .. ... x y string mesh _ENV 1 2.5
'x' <const> <close> dump mesh.handle
"""


@given(st.lists(st.sampled_from(WORDS.split()), max_size=30))
def test_any_text_is_looked_through(words: list[str]) -> None:
    """Whether it is Lua or not: with lines that it has, and no error of its own."""
    problems, _ = inspected("\n".join(words), ALL)
    assert all(0 <= int(problem.partition(":")[0]) <= len(words) + 1 for problem in problems)


class Maker:
    """A script made by chance: ``see(line, v, v.dump)`` on lines of their own, ``v`` a library or not."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.lines: list[str] = [
            "local see, flip = ...",
            "other = {dump = 1}",
            "local a, b, c = string, other, string",
        ]
        self.names = ["a", "b", "c"]
        self.functions: list[str] = []
        self.labels = 0

    def script(self) -> str:
        """Give one."""
        self._block(4)
        return "\n".join(self.lines)

    def _add(self, line: str) -> None:
        self.lines.append(line)

    def _name(self) -> str:
        return self.random.choice(self.names)

    def _block(self, depth: int) -> None:
        names, functions = list(self.names), list(self.functions)
        for _ in range(self.random.randint(1, 4)):
            self._statement(depth)
        self.names, self.functions = names, functions

    def _statement(self, depth: int) -> None:
        if depth == 0 or self.random.random() < SIMPLE:
            self.random.choice([self._use, self._use, self._use, self._assign, self._declare, self._call])()
            return
        shapes = [
            self._choice,
            self._loop,
            self._repeat,
            self._numeric,
            self._generic,
            self._function,
            self._again,
        ]
        self.random.choice(shapes)(depth - 1)

    def _value(self) -> str:
        return self.random.choice(
            [
                "string",
                "other",
                self._name(),
                f"flip() and string or {self._name()}",
                f"{self._name()} or string",
                "nil or string",
            ]
        )

    def _use(self) -> None:
        name = self._name()
        self._add(f"see({len(self.lines) + 1}, {name}, {name}.dump)")

    def _assign(self) -> None:
        self._add(f"{self._name()} = {self._value()}")

    def _declare(self) -> None:
        name = self.random.choice("abcdef")
        self._add(f"local {name} = {self._value()}")
        self.names.append(name)

    def _call(self) -> None:
        self._add(f"{self.random.choice(self.functions)}()" if self.functions else "flip()")

    def _body(self, head: str, depth: int, tail: str) -> None:
        self._add(head)
        self._block(depth)
        self._add(tail)

    def _choice(self, depth: int) -> None:
        self._body("if flip() then", depth, "else")
        self._block(depth)
        self._add("end")

    def _loop(self, depth: int) -> None:
        self._body("while flip() do", depth, self.random.choice(["if flip() then break end end", "end"]))

    def _repeat(self, depth: int) -> None:
        self._body("repeat", depth, "until flip()")

    def _numeric(self, depth: int) -> None:
        self._body("for i = 1, flip() and 2 or 0 do", depth, "end")

    def _generic(self, depth: int) -> None:
        self._body("for _ in next, {1, 2} do", depth, "end")

    def _function(self, depth: int) -> None:
        name = self.random.choice("fgh")
        self._body(f"local function {name}()", depth, "end")
        self.functions.append(name)

    def _again(self, depth: int) -> None:
        self.labels += 1
        self._body(f"do ::l{self.labels}::", depth, f"if flip() then goto l{self.labels} end end")


RUN = """
local observer, text, state = ...
local run = assert(load(text, "=script", "t", {string = string, next = next, nothing = nil}))
local told, left = {}, 300
local function flip()
  left = left - 1
  if left < 0 then error("enough", 0) end
  state = (state * 6364136223846793005 + 1442695040888963407) & math.maxinteger
  return (state >> 33) % 3 == 0
end
pcall(run, function(line, value) if value ~= string then told[line] = true end end, flip)
local lines = {}
for line in pairs(told) do lines[#lines + 1] = line end
return table.concat(lines, " ")
"""


def test_what_is_told_is_so() -> None:
    """Of a line that is said to use a library, no run ever sees it use anything else; and much is told."""
    told = 0
    for seed in range(400):
        script = Maker(seed).script()
        problems, _ = inspected(script, ALL)
        assert all(problem.endswith(": string.dump is never there for a script") for problem in problems), (
            script
        )
        lines = {int(problem.partition(":")[0]) for problem in problems}
        told += len(lines)
        for state in range(5):
            others = BOX.trusted(RUN, script.encode(), state).decode().split()
            assert lines.isdisjoint(map(int, others)), script
    assert told > 400
