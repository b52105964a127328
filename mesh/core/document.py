"""Strict reading of JSON documents that people write: nothing doubtful passes, every error says where.

JSON (RFC 8259) in UTF-8, without what Python would take besides: NaN, other encodings, a key twice.
A reader walks down with the path of where it is, such as ``policy.services.orders.allow[0]``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Final, NoReturn, TypeAlias, TypeVar

_T = TypeVar("_T")

MAX_DOCUMENT: Final = 10 * 1024 * 1024

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,80}")


class PolicyError(ValueError):
    """A document that is no policy: ``<path of field>: <what is wrong, what to do>``."""

    def __init__(
        self, path: str, wrong: str, key: str | None = None, within: tuple[int, int] | None = None
    ) -> None:
        """Take the path of the field and the text about it; which key it is; where in its text, from 1."""
        super().__init__(f"{path}: {wrong}")
        self.path, self.key, self.within = path, key, within


class TextError(ValueError):
    """What is wrong in a text, and at which line and column of it, from 1."""

    def __init__(self, wrong: str, line: int, column: int) -> None:
        """Take the text about it, and where it is."""
        super().__init__(wrong)
        self.within = line, column


class Object:
    """A JSON object as it was written, with what a dict would hide: keys that come twice."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        """Take keys and values in their order."""
        self.pairs = pairs


#: What a document is made of.
Node: TypeAlias = object


def load(at: str, document: bytes | str) -> Node:
    """Read a document of at most 10 MiB; raise ``PolicyError``."""
    if len(document) > MAX_DOCUMENT:
        raise PolicyError(at, f"{len(document)} bytes are too many: use at most {MAX_DOCUMENT}")
    try:
        text = document if isinstance(document, str) else document.decode()
        return json.loads(text, object_pairs_hook=Object, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise PolicyError(at, "not UTF-8: save it as UTF-8") from None
    except RecursionError:
        raise PolicyError(at, "nested too deeply: see docs/policy.md") from None
    except ValueError as error:
        raise PolicyError(at, f"not JSON: {error}") from None


def dump(data: Node) -> bytes:
    """Give canonical JSON: sorted keys, no spaces, ASCII."""
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def members(at: str, node: Node) -> dict[str, Node]:
    """Give the members of an object."""
    if not isinstance(node, Object):
        raise PolicyError(at, f"has to be an object, {{...}}, not {_kind(node)}")
    seen: dict[str, Node] = {}
    for key, value in node.pairs:
        if key in seen:
            raise PolicyError(_below(at, key), f"{key!r:.80} is there twice: remove one", key)
        seen[key] = value
    return seen


def fields(at: str, node: Node, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Node]:
    """Give the members of an object that has all required, and no other than these and the optional ones."""
    found = members(at, node)
    known = (*required, *optional)
    for key in found:
        if key not in known:
            raise PolicyError(_below(at, key), f"unknown field {key!r:.80}: use {', '.join(known)}", key)
    for key in required:
        if key not in found:
            raise PolicyError(_below(at, key), "is missing: add it")
    return found


def items(at: str, node: Node) -> list[tuple[str, Node]]:
    """Give the items of a list, each with its path."""
    if not isinstance(node, list):
        raise PolicyError(at, f"has to be a list, [...], not {_kind(node)}")
    return [(f"{at}[{index}]", item) for index, item in enumerate(node)]


def some(at: str, node: Node) -> list[tuple[str, Node]]:
    """Give the items of a list that has any."""
    found = items(at, node)
    if not found:
        raise PolicyError(at, "is empty: add an entry, or remove what it stands in")
    return found


def text(at: str, node: Node) -> str:
    """Give a text."""
    if not isinstance(node, str):
        quoted = "" if isinstance(node, (Object, list)) else ": put it into quotes"
        raise PolicyError(at, f"has to be a text, not {_kind(node)}{quoted}")
    return node


def checked(at: str, node: Node, parse: Callable[[str], _T]) -> _T:
    """Give what a text is parsed to; where ``parse`` refuses it with ``ValueError``, that with its place."""
    plain = text(at, node)
    try:
        return parse(plain)
    except TextError as error:
        raise PolicyError(at, str(error), within=error.within) from None
    except ValueError as error:
        raise PolicyError(at, str(error)) from None


def texts(at: str, node: Node, parse: Callable[[str], str]) -> tuple[str, ...]:
    """Give the texts of a list that has any, each as ``parse`` gives it back or refuses it."""
    return tuple(checked(place, item, parse) for place, item in some(at, node))


def count(at: str, node: Node, most: int, least: int = 1) -> int:
    """Give a whole number from ``least`` to ``most``."""
    # Not isinstance: to Python, true is the number 1.
    if type(node) is not int:
        raise PolicyError(at, f"has to be a whole number, not {_kind(node)}")
    if not least <= node <= most:
        raise PolicyError(at, f"has to lie between {least} and {most}")
    return node


def once(at: str, names: Iterable[str], what: str) -> None:
    """Raise ``PolicyError`` if a name comes twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise PolicyError(at, f"{what} {name!r} is there twice: use each once")
        seen.add(name)


def _below(at: str, key: str) -> str:
    # A key may be anything; only a plain one is fit to stand in a path.
    return f"{at}.{key}" if _PLAIN.fullmatch(key) else at


def _no_constant(constant: str) -> NoReturn:
    msg = f"{constant} is no value of JSON"
    raise ValueError(msg)


def _kind(node: Node) -> str:
    names = {Object: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    kind: str = names.get(type(node), "a number")
    return kind
