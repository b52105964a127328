"""YAML as far as JSON goes, strictly, and with the place of everything that is wrong.

Only what JSON can say is read: texts, numbers, true, false and null as in YAML 1.2, so ``no``, ``on`` and a
date are texts. A key that comes twice is an error, for one of the two would be lost without a word; so is an
alias, for a handful of them fills any memory. Every error is one line: file, line, column, what to do.
"""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from mesh.cli.errors import CliError, Exit
from mesh.core.document import MAX_DOCUMENT

_STR, _MAP, _SEQ, _BOOL, _NULL, _INT, _FLOAT = (
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq", "bool", "null", "int", "float")
)
_KNOWN: Final = {_STR, _MAP, _SEQ, _BOOL, _NULL, _INT, _FLOAT}
#: Plain scalars by the core schema of YAML 1.2 (section 10.3.2), without octal and hexadecimal numbers.
_PLAIN: Final = (
    (_NULL, r"~|null|", ("~", "n", "")),
    (_BOOL, r"true|false", ("t", "f")),
    (_INT, r"[-+]?(?:0|[1-9][0-9]*)", tuple("-+0123456789")),
    (_FLOAT, r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", tuple("-+0123456789")),
)
#: libyaml's is twenty times faster; every wheel of PyYAML has it, a build from source may not.
_Parent: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Parent):  # type: ignore[misc]  # either of the two
    """A safe loader that takes plain scalars as YAML 1.2 does."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012  the parent's is a class attribute, too


for _tag, _pattern, _first in _PLAIN:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)


def read_text(name: str) -> str:
    """Read a file, or standard input for ``-``; raise ``CliError``."""
    try:
        document = sys.stdin.buffer.read(MAX_DOCUMENT + 1) if name == "-" else _start_of(Path(name))
        text = document.decode()
    except OSError as error:
        raise CliError(f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CliError(f"{name}: not UTF-8: save it as UTF-8", Exit.REFUSED) from None
    if len(document) > MAX_DOCUMENT:
        raise CliError(f"{name}: larger than {MAX_DOCUMENT} bytes: use wildcards", Exit.REFUSED)
    return text


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector off what grows by millions of objects and has no circles: much faster."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextmanager
def one_line(name: str) -> Iterator[None]:
    """Turn whatever is wrong with the YAML of a file into one line with its place."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise CliError(f"{where}: {error.problem or 'not YAML'}", Exit.REFUSED) from None
    except (yaml.YAMLError, ValueError) as error:
        raise CliError(f"{name}: not YAML: {' '.join(str(error).split())}", Exit.REFUSED) from None
    except RecursionError:
        raise CliError(f"{name}: nested too deeply: see docs/policy.md", Exit.REFUSED) from None


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_DOCUMENT + 1)


def load_yaml(text: str) -> tuple[Any, object]:
    """Give the node at the root, which knows the places, and the value; raise ``yaml.YAMLError``."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise yaml.MarkedYAMLError(problem="is empty: see docs/policy.md")
        _check(node)
        return node, loader.construct_document(node)
    finally:
        loader.dispose()


def _check(root: Any) -> None:
    met, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if id(node) in met:
            raise _problem(node, "aliases are not supported: write it out")
        met.add(id(node))
        if node.tag not in _KNOWN:
            raise _problem(node, f"{node.tag} is not supported: use texts, numbers, lists and mappings")
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            waiting.extend(value for _, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)


def _check_keys(mapping: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in mapping.value:
        if key.tag != _STR:
            raise _problem(key, "a key has to be a text: put it into quotes")
        if key.value in seen:
            raise _problem(key, f"{key.value!r} is there twice: remove one")
        seen.add(key.value)


def _problem(node: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
