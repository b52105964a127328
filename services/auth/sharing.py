"""The data directory of one of several auths, made and kept by whatever starts it, as in a cluster.

Each start of each auth does the same, and any number may at once: whoever is first founds the mesh, the
others add themselves to it, and who has its directory already keeps it. What may change from one start to the
next is the way to the database, and the KEK, which one of them may have rotated. The trust domain may not.
"""

import os
from dataclasses import replace
from pathlib import Path

from mesh.core.names import TrustDomain
from services.auth.directory import LOCK, locked
from services.auth.errors import StartError
from services.auth.founding import found
from services.auth.kek import KekFiles
from services.auth.location import FILE, SQLITE, Location
from services.auth.replicating import add
from services.auth.store import Store


def is_made(path: Path) -> bool:
    """Whether there is a trust domain in a directory."""
    return any((path / name).exists() for name in (SQLITE, FILE))


def found_or_add(path: Path, domain: TrustDomain, now_ms: int, url: str, kek: bytes) -> str | None:
    """Make a data directory on the database at a URL, whose mesh is founded first if there is none.

    ``kek`` is the content of a key file. Gives the name of an auth that was added, and ``None`` where it
    founded the mesh. Raises ``StartError`` and leaves no directory behind.
    """
    from services.auth.postgres import alone  # noqa: PLC0415  its driver is an extra

    with alone(url) as is_founded:
        if is_founded:
            return add(path, url, kek, now_ms, domain)
        found(path, domain, now_ms, database=url, kek=kek)
        return None


def refresh(path: Path, domain: TrustDomain, url: str, kek: bytes) -> None:
    """Take the URL and the KEK up that the others have, in a directory that was made; raise ``StartError``.

    Nothing is taken up if the database is not of ``domain``, and without a URL nothing is to be. An older KEK
    does no harm: the database says which one counts.
    """
    if url and not (path / FILE).exists():
        raise StartError(
            f"{path} keeps its mesh in a file: bring that to the database with mesh backup and mesh restore"
        )
    location = Location.of(path)
    _check_domain(replace(location, url=url) if url else location, path, domain)
    if url:
        _take_up(location, path, url, kek)


def _check_domain(location: Location, path: Path, domain: TrustDomain) -> None:
    store = Store(location.open(path), location.replica)
    try:
        made = store.domain()
    except ValueError:
        raise StartError(f"{location.named(path)} was changed: restore it from a backup") from None
    finally:
        store.close()
    if made != domain:
        raise StartError(
            f"{path} is of trust domain {made}, not {domain}, and stays so:"
            f" set the name back to {made} (trustDomain in the chart), or choose another directory"
        )


def _take_up(location: Location, path: Path, url: str, kek: bytes) -> None:
    lock = locked(path / LOCK)
    try:
        location.move(path, url)
        if kek:
            KekFiles(path).offer(kek)
    except OSError as error:
        raise StartError(f"cannot write to {path}: {error.strerror}") from None
    finally:
        os.close(lock)
