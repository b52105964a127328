"""The patterns of a policy: their grammar, and which of them match a name.

    principals   orders   | *  | team.*  (labels below it)      | *.suffix  (labels above it)
    paths        /p.S/M   | *  | /p.S/*  (methods of a service) | */M       (of that name in any service)
    values       acme     | *  | ac*     (starts)               | *me       (ends)

Wildcards of principals and paths stand only for whole labels, so there are few patterns that match a name at
all (``source_patterns``, ``method_patterns``), and matching is looking them up, never searching.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from mesh.core.metadata import is_application_key
from mesh.core.names import FullMethod, ServiceName

ANY: Final = "*"

# Printable ASCII, as metadata is; no blank at an end, where transports drop it; no star but the wildcard.
_C, _S = r"[ -)+-~]", r"[!-)+-~]"
_KEY: Final = re.compile(r"[a-z0-9_.-]{1,128}")
_VALUE: Final = re.compile(rf"\*|{_S}(?:{_C}*{_S})?|{_S}{_C}*\*|\*{_C}*{_S}")


#: Rules repeat themselves: a policy of ten thousand of them is read in half the time.
_REMEMBERED: Final = 8192


@lru_cache(_REMEMBERED)
def checked_principal(text: str) -> str:
    """Give back a pattern of principals; raise ``ValueError`` for anything else."""
    try:
        if text != ANY:
            ServiceName(_example(text, ".", "a"))
    except ValueError:
        msg = f'bad principal {text!a:.80}: use a service name, "name.*", "*.name" or "*"'
        raise ValueError(msg) from None
    return text


@lru_cache(_REMEMBERED)
def checked_path(text: str) -> str:
    """Give back a pattern of paths; raise ``ValueError`` for anything else."""
    try:
        if text != ANY:
            FullMethod(_example(text, "/", "/a"))
    except ValueError:
        msg = f'bad path {text!a:.80}: use "/package.Service/Method", "/package.Service/*", "*/Method" or "*"'
        raise ValueError(msg) from None
    return text


def checked_value(text: str) -> str:
    """Give back a pattern of values; raise ``ValueError`` for anything else."""
    if not _VALUE.fullmatch(text):
        msg = f'bad value {text!a:.80}: use printable ASCII as "exact", "start*", "*end" or "*"'
        raise ValueError(msg)
    return text


def checked_key(text: str) -> str:
    """Give back a metadata key that a rule can speak of; raise ``ValueError`` for anything else."""
    if not _KEY.fullmatch(text):
        msg = f"bad metadata key {text!a:.80}: use lower-case a-z, 0-9 and _ . -"
        raise ValueError(msg)
    if text.endswith("-bin"):
        msg = f"{text!r} holds bytes, which no rule can match: use a text key"
        raise ValueError(msg)
    if text.startswith("grpc-") or not is_application_key(text):
        msg = f"{text!r} is not the application's and no rule sees it: use another"
        raise ValueError(msg)
    return text


@lru_cache(4096)
def source_patterns(source: str) -> tuple[str, ...]:
    """Give every pattern that matches a service: of ``a.b`` itself, ``a.*``, ``*.b`` and ``*``."""
    labels = source.split(".")
    cuts = range(1, len(labels))
    below = [".".join([*labels[:cut], ANY]) for cut in cuts]
    above = [".".join([ANY, *labels[cut:]]) for cut in cuts]
    return (source, *below, *above, ANY)


def method_patterns(method: str) -> tuple[str, ...]:
    """Give every pattern that matches a method: of ``/p.S/M`` itself, ``/p.S/*``, ``*/M`` and ``*``."""
    service, _, name = method.rpartition("/")
    return (method, f"{service}/*", f"*/{name}", ANY)


def wider_principals(pattern: str) -> tuple[str, ...]:
    """Give every pattern of principals that matches whatever this one matches, itself first.

    What is no pattern of names (a group) is only itself, and under ``*``.
    """
    if pattern == ANY:
        return (ANY,)
    labels = pattern.split(".")
    if labels[-1] == ANY:
        return (*(".".join([*labels[:cut], ANY]) for cut in range(len(labels) - 1, 0, -1)), ANY)
    if labels[0] == ANY:
        return (*(".".join([ANY, *labels[cut:]]) for cut in range(1, len(labels))), ANY)
    return source_patterns(pattern)


def wider_paths(path: str) -> tuple[str, ...]:
    """Give every pattern of paths that matches whatever this one matches, itself first."""
    return tuple(dict.fromkeys((path, ANY))) if ANY in path else method_patterns(path)


def covered(path: str, by: Iterable[str]) -> bool:
    """Whether every method that a pattern matches is matched by one of the patterns ``by``.

    It is enough to look at them one by one: a wildcard stands for more names than a list of patterns without
    that wildcard could hold.
    """
    return not set(wider_paths(path)).isdisjoint(by)


def value_matches(value: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns matches a whole value."""
    for pattern in patterns:
        if pattern.startswith(ANY):
            if value.endswith(pattern[1:]):
                return True
        elif pattern.endswith(ANY):
            if value.startswith(pattern[:-1]):
                return True
        elif value == pattern:
            return True
    return False


def value_covered(value: str, by: Iterable[str]) -> bool:
    """Whether one pattern ``by`` matches every value that a pattern of values matches."""
    if not value.startswith(ANY) and not value.endswith(ANY):
        return value_matches(value, by)
    return any(
        wide == ANY
        or (wide.endswith(ANY) and value.endswith(ANY) and value.startswith(wide[:-1]))
        or (wide.startswith(ANY) and value.startswith(ANY) and value.endswith(wide[1:]))
        for wide in by
    )


def _example(text: str, joint: str, first: str) -> str:
    # A shortest name that the pattern matches. Only one wildcard is replaced: another is left to be refused.
    if text.startswith(ANY + joint):
        return first + text[1:]
    return text[:-1] + "a" if text.endswith(joint + ANY) else text
