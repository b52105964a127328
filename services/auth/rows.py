"""Rows of the tables as values and back: one function each way, nothing decided."""

from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from mesh.core.audit import Entry, Kind, Verdict
from mesh.core.chain import Head
from mesh.core.epochs import Epoch
from mesh.core.names import InstanceId, KeyEpoch, ServiceName
from services.auth.records import Instance, LogRow, PolicyRow, RootRow, Secret, Token
from services.auth.records import Kind as TokenKind
from services.auth.schema import (
    ALARM,
    APPLIED,
    AUDIT_LOG,
    CLOCK,
    EPOCH,
    INSTANCE,
    POLICY,
    REQUEST,
    SECRET,
    TOKEN,
)

# Built once: every join runs them.
_ADD_INSTANCE: Final = insert(INSTANCE)
_ADD_REQUEST: Final = insert(REQUEST)
_ADD_LOG: Final = insert(AUDIT_LOG)
_MOVE_LOG: Final = (
    update(AUDIT_LOG)
    .where((AUDIT_LOG.c.replica == bindparam("whose")) & (AUDIT_LOG.c.name == bindparam("log")))
    .values(
        {
            name: bindparam(name)
            for name in ("first_segment", "segment", "sequence", "size", "mac", "at_ms", "sealed")
        }
    )
)
_MARK: Final = "told"
_MOVE_MARK: Final = update(CLOCK).where(CLOCK.c.name == _MARK)
_OLD_KINDS: Final = {"epoch": Kind.KEY, "trust": Kind.KEY, "token": Kind.TOKEN, "policy": Kind.POLICY}


def put_secret(connection: Connection, secret: Secret) -> None:
    """Add a secret of the trust domain."""
    values = {"name": secret.name, "version": secret.version, "public": secret.public}
    connection.execute(insert(SECRET), values | {"sealed": secret.sealed})


def secret_of(row: Row[Any]) -> Secret:
    """Read a secret of the trust domain."""
    return Secret(row.name, row.version, row.public, row.sealed)


def put_root(connection: Connection, root: RootRow) -> None:
    """Add an epoch."""
    epoch = root.epoch
    values = {
        "number": epoch.number.number,
        "begins_ms": epoch.begins_ms,
        "ends_ms": epoch.ends_ms,
        "accepted_until_ms": epoch.accepted_until_ms,
        "sealed": root.sealed,
    }
    connection.execute(insert(EPOCH), values)


def root_of(row: Row[Any]) -> RootRow:
    """Read an epoch."""
    times = (row.begins_ms, row.ends_ms, row.accepted_until_ms)
    return RootRow(Epoch(KeyEpoch(row.number), *times), row.sealed)


def put_token(connection: Connection, token: Token) -> None:
    """Add an unused token."""
    values = {
        "id": token.id,
        "kind": token.kind.value,
        "service": token.service.text,
        "created_ms": token.created_ms,
        "expires_ms": token.expires_ms,
        "sealed": token.sealed,
    }
    connection.execute(insert(TOKEN), values)


def token_of(row: Row[Any]) -> Token:
    """Read a token."""
    return Token(
        row.id,
        TokenKind(row.kind),
        ServiceName(row.service),
        row.created_ms,
        row.expires_ms,
        row.sealed,
        row.used_ms,
        row.revoked_ms,
        InstanceId(row.instance) if row.instance else None,
    )


def put_instance(connection: Connection, instance: Instance) -> None:
    """Add an instance, and the request that got it."""
    values = {
        "id": instance.id.raw,
        "service": instance.service.text,
        "token_id": instance.token_id,
        "request_digest": instance.request_digest,
        "certificate": instance.certificate,
        "joined_ms": instance.joined_ms,
        "expires_ms": instance.expires_ms,
        "remote_keys": instance.remote_keys,
    }
    connection.execute(_ADD_INSTANCE, values)
    connection.execute(_ADD_REQUEST, {"token_id": instance.token_id, "digest": instance.request_digest})


def instance_of(row: Row[Any]) -> Instance:
    """Read an instance."""
    return Instance(
        InstanceId(row.id),
        ServiceName(row.service),
        row.token_id,
        row.request_digest,
        row.certificate,
        row.joined_ms,
        row.expires_ms,
        row.revoked_ms,
        row.remote_keys,
    )


def put_policy(connection: Connection, policy: PolicyRow) -> None:
    """Add a version of the policy."""
    values = {"version": policy.version, "document": policy.document, "signature": policy.signature}
    connection.execute(insert(POLICY), values | {"applied_ms": policy.applied_ms})


def put_applied(connection: Connection, version: int, by: InstanceId, restores: int | None = None) -> None:
    """Note who put a version of the policy on record, and for a rollback whose text that is."""
    connection.execute(insert(APPLIED), {"version": version, "instance": str(by), "restores": restores})


def policy_of(row: Row[Any]) -> PolicyRow:
    """Read a version of the policy."""
    return PolicyRow(row.version, row.document, row.signature, row.applied_ms)


def put_log(connection: Connection, log: LogRow, replica: str) -> None:
    """Put the end of an auth's log in the place of the one before."""
    head = log.head
    values = {
        "first_segment": head.first_segment,
        "segment": head.segment,
        "sequence": head.sequence,
        "size": head.size,
        "mac": head.mac,
        "at_ms": head.at_ms,
        "sealed": log.sealed,
    }
    if not connection.execute(_MOVE_LOG, values | {"log": head.log, "whose": replica}).rowcount:
        connection.execute(_ADD_LOG, values | {"name": head.log, "replica": replica})


def log_of(row: Row[Any]) -> LogRow:
    """Read the end of a log."""
    numbers = (row.first_segment, row.segment, row.sequence, row.size)
    return LogRow(Head(row.name, *numbers, row.mac, row.at_ms), row.sealed)


def put_alarm(connection: Connection, token_id: str, event: str) -> None:
    """Note that an alarm of a token was raised."""
    connection.execute(insert(ALARM), {"token_id": token_id, "event": event})


def put_mark(connection: Connection, now_ms: int) -> None:
    """Put a later mark of the clock in the place of the one before; an earlier one is not written."""
    known = connection.scalar(select(CLOCK.c.at_ms).where(CLOCK.c.name == _MARK))
    if known is None:
        connection.execute(insert(CLOCK), {"name": _MARK, "at_ms": now_ms})
    elif known < now_ms:
        connection.execute(_MOVE_MARK.values(at_ms=now_ms))


def old_entry_of(row: Row[Any]) -> Entry:
    """Read an entry from before there were logs in files."""
    word = row.event.partition(" ")[0]
    return Entry(
        row.at_ms,
        _OLD_KINDS.get(word, Kind.JOIN),
        row.event,
        Verdict.DENIED if row.alarm else Verdict.DONE,
        row.alarm,
        row.service,
        row.instance,
        token_id=row.token_id,
        detail=row.detail,
    )
