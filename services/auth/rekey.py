"""Another KEK in the place of the one in force, for everything that is sealed at rest, in one transaction.

    1  the new KEK is written to ``kek.next``, through to the disk                       (``kek``)
    2  one transaction seals every secret in the database anew, and logs that it did
    3  the write-ahead log, which holds what was there before, is merged and emptied
    4  ``kek.next`` takes ``kek``'s place, and the old one is overwritten and removed    (``kek``)

There is no state between the keys: before 2 commits the database is under the old KEK, after it under the
new one. Killed at any point, auth (or this, run again) finds in the database which of the files counts, ends
what was begun, and removes the other. Every table with a column ``sealed`` has its row in ``_SEALED``.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, select, update

from mesh.core.audit import Entry, Kind
from mesh.core.keys import KEY_BYTES, Key
from mesh.core.names import TrustDomain
from services.auth import rows
from services.auth.directory import DataDirectory
from services.auth.errors import AuthError, ConflictError, StartError
from services.auth.records import log_place, root_place, secret_place
from services.auth.schema import AUDIT_LOG, EPOCH, SECRET, TOKEN
from services.auth.vault import Place, kek_id

_PlaceOf = Callable[[Row[Any], TrustDomain], Place]

_SEALED: Final[dict[Table, _PlaceOf]] = {
    SECRET: lambda row, domain: secret_place(domain, row.name, row.version),
    EPOCH: lambda row, _: root_place(rows.root_of(row).epoch),
    TOKEN: lambda row, _: rows.token_of(row).place,
    AUDIT_LOG: lambda row, domain: log_place(domain, rows.log_of(row).head),
}


def rotate_kek(directory: DataDirectory, keeper: str | None, by: str, now_ms: int) -> str:
    """Put a new KEK in force, kept by a KMS or its file (``None``: by whoever keeps the old); give its id.

    Raises ``ConflictError`` if its keeper does not take it, and ``AuthError`` where database or log cannot be
    written; the old KEK is then in force.
    """
    kek, files = Key(os.urandom(KEY_BYTES)), directory.keks
    try:
        files.add(kek, files.keeper if keeper is None else keeper)
    except StartError as error:
        raise ConflictError(str(error)) from None
    entry = Entry(now_ms, Kind.KEY, "KEK rotated", by=by, detail=kek_id(kek).hex())
    _reseal(directory, kek, entry)
    directory.store.checkpoint()
    try:
        directory.take_kek()
    except StartError as error:
        raise ConflictError(f"the new KEK is in force, but {error}") from None
    return kek_id(kek).hex()


def _reseal(directory: DataDirectory, kek: Key, entry: Entry) -> None:
    vault, before = directory.vault, copy(directory.vault)

    def work(connection: Connection) -> bool:
        for table, place_of in _SEALED.items():
            for row in connection.execute(select(table)).all():
                place = place_of(row, directory.domain)
                sealed = vault.seal(before.open(row.sealed, place), place)
                its = [column == getattr(row, column.name) for column in table.primary_key]
                connection.execute(update(table).where(*its).values(sealed=sealed))
        directory.database.changed(connection, kek=True)
        return True

    vault.turn(kek)
    try:
        directory.store.logs.logged(work, entry)
    except BaseException:
        vault.take(before)
        with suppress(AuthError):
            directory.take_kek()
        raise
