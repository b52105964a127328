"""Rows of the tables as values and back: one function each way, nothing decided."""

from typing import Any, Final

from sqlalchemy import Connection, Row, insert

from mesh.core.epochs import Epoch
from mesh.core.names import InstanceId, KeyEpoch, ServiceName
from services.auth.records import AuditEntry, Instance, Kind, PolicyRow, RootRow, Secret, Token
from services.auth.schema import AUDIT, EPOCH, INSTANCE, POLICY, REQUEST, SECRET, TOKEN

# Built once: every join runs them.
_ADD_INSTANCE: Final = insert(INSTANCE)
_ADD_REQUEST: Final = insert(REQUEST)
_ADD_ENTRY: Final = insert(AUDIT)


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
        Kind(row.kind),
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
    )


def put_policy(connection: Connection, policy: PolicyRow) -> None:
    """Add a version of the policy."""
    values = {"version": policy.version, "document": policy.document, "signature": policy.signature}
    connection.execute(insert(POLICY), values | {"applied_ms": policy.applied_ms})


def policy_of(row: Row[Any]) -> PolicyRow:
    """Read a version of the policy."""
    return PolicyRow(row.version, row.document, row.signature, row.applied_ms)


def put_entry(connection: Connection, entry: AuditEntry) -> None:
    """Add an entry to the audit log."""
    values = {
        "at_ms": entry.at_ms,
        "event": entry.event,
        "alarm": entry.alarm,
        "service": entry.service,
        "instance": entry.instance,
        "token_id": entry.token_id,
        "detail": entry.detail,
    }
    connection.execute(_ADD_ENTRY, values)
