"""Revoked instances and banned services in the database. One method, one transaction, as in ``store``.

What goes with a revocation is written with it or not at all: the instances, their service's unused tokens,
the ban, and the audit log's entries. So a join is either before it, and revoked, or after it, and refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, select, update

from mesh.core.audit import Entry
from mesh.core.names import InstanceId, ServiceName
from services.auth.database import Database
from services.auth.log_store import LogStore
from services.auth.records import Kind
from services.auth.schema import BAN, INSTANCE, REVOKED, TOKEN


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator wants revoked: an instance, or all of a service and its unused tokens."""

    service: ServiceName
    instance: InstanceId | None
    at_ms: int
    keys_until_ms: int
    by: str
    reason: str
    ban: bool
    spared: InstanceId | None
    """The operator's own instance, which has yet to be answered."""
    room: int
    """How many instances nodes can be told of, those of earlier orders among them."""


@dataclass(frozen=True, slots=True)
class Done:
    """What an order came to: whom it revoked, how many tokens, and what is in the audit log.

    ``untold`` more instances were revoked for which there was no room: auth alone refuses them.
    """

    instances: Sequence[InstanceId]
    tokens: int
    entries: Sequence[Entry]
    untold: int = 0


@dataclass(frozen=True, slots=True)
class Revocation:
    """A revoked instance, or a banned service."""

    service: str
    instance: InstanceId | None
    at_ms: int
    until_ms: int
    by: str
    reason: str


class RevocationStore:
    """What auth remembers of revocations."""

    def __init__(self, database: Database, logs: LogStore) -> None:
        """Take an open database, and its logs."""
        self._database, self._logs = database, logs

    def revoke(self, order: Order, entry: Entry) -> Done:
        """Carry an order out, with a copy of ``entry`` for each instance and for a ban; say what was done.

        Raises ``AuditError``. Nothing is written, nor logged, of what was so before. Where there is no room
        for all instances, the newest are told, and the others have one entry together.
        """
        done = Done((), 0, ())

        def work(connection: Connection) -> Sequence[Entry]:
            nonlocal done
            instances = _revoke_instances(connection, order)
            untold = _revoke_untold(connection, order)
            tokens = 0 if order.instance else _revoke_tokens(connection, order)
            entries = [replace(entry, event="revoke", instance=str(instance)) for instance in instances]
            if order.ban and _ban(connection, order):
                entries.insert(0, replace(entry, event="ban"))
            elif tokens and not instances:
                entries.append(replace(entry, event="revoke"))
            if untold:
                one = str(order.instance or "")
                entries.append(replace(entry, event="revoke untold", instance=one, count=untold))
            done = Done(instances, tokens, entries, untold)
            self._database.changed(connection, anew=True)
            return entries

        self._logs.logged_all(work)
        return done

    def unban(self, service: ServiceName, entry: Entry) -> bool:
        """Lift a ban and log it; False if there is none."""

        def work(connection: Connection) -> bool:
            self._database.changed(connection, anew=True)
            return bool(connection.execute(delete(BAN).where(BAN.c.service == service.text)).rowcount)

        return self._logs.logged(work, entry)

    def revoked(self) -> list[Revocation]:
        """Give the instances that are not forgotten, by service, then newest first."""
        listed = select(REVOKED).order_by(REVOKED.c.service, REVOKED.c.at_ms.desc(), REVOKED.c.instance)
        found = self._database.read(lambda connection: list(connection.execute(listed)))
        return [
            Revocation(row.service, InstanceId(row.instance), row.at_ms, row.until_ms, row.by, row.reason)
            for row in found
        ]

    def banned(self) -> list[Revocation]:
        """Give the banned services, by name."""
        listed = select(BAN).order_by(BAN.c.service)
        found = self._database.read(lambda connection: list(connection.execute(listed)))
        return [Revocation(row.service, None, row.at_ms, 0, row.by, row.reason) for row in found]

    def sweep(self, now_ms: int) -> None:
        """Forget those that hold nothing any more."""
        self._database.transact(
            lambda connection: connection.execute(delete(REVOKED).where(REVOKED.c.until_ms <= now_ms))
        )


def _present(service: ServiceName) -> tuple[ColumnElement[bool], ...]:
    # Also those whose certificates have ended: a connection that was open before may still be.
    return INSTANCE.c.service == service.text, INSTANCE.c.revoked_ms.is_(None)


def _revoke_instances(connection: Connection, order: Order) -> list[InstanceId]:
    kept = connection.scalar(select(func.count()).select_from(REVOKED)) or 0
    chosen = select(INSTANCE.c.id, INSTANCE.c.expires_ms).where(*_meant(order))
    newest = chosen.order_by(INSTANCE.c.joined_ms.desc(), INSTANCE.c.id)
    found = connection.execute(newest.limit(max(0, order.room - kept))).all()
    for row in found:
        this = INSTANCE.c.id == row.id
        connection.execute(update(INSTANCE).where(this).values(revoked_ms=order.at_ms))
        until_ms = max(row.expires_ms, order.keys_until_ms)
        values = {"instance": row.id, "until_ms": until_ms, **_why(order)}
        connection.execute(insert(REVOKED).values(values))
    return [InstanceId(row.id) for row in found]


def _revoke_untold(connection: Connection, order: Order) -> int:
    # What is left: nothing is renewed for them, and they get no keys.
    return connection.execute(update(INSTANCE).where(*_meant(order)).values(revoked_ms=order.at_ms)).rowcount


def _meant(order: Order) -> tuple[ColumnElement[bool], ...]:
    present = _present(order.service)
    if order.instance:
        return (*present, INSTANCE.c.id == order.instance.raw)
    return (*present, INSTANCE.c.id != order.spared.raw) if order.spared else present


def _revoke_tokens(connection: Connection, order: Order) -> int:
    # The operator's credential is no token of a service: it has a command of its own (mesh keys rotate).
    mine = (TOKEN.c.service == order.service.text) & (TOKEN.c.kind != Kind.OPERATOR.value)
    unused = TOKEN.c.used_ms.is_(None) & TOKEN.c.revoked_ms.is_(None) & (TOKEN.c.expires_ms > order.at_ms)
    return connection.execute(update(TOKEN).where(mine & unused).values(revoked_ms=order.at_ms)).rowcount


def _ban(connection: Connection, order: Order) -> bool:
    if connection.scalar(select(exists().where(BAN.c.service == order.service.text))):
        return False
    connection.execute(insert(BAN).values(_why(order)))
    return True


def _why(order: Order) -> dict[str, object]:
    return {
        "service": order.service.text,
        "at_ms": order.at_ms,
        "by": order.by[:160],
        "reason": order.reason[:200],
    }
