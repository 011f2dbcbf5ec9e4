"""Tallies by clusters of units; stopped arms and held ramps.

Earlier counts stay readable. Their requests are known, so error rates and latencies of experiments by request continue unchanged.
Costs of images, and all counts of sticky keys, were stored without their units: they become one cluster, which alone gives no
bounds.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ANCIENT = -1
BY_REQUEST = """
    SELECT 1 FROM revisions WHERE revisions.experiment = old_tallies.experiment
    AND revisions.revision = old_tallies.revision AND revisions.definition LIKE '%"sticky":"request"%'
"""
COPY = f"""
    INSERT INTO tallies (experiment, revision, stage, arm, measure, bucket, cluster, writer,
                         requests, count, total, count_squares, products, squares)
    SELECT experiment, revision, stage, arm, measure, bucket,
           CASE WHEN measure IN ('latency', 'failed', 'dropped') AND EXISTS ({BY_REQUEST}) THEN 0 ELSE {ANCIENT} END,
           writer, count, count, total, count, total, squares
    FROM old_tallies
"""


def upgrade() -> None:
    """Replaces the table of tallies and adds the columns `stopped` and `held` to the revisions."""
    op.rename_table("tallies", "old_tallies")
    op.create_table(
        "tallies",
        sa.Column("experiment", sa.String(60), primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True),
        sa.Column("stage", sa.Integer, primary_key=True),
        sa.Column("arm", sa.String(60), primary_key=True),
        sa.Column("measure", sa.String(12), primary_key=True),
        sa.Column("bucket", sa.Integer, primary_key=True),
        sa.Column("cluster", sa.Integer, primary_key=True),
        sa.Column("writer", sa.String(32), primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("total", sa.Double, nullable=False),
        sa.Column("count_squares", sa.Double, nullable=False),
        sa.Column("products", sa.Double, nullable=False),
        sa.Column("squares", sa.Double, nullable=False),
    )
    op.execute(sa.text(COPY))
    op.drop_table("old_tallies")
    for column in ("stopped", "held"):
        op.add_column("revisions", sa.Column(column, sa.Text, nullable=False, server_default="[]"))
    _say_who_was_stopped()


def _say_who_was_stopped() -> None:
    """Arms without a share in the state that each experiment has now, unless that is its definition's, or a promotion's."""
    connection = op.get_bind()
    newest = sa.text(
        "SELECT experiment, serial, state, definition, spans FROM revisions AS one WHERE serial ="
        " (SELECT max(serial) FROM revisions WHERE experiment = one.experiment)"
    )
    change = sa.text("UPDATE revisions SET stopped = :stopped WHERE experiment = :experiment AND serial = :serial")
    for experiment, serial, state, definition, spans in connection.execute(newest).all():
        document = json.loads(definition)
        by_weight = document["mode"] in ("split", "bandit")
        if state != "stopped" and not (state == "running" and by_weight):
            continue
        present = {arm for _, arm in json.loads(spans)}
        stopped = [arm["name"] for arm in document["arms"] if arm["name"] not in present and arm["weight"] != 0]
        connection.execute(change, {"stopped": json.dumps(stopped), "experiment": experiment, "serial": serial})
