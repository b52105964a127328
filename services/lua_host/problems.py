"""What is wrong with a service's files: all of it at once, each with its file and line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.lua_host.plain import plain


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, in a file as seen from the service's directory; ``line`` 0: in all of it."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        """Give it as ``file:line: text``, fit for a terminal."""
        return plain(f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}")


class ProblemsError(ValueError):
    """Files that cannot be used, with everything that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Take the problems, one at least."""
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)
