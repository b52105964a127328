"""How much a Lua service may use: defaults and bounds, as a table.

Times are written as ``500ms``, ``1.5s`` or ``2m``, sizes as ``64KiB``, ``16MiB`` or ``1GiB``, all else as
whole numbers. Read, they are seconds, bytes and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Final, TypeAlias

from services.lua_host.places import Path
from services.lua_host.strict_toml import Key, Reading, kind

Number: TypeAlias = float | int

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}
_BYTES: Final = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def seconds(text: str) -> float:
    """Read a time; raise ``ValueError``."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m)", text)
    if not found:
        raise ValueError(f"{text!r:.80} is no time: write it as 500ms, 2s or 1m")
    return float(found[1]) * _SECONDS[found[2]]


def size(text: str) -> int:
    """Read a size; raise ``ValueError``."""
    found = re.fullmatch(r"([0-9]{1,12})(B|KiB|MiB|GiB)", text)
    if not found:
        raise ValueError(f"{text!r:.80} is no size: write it as 64KiB, 16MiB or 1GiB")
    return int(found[1]) * _BYTES[found[2]]


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit as a manifest writes it: its default, the least and the most that it may say."""

    default: str | int
    least: str | int
    most: str | int
    read: Callable[[str], Number] | None = None
    """``None``: a whole number."""

    def value(self, written: str | int) -> Number:
        """Read it."""
        return int(written) if self.read is None else self.read(str(written))

    def key(self) -> Key:
        """Give the key of a manifest."""
        return Key(self._read, self.value(self.default))

    def _read(self, reading: Reading, path: Path, written: object) -> Number | None:
        value: Number | None
        if self.read is not None:
            value = reading.text(path, written, self.read)
        elif type(written) is int:  # not isinstance: to Python, true is the number 1
            value = written
        else:
            reading.wrong(path, f"{path[-1]} has to be a whole number, not {kind(written)}")
            return None
        if value is not None and not self.value(self.least) <= value <= self.value(self.most):
            reading.wrong(path, f"{path[-1]} has to lie between {self.least} and {self.most}")
        return value


LIMITS: Final[Mapping[str, Bound]] = {
    "deadline": Bound("1s", "10ms", "5m", seconds),
    "memory": Bound("16MiB", "4MiB", "1GiB", size),
    "message": Bound("1MiB", "1KiB", "16MiB", size),
    "depth": Bound(32, 1, 60),
    "calls_per_request": Bound(16, 0, 10_000),
    "calls_per_second": Bound(200, 1, 100_000),
    "logs_per_second": Bound(50, 1, 10_000),
    "workers": Bound(2, 1, 64),
    "calls_per_worker": Bound(0, 0, 1_000_000_000),
}


#: A message is held as bytes and as a table.
MEMORY_FOR_MESSAGE: Final = 4


def cap(text: str) -> tuple[str, Number]:
    """Read a limit and its most, as ``memory=64MiB``; raise ``ValueError``."""
    name, _, written = text.partition("=")
    bound = LIMITS.get(name)
    if bound is None:
        raise ValueError(f"no limit {name!r:.80}: use {', '.join(LIMITS)}")
    if bound.read is None and not re.fullmatch(r"[0-9]{1,10}", written):
        raise ValueError(f"{name} has to be a whole number, not {written!r:.80}")
    value = bound.value(written)
    if not bound.value(bound.least) <= value <= bound.value(bound.most):
        raise ValueError(f"{name} has to lie between {bound.least} and {bound.most}")
    return name, value


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a service."""

    deadline: float
    """Seconds that a call may take."""
    memory: int
    """Bytes that Lua may use in one worker."""
    message: int
    """Bytes of the largest message."""
    depth: int
    """Levels of the deepest message."""
    calls_per_request: int
    calls_per_second: int
    logs_per_second: int
    workers: int
    """Calls that are answered at once."""
    calls_per_worker: int
    """Calls after which a worker is replaced; 0: never."""

    def within(self, caps: Mapping[str, Number]) -> Limits:
        """Give these limits lowered to what an operator allows at most, by the names of ``LIMITS``.

        Raises ``KeyError`` for another name.
        """
        values = asdict(self)
        for name, cap in caps.items():
            endless = name == "calls_per_worker" and values[name] == 0
            values[name] = cap if endless else min(values[name], cap)
        values["message"] = min(values["message"], values["memory"] // MEMORY_FOR_MESSAGE)
        return Limits(**values)
