"""The tables. Columns called ``sealed`` hold nothing usable without the KEK; see ``vault``.

Times are milliseconds of Unix time by auth's clock. ``migrations`` makes exactly these, which a test holds
them to.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    false,
)

#: Names of constraints are part of the schema: a later migration has to be able to drop them by name.
METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

DOMAIN: Final = Table(
    "trust_domain",
    METADATA,
    Column("name", String(127), primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
)

SECRET: Final = Table(
    "secret",
    METADATA,
    Column("name", String(16), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("public", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

EPOCH: Final = Table(
    "epoch",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("begins_ms", BigInteger, nullable=False),
    Column("ends_ms", BigInteger, nullable=False),
    Column("accepted_until_ms", BigInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

TOKEN: Final = Table(
    "token",
    METADATA,
    Column("id", String(16), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("service", String(125), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("used_ms", BigInteger),
    Column("revoked_ms", BigInteger),
    Column("instance", LargeBinary(16)),
    Index(None, "expires_ms"),
)

INSTANCE: Final = Table(
    "instance",
    METADATA,
    Column("id", LargeBinary(16), primary_key=True),
    Column("service", String(125), nullable=False),
    Column("token_id", String(16), nullable=False),
    Column("request_digest", LargeBinary(32), nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("joined_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("remote_keys", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("token_id", "request_digest"),
    Index(None, "expires_ms"),
)

#: Every request that a token was used by, for as long as the token is remembered: instances are not.
REQUEST: Final = Table(
    "request",
    METADATA,
    Column("token_id", String(16), primary_key=True),
    Column("digest", LargeBinary(32), primary_key=True),
)

POLICY: Final = Table(
    "policy",
    METADATA,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("document", LargeBinary, nullable=False),
    Column("signature", LargeBinary(64), nullable=False),
    Column("applied_ms", BigInteger, nullable=False),
)

#: Who put which version on record, and for a rollback whose text that is. The newest row stays, so that a
#: policy that is missing is missed.
APPLIED: Final = Table(
    "policy_applied",
    METADATA,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("instance", String(32), nullable=False),
    Column("restores", BigInteger),
)

#: The end of each audit log, with the keys to go on from it. The log itself is in files (``segments``), of
#: the auth that ``replica`` names; empty for the one auth of a SQLite file.
AUDIT_LOG: Final = Table(
    "audit_log",
    METADATA,
    Column("replica", String(16), primary_key=True),
    Column("name", String(16), primary_key=True),
    Column("first_segment", BigInteger, nullable=False),
    Column("segment", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

#: One row: how often there was a change to what auths keep in memory, and how many of those were to the KEK
#: (``database``).
GENERATION: Final = Table(
    "generation",
    METADATA,
    Column("name", String(16), primary_key=True),
    Column("changes", BigInteger, nullable=False),
    Column("keks", BigInteger, nullable=False),
)

#: The latest time that auth is known to have told, see ``timekeeping``.
CLOCK: Final = Table(
    "clock",
    METADATA,
    Column("name", String(16), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
)

#: Which alarms of a token are in the log, for as long as the token is remembered: each is raised once.
ALARM: Final = Table(
    "alarm",
    METADATA,
    Column("token_id", String(16), primary_key=True),
    Column("event", String(40), primary_key=True),
)

#: Instances that were revoked, until all that they held has ended.
REVOKED: Final = Table(
    "revoked",
    METADATA,
    Column("instance", LargeBinary(16), primary_key=True),
    Column("service", String(125), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("by", String(160), nullable=False),
    Column("reason", String(200), nullable=False),
    Index(None, "until_ms"),
)

#: Services that nobody joins as.
BAN: Final = Table(
    "ban",
    METADATA,
    Column("service", String(125), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("by", String(160), nullable=False),
    Column("reason", String(200), nullable=False),
)

#: The next sequence number of a call from one instance to another, where auth keeps the caller's keys.
SEQUENCE: Final = Table(
    "sequence",
    METADATA,
    Column("source", LargeBinary(16), primary_key=True),
    Column("destination", LargeBinary(16), primary_key=True),
    Column("next", BigInteger, nullable=False),
)

#: Entries from before there were logs in files. They move there when auth starts; after that it is empty.
AUDIT: Final = Table(
    "audit",
    METADATA,
    # SQLite counts by itself only in a column that is exactly INTEGER.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("event", String(32), nullable=False),
    Column("alarm", Boolean, nullable=False),
    Column("service", String(125), nullable=False),
    Column("instance", String(32), nullable=False),
    Column("token_id", String(16), nullable=False),
    Column("detail", String(200), nullable=False),
    Index(None, "token_id", "event"),
)
