"""Tables of the ledger. `migrations/` brings a database to them; a test compares the two."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

revisions = Table(
    "revisions",
    metadata,
    Column("experiment", String(60), primary_key=True),
    Column("serial", Integer, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("state", String(10), nullable=False),
    Column("definition", Text, nullable=False),  # JSON
    Column("declared", Text, nullable=False),  # JSON of the configuration that led here; empty: started by command
    Column("spans", Text, nullable=False),  # JSON
    Column("at", Double, nullable=False),
    Column("stopped", Text, nullable=False),  # JSON list of arms
    Column("held", Text, nullable=False),  # JSON list of arms
)

# One row per image and arm that classified it. `unit` is a hash, 0 where each request is its own unit.
predictions = Table(
    "predictions",
    metadata,
    Column("experiment", String(60), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("arm", String(60), primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("unit", BigInteger, nullable=False),
    Column("answered", Integer, nullable=False),  # 1: this arm's answer went to the client
    Column("class_index", Integer, nullable=False),
    Column("confidence", Double, nullable=False),
    Column("at", Double, nullable=False),
    sqlite_with_rowid=False,
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("request_id", String(128), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("class_index", Integer),
    Column("reward", Double),
    Column("at", Double, nullable=False),
    sqlite_with_rowid=False,
)

# Totals since a writer started, so that a repeated write changes nothing.
tallies = Table(
    "tallies",
    metadata,
    Column("experiment", String(60), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("stage", Integer, primary_key=True),
    Column("arm", String(60), primary_key=True),
    Column("measure", String(12), primary_key=True),
    Column("bucket", Integer, primary_key=True),
    Column("cluster", Integer, primary_key=True),
    Column("writer", String(32), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("total", Double, nullable=False),
    Column("count_squares", Double, nullable=False),
    Column("products", Double, nullable=False),
    Column("squares", Double, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("experiment", String(60), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("at", Double, nullable=False),
    Column("action", String(20), nullable=False),
    Column("arm", String(60), nullable=False),
    Column("actor", String(20), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", Text, nullable=False),  # JSON
    Index("decisions_of_experiment", "experiment", "at"),
)
