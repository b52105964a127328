"""The mesh's own keys in the database, sealed: secrets with their versions, epochs, operators' credentials.

One method, one transaction, as in ``store``.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, select, tuple_, update

from mesh.core.audit import Entry
from mesh.core.epochs import Epoch
from services.auth import rows
from services.auth.database import Database
from services.auth.log_store import LogStore
from services.auth.records import Kind, RootRow, Secret, Token
from services.auth.schema import EPOCH, SECRET, TOKEN


class KeyStore:
    """What auth remembers of keys."""

    def __init__(self, database: Database, logs: LogStore) -> None:
        """Take an open database, and its logs."""
        self._database, self._logs = database, logs

    def secrets(self, name: str) -> list[Secret]:
        """Give the versions of one of the trust domain's own secrets, sealed."""
        which = select(SECRET).where(SECRET.c.name == name)
        return [rows.secret_of(row) for row in self._all(which.order_by(SECRET.c.version))]

    def put_secrets(
        self, put: Sequence[Secret], gone: Iterable[tuple[str, int]] = (), entries: Sequence[Entry] = ()
    ) -> None:
        """Add or replace versions of secrets, forget others, and log it.

        Raises ``AuditError``, and ``OvertakenError``.
        """

        def work(connection: Connection) -> Sequence[Entry]:
            self._database.changed(connection)
            versions = [*gone, *((secret.name, secret.version) for secret in put)]
            connection.execute(delete(SECRET).where(tuple_(SECRET.c.name, SECRET.c.version).in_(versions)))
            for secret in put:
                rows.put_secret(connection, secret)
            return entries

        self._logs.logged_all(work)

    def roots(self) -> list[RootRow]:
        """Give every epoch that is kept, oldest first."""
        return [rows.root_of(row) for row in self._all(select(EPOCH).order_by(EPOCH.c.number))]

    def turn_epochs(self, made: Sequence[RootRow], gone: Iterable[Epoch]) -> None:
        """Add epochs, and forget others; raise ``OvertakenError``."""
        numbers = [epoch.number.number for epoch in gone]

        def work(connection: Connection) -> None:
            deleted = connection.execute(delete(EPOCH).where(EPOCH.c.number.in_(numbers))).rowcount
            if made or deleted:
                # Before the rows: another auth may have made the same, whose numbers these would have again.
                self._database.changed(connection)
            for root in made:
                rows.put_root(connection, root)

        self._database.transact(work)

    def replace_epochs(self, epochs: Iterable[RootRow], entry: Entry) -> None:
        """Put epochs in the place of all that are kept, and log it.

        Raises ``AuditError``, and ``OvertakenError``.
        """

        def work(connection: Connection) -> bool:
            connection.execute(delete(EPOCH))
            for root in epochs:
                rows.put_root(connection, root)
            self._database.changed(connection)
            return True

        self._logs.logged(work, entry)

    def add_credential(self, token: Token, entry: Entry, revoked_ms: int | None) -> None:
        """Add an operator's credential; revoke those before it, if a time is given."""
        before = (TOKEN.c.kind == Kind.OPERATOR.value) & TOKEN.c.revoked_ms.is_(None)

        def work(connection: Connection) -> bool:
            if revoked_ms is not None:
                connection.execute(update(TOKEN).where(before).values(revoked_ms=revoked_ms))
            rows.put_token(connection, token)
            return True

        self._logs.logged(work, entry)

    def _all(self, statement: Select[Any]) -> list[Row[Any]]:
        return self._database.read(lambda connection: list(connection.execute(statement)))
