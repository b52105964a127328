"""Databases as older versions of auth made them, so that the revisions have their work to do."""

import sqlite3

SEALED = ("secret", "epoch", "token", "audit_log")


def before_keys(database: sqlite3.Connection) -> None:
    """Take a database back to revision 2: no KEK's id in front of what is sealed, one version of a secret."""
    database.execute("ALTER TABLE audit_log RENAME TO newer")
    database.execute(
        "CREATE TABLE audit_log (name VARCHAR(16) NOT NULL, first_segment BIGINT NOT NULL,"
        " segment BIGINT NOT NULL, sequence BIGINT NOT NULL, size BIGINT NOT NULL, mac BLOB NOT NULL,"
        " at_ms BIGINT NOT NULL, sealed BLOB NOT NULL, CONSTRAINT pk_audit_log PRIMARY KEY (name))"
    )
    database.execute(
        "INSERT INTO audit_log"
        " SELECT name, first_segment, segment, sequence, size, mac, at_ms, sealed FROM newer"
    )
    database.execute("DROP TABLE newer")
    database.execute("DROP TABLE generation")
    database.execute("DROP TABLE sequence")
    database.execute("ALTER TABLE instance DROP COLUMN remote_keys")
    database.execute("ALTER TABLE policy_applied DROP COLUMN restores")
    for table in ("revoked", "ban"):
        database.execute(f"DROP TABLE {table}")
    for table in SEALED:
        database.execute(f"UPDATE {table} SET sealed = substr(sealed, 9)")
    database.execute("ALTER TABLE secret RENAME TO newer")
    database.execute(
        "CREATE TABLE secret (name VARCHAR(16) NOT NULL, version INTEGER NOT NULL, public BLOB NOT NULL,"
        " sealed BLOB NOT NULL, CONSTRAINT pk_secret PRIMARY KEY (name))"
    )
    database.execute("INSERT INTO secret SELECT name, version, public, sealed FROM newer")
    database.execute("DROP TABLE newer")
    database.execute("DROP TABLE clock")
    database.execute("UPDATE alembic_version SET version_num = '0002'")
