"""A database, whichever engine keeps it: transactions that are durable, and what others have changed.

Each writing transaction begins by locking out every other writer of the same database, in whatever
process, so what it reads stays so until it ends. What auth keeps in memory of the database (epochs,
authorities, policy, KEK) has a count of its changes there: ``changed`` counts on, and refuses to build on
what another auth has changed meanwhile. ``sqlite`` and ``postgres`` are the engines.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import SQLAlchemyError

from services.auth.errors import AuthError
from services.auth.schema import GENERATION

_R = TypeVar("_R")

READ: Final = select(GENERATION.c.changes, GENERATION.c.keks)


class StoreError(AuthError):
    """The database cannot be read or written now. Nothing was changed."""


class OvertakenError(StoreError):
    """Another auth has changed what this was to build on. Nothing was changed; take that up, then again."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("another auth was faster: try again")


@dataclass(frozen=True, slots=True)
class Generation:
    """How many changes there were to what auths keep in memory, and how many of them to the KEK."""

    changes: int
    keks: int


class Database(ABC):
    """An open database, used by one thread at a time."""

    shared = False
    """Whether other auths may be at work on it."""

    def __init__(self) -> None:
        """Start with nothing taken up."""
        self.known = Generation(0, 0)
        """What this process has taken up."""
        self._counted: Generation | None = None

    def transact(self, work: Callable[[Connection], _R]) -> _R:
        """Do all of ``work``, durably and alone, or nothing; raise ``StoreError`` where that fails."""
        try:
            with failing():
                result = self._transact(work)
        except BaseException:
            self._counted = None
            raise
        self.known, self._counted = self._counted or self.known, None
        return result

    @abstractmethod
    def _transact(self, work: Callable[[Connection], _R]) -> _R:
        """Do the same, and raise as SQLAlchemy does."""

    @abstractmethod
    def read(self, work: Callable[[Connection], _R]) -> _R:
        """Do ``work``, which only reads; raise ``StoreError``."""

    @abstractmethod
    def look(self) -> Generation:
        """Give what there is to take up, as of now; raise ``StoreError``."""

    @abstractmethod
    def wall(self) -> float:
        """Give the seconds of Unix time by the clock that all auths of this database go by."""

    @abstractmethod
    def checkpoint(self) -> bool:
        """Remove what was replaced from where the engine still has it, if it lets us; whether it did now."""

    @abstractmethod
    def snapshot(self, replica: str) -> bytes:
        """Give the database as of one moment, as the bytes of a SQLite file; raise ``StoreError``.

        Of the ends of audit logs, those of ``replica`` alone, as those of the one auth that a file has.
        """

    @abstractmethod
    async def listen(self, told: Callable[[], None]) -> None:
        """Call ``told``, in the event loop that this runs in, whenever others may have changed something."""

    @abstractmethod
    def tell(self, connection: Connection) -> None:
        """Tell other auths of a change, once its transaction is committed, where there may be any."""

    @abstractmethod
    def close(self) -> None:
        """Close it."""

    def changed(self, connection: Connection, *, kek: bool = False, anew: bool = False) -> None:
        """Count a change within its transaction.

        Raises ``OvertakenError`` if there were others that are not taken up here, unless what is written does
        not build on them (``anew``).
        """
        found = generation(connection)
        if not anew and found != self.known:
            raise OvertakenError
        after = Generation(found.changes + 1, found.keks + kek)
        connection.execute(update(GENERATION).values(changes=after.changes, keks=after.keks))
        self.tell(connection)
        # Those of others, which are not known here, are still to be taken up.
        self._counted = after if found == self.known else self.known


@contextmanager
def failing() -> Iterator[None]:
    """Raise ``StoreError`` where SQLAlchemy raises an error of its own."""
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreError(f"cannot use the database: {reason(error)}") from None


def generation(connection: Connection) -> Generation:
    """Read what there is to take up."""
    row = connection.execute(READ).first()
    if row is None:
        raise StoreError("the database was changed: restore it from a backup")
    return Generation(row.changes, row.keks)


def reason(error: SQLAlchemyError) -> str:
    """Give the database's own words, without the statement and its values."""
    words = str(getattr(error, "orig", None) or type(error).__name__).strip()
    return words.partition("\n")[0]
