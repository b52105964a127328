"""Recorded decisions as rows: which of them are one row, and both ways between them and observations.

Rows of a minute are one if nothing but times and counts parts them: ``digest`` stands for all the rest. Of
calls that were not recorded it is those of an hour, and only the destination is known: the other texts are
empty.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    String,
    Table,
    UniqueConstraint,
)

from mesh.core.observed import Gap, Observation, Seen

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS

TABLES: Final = MetaData()
ROW: Final = Table(
    "decision",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("bucket_ms", BigInteger, nullable=False),
    Column("digest", LargeBinary(16), nullable=False),
    Column("destination", String(125), nullable=False, index=True),
    Column("source", String(125), nullable=False),
    Column("method", String(512), nullable=False),
    Column("verdict", String(8), nullable=False),
    Column("rule", String(160), nullable=False),
    Column("by", String(160), nullable=False),
    Column("policy", BigInteger, nullable=False),
    Column("metadata", String, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False, index=True),
    UniqueConstraint("bucket_ms", "digest"),
)


def as_row(seen: Seen) -> dict[str, object]:
    """Give what was seen as a row, without its id."""
    row: dict[str, object] = dict.fromkeys(("source", "method", "verdict", "rule", "by", "metadata"), "")
    row["policy"] = 0
    if isinstance(seen, Observation):
        row |= {
            "source": seen.source,
            "method": seen.method,
            "verdict": seen.verdict,
            "rule": seen.rule or "",
            "by": seen.by or "",
            "policy": seen.policy,
            "metadata": json.dumps(seen.metadata),
        }
    digest = hashlib.blake2b(json.dumps([seen.destination, *row.values()]).encode(), digest_size=16).digest()
    # By its end, which is within the time that rows are kept: so nobody makes gaps without number.
    bucket, at_ms = (HOUR_MS, seen.last_ms) if isinstance(seen, Gap) else (MINUTE_MS, seen.first_ms)
    return row | {
        "bucket_ms": at_ms // bucket * bucket,
        "digest": digest,
        "destination": seen.destination,
        "calls": seen.count,
        "first_ms": seen.first_ms,
        "last_ms": seen.last_ms,
    }


def seen_in(row: RowMapping) -> Seen:
    """Give what a row says was seen."""
    first_ms, last_ms, count = row["first_ms"], row["last_ms"], row["calls"]
    if not row["source"]:
        return Gap(row["destination"], first_ms, last_ms, count)
    metadata = tuple((key, tuple(values)) for key, values in json.loads(row["metadata"]))
    said = (row["verdict"], row["rule"] or None, row["by"] or None, row["policy"], metadata)
    return Observation(row["source"], row["destination"], row["method"], first_ms, last_ms, count, *said)
