"""YAML that people write, read as strictly as JSON.

Only what JSON can say is read: texts, numbers, true, false and null as in YAML 1.2, so ``no``, ``on`` and a
date are texts. A key that comes twice is an error, for one of the two would be lost without a word; so is an
alias, for a handful of them fills any memory; so is a tag, which makes something else of a text. Nodes know
their lines; ``plain`` gives what they say.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import yaml

_TAGS: Final = "tag:yaml.org,2002:"
_STR, _BOOL, _NULL, _INT, _FLOAT = (f"{_TAGS}{kind}" for kind in ("str", "bool", "null", "int", "float"))
#: Plain scalars by the core schema of YAML 1.2 (section 10.3.2), without octal and hexadecimal numbers.
_PLAIN: Final = (
    (_NULL, r"~|null|", ("~", "n", "")),
    (_BOOL, r"true|false", ("t", "f")),
    (_INT, r"[-+]?(?:0|[1-9][0-9]*)", tuple("-+0123456789")),
    (_FLOAT, r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", tuple("-+0123456789")),
)
_STAR: Final = "a text that begins with a star has to stand in quotes"
#: What libyaml says, and PyYAML in Python, by its first words; and what to do about it.
_ADVICE: Final = {
    "found undefined alias": _STAR,
    "did not find expected alphabetic or numeric": f"{_STAR}, and so has one that begins with & or !",
    "expected alphabetic or numeric": f"{_STAR}, and so has one that begins with & or !",
    "found character": "put a text that begins with such a sign into quotes",
    "mapping values are not allowed": "put a text with a colon and a blank in it into quotes",
}
_TAB: Final = ("found character", "found a tab")
_SHIFTED: Final = "the indentation of this line or the one before does not fit the lines above"
#: The same at the beginning of a line, or after its first word: then it is mostly the indentation.
_ADVICE_AT_BEGIN: Final = {
    "did not find expected key": _SHIFTED,
    "did not find expected '-' indicator": _SHIFTED,
    "expected <block end>": _SHIFTED,
    "mapping values are not allowed": f"{_SHIFTED}, or a colon is missing there",
}
_BEGIN: Final = re.compile(r"[ -]*(?:[^\s:'\"]+)?")
#: The deepest nesting of lists and mappings.
MAX_DEPTH: Final = 200
#: libyaml's is twenty times faster; every wheel of PyYAML has it, a build from source may not.
_Parent: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(ValueError):
    """A text that is no YAML, or says what is not read here. Lines and columns count from 1; 0: not known."""

    def __init__(self, problem: str, line: int = 0, column: int = 0) -> None:
        """Take what is wrong, and where."""
        super().__init__(problem)
        self.line, self.column = line, column


class _Loader(_Parent):  # type: ignore[misc]  # either of the two
    """A safe loader that takes plain scalars as YAML 1.2 does."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012  the parent's is a class attribute, too


for _tag, _pattern, _first in _PLAIN:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)


def compose(document: str) -> yaml.Node | None:
    """Read a document as a tree of nodes, ``None`` if there is nothing in it; raise ``YamlError``."""
    try:
        return _composed(document)
    except yaml.MarkedYAMLError as error:
        raise _told(error, document) from None
    except yaml.YAMLError as error:
        raise YamlError(f"not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise YamlError("nested too deeply") from None


def plain(node: yaml.Node) -> Any:
    """Give what a node says: texts, numbers, booleans, ``None``, lists and dicts; raise ``YamlError``."""
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise _told(error) from None
    except RecursionError:
        raise YamlError("nested too deeply") from None
    finally:
        loader.dispose()


def fields(node: yaml.Node, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, yaml.Node]:
    """Give the values of a mapping that has all required keys, and besides these only optional ones."""
    found = members(node)
    known = (*required, *optional)
    for key, value in found.items():
        if key not in known:
            raise wrong(value, f"unknown key {key!r:.80}: use {', '.join(known)}")
    for key in required:
        if key not in found:
            raise wrong(node, f"{key} is missing: add it")
    return found


def members(node: yaml.Node) -> dict[str, yaml.Node]:
    """Give the values of a mapping of any keys."""
    if not isinstance(node, yaml.MappingNode):
        raise wrong(node, "has to be a mapping, {key: value}")
    return {key.value: value for key, value in node.value}


def items(node: yaml.Node) -> list[yaml.Node]:
    """Give the items of a list."""
    if not isinstance(node, yaml.SequenceNode):
        raise wrong(node, "has to be a list, [...]")
    return list(node.value)


def text(node: yaml.Node) -> str:
    """Give a text."""
    if node.tag != _STR:
        raise wrong(node, "has to be a text: put it into quotes")
    value: str = node.value
    return value


def wrong(node: yaml.Node, problem: str) -> YamlError:
    """Give the error of a node."""
    return YamlError(problem, *_place(node.start_mark))


def _composed(document: str) -> yaml.Node | None:
    _check_events(document)
    loader = _Loader(document)
    try:
        node: yaml.Node | None = loader.get_single_node()
    finally:
        loader.dispose()
    if node is not None:
        _check(node)
    return node


def _check_events(document: str) -> None:
    # The composer of libyaml calls itself in C, where nothing but the end of the stack ends it. And of a node
    # it cannot be said any more whether its tag was written.
    depth = 0
    for event in yaml.parse(document, _Loader):
        tag = getattr(event, "tag", None)
        if tag is not None:
            written = tag.replace(_TAGS, "!!")
            raise YamlError(f"tags are not supported: write it without {written}", *_place(event.start_mark))
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise YamlError("nested too deeply", *_place(event.start_mark))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check(root: yaml.Node) -> None:
    met: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in met:
            raise wrong(node, f"aliases are not supported: write it out; {_STAR}")
        met.add(id(node))
        if node.tag in (_INT, _FLOAT) and not math.isfinite(float(node.value)):
            raise wrong(node, "the number is too large: make it shorter")
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            waiting.extend(value for _, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)


def _check_keys(mapping: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in mapping.value:
        if key.tag != _STR:
            raise wrong(key, "a key has to be a text: put it into quotes")
        if key.value in seen:
            raise wrong(key, f"{key.value!r} is there twice: remove one")
        seen.add(key.value)


def _told(error: yaml.MarkedYAMLError, document: str = "") -> YamlError:
    problem = error.problem or "not YAML"
    line, column = _place(error.problem_mark)
    before, after = _around(document, line - 1, column - 1)
    if after.startswith("\t") and problem.startswith(_TAB):
        return YamlError("a tab: indent with blanks", line, column)
    known = _ADVICE | _ADVICE_AT_BEGIN if _BEGIN.fullmatch(before) else _ADVICE
    advice = next((f": {what}" for begin, what in known.items() if problem.startswith(begin)), "")
    return YamlError(problem + advice, line, column)


def _around(document: str, line: int, column: int) -> tuple[str, str]:
    lines = document.splitlines()
    found = lines[line] if 0 <= line < len(lines) else ""
    return found[:column], found[column:]


def _place(mark: Any) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark else (0, 0)
