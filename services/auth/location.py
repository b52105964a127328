"""Where the database of a data directory is: in its file ``auth.db``, or at a PostgreSQL server.

    database.json   {"url": "postgresql://…", "replica": "…"}    (0600); without it, it is ``auth.db``

The URL is libpq's. ``replica`` is this auth's name among those of the database, which its audit logs bear. A
password stands best where libpq looks for it by itself: PGPASSFILE, ~/.pgpass or PGPASSWORD.
"""

import json
import os
import re
import secrets
import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Self

from services.auth.database import Database
from services.auth.durable import sync, write_secret
from services.auth.errors import StartError
from services.auth.sqlite import Sqlite

FILE: Final = "database.json"
SQLITE: Final = "auth.db"
_SCHEMES: Final = ("postgresql://", "postgres://")


@dataclass(frozen=True, slots=True)
class Location:
    """A database, and who this auth is there."""

    url: str = ""
    """Of a PostgreSQL server; empty for the file."""
    replica: str = ""
    """Empty for the one auth that a file has."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read that of a data directory; raise ``StartError``."""
        where = path / FILE
        try:
            with where.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                held = json.loads(file.read())
            found = cls(held["url"], held["replica"])
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise StartError(f"cannot read {where}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise StartError(f"{where} names no database: put it back as it was made") from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise StartError(f"{where} can be reached by others than its owner: run chmod 600 {where}")
        if not is_url(found.url) or not re.fullmatch(r"[0-9a-f]{8}", found.replica):
            raise StartError(f"{where} names no database: put it back as it was made")
        return found

    @classmethod
    def new(cls, url: str) -> Self:
        """Give the place of another auth at a server, or with ``""`` the file."""
        return cls(url, secrets.token_hex(4)) if url else cls()

    def write(self, path: Path) -> None:
        """Write it to a data directory that is being made, so that ``of`` finds it."""
        if self.url:
            write_secret(path / FILE, json.dumps(asdict(self)).encode() + b"\n")
        else:
            write_secret(path / SQLITE, b"")

    def move(self, path: Path, url: str) -> None:
        """Have a data directory, in which it stands, name its database by another URL; raise ``OSError``."""
        if url != self.url:
            next_ = path / f".{FILE}"
            next_.unlink(missing_ok=True)
            write_secret(next_, json.dumps(asdict(replace(self, url=url))).encode() + b"\n")
            next_.replace(path / FILE)
            sync(path)

    def open(self, path: Path, *, new: bool = False) -> Database:
        """Open the database, brought to the newest schema; raise ``StartError``. ``new``: it is empty."""
        if not self.url:
            return Sqlite.open(path / SQLITE, new=new)
        from services.auth.postgres import Postgres  # noqa: PLC0415  its driver is an extra

        return Postgres.open(self.url, new=new)

    def named(self, path: Path) -> str:
        """Name the database to whoever reads a message."""
        return "the database" if self.url else str(path / SQLITE)


def is_url(text: object) -> bool:
    """Whether a text is the URL of a PostgreSQL database."""
    return isinstance(text, str) and text.startswith(_SCHEMES)
