"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates all tables in an empty database."""
    _create_revisions()
    _create_observations()
    _create_decisions()


def _create_revisions() -> None:
    op.create_table(
        "revisions",
        sa.Column("experiment", sa.String(60), primary_key=True),
        sa.Column("serial", sa.Integer, primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("stage", sa.Integer, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("declared", sa.Text, nullable=False),
        sa.Column("spans", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )


def _create_observations() -> None:
    """Predictions, their outcomes, and the tallies of both."""
    op.create_table(
        "predictions",
        sa.Column("experiment", sa.String(60), primary_key=True),
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("arm", sa.String(60), primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("stage", sa.Integer, nullable=False),
        sa.Column("unit", sa.BigInteger, nullable=False),
        sa.Column("answered", sa.Integer, nullable=False),
        sa.Column("class_index", sa.Integer, nullable=False),
        sa.Column("confidence", sa.Double, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outcomes",
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("class_index", sa.Integer),
        sa.Column("reward", sa.Double),
        sa.Column("at", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tallies",
        sa.Column("experiment", sa.String(60), primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True),
        sa.Column("stage", sa.Integer, primary_key=True),
        sa.Column("arm", sa.String(60), primary_key=True),
        sa.Column("measure", sa.String(12), primary_key=True),
        sa.Column("bucket", sa.Integer, primary_key=True),
        sa.Column("writer", sa.String(32), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("total", sa.Double, nullable=False),
        sa.Column("squares", sa.Double, nullable=False),
    )


def _create_decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("experiment", sa.String(60), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("action", sa.String(20), nullable=False),
        sa.Column("arm", sa.String(60), nullable=False),
        sa.Column("actor", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
    )
    op.create_index("decisions_of_experiment", "decisions", ["experiment", "at"])
