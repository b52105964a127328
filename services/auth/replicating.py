"""A data directory for another auth on the database of one that there is.

It needs the KEK, of which it gets a copy. It gets a name and audit logs of its own, with an audit key of
their own; the operator's credential stays where it is.
"""

from pathlib import Path

from mesh.core.audit import Entry, Kind
from mesh.core.names import TrustDomain
from services.auth import audit_log
from services.auth.directory import DataDirectory
from services.auth.durable import write_secret
from services.auth.errors import AuthError, StartError
from services.auth.founding import build
from services.auth.kek import KEK, read_kek
from services.auth.location import Location


def replicate(path: Path, url: str, kek_file: Path, now_ms: int) -> str:
    """Make the data directory of another auth at the URL of a database, and give its name there.

    ``kek_file`` is the key file of another one. Raises ``StartError`` and leaves no directory behind.
    """
    read_kek(kek_file)
    return add(path, url, kek_file.read_bytes(), now_ms)


def add(path: Path, url: str, kek: bytes, now_ms: int, domain: TrustDomain | None = None) -> str:
    """Do so with the content of a key file, and in a database of ``domain`` alone; raise ``StartError``."""
    location = Location.new(url)

    def make(scratch: Path) -> None:
        write_secret(scratch / KEK, kek)
        location.write(scratch)
        with DataDirectory(scratch) as directory:
            if domain not in (None, directory.domain):
                raise StartError(f"the database is of trust domain {directory.domain}: name another database")
            now = max(now_ms, directory.store.logs.newest_ms(), directory.store.marked_ms())
            entry = Entry(now, Kind.KEY, "auth added", detail=location.replica)
            try:
                directory.store.logs.log(audit_log.ACTIONS, [entry])
            except AuthError as error:
                raise StartError(str(error)) from None

    build(path, make)
    return location.replica
