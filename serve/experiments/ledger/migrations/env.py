"""Alembic's entry: runs the migrations on the connection that `serve.experiments.ledger.store` opened."""

from __future__ import annotations

from alembic import context

from serve.experiments.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
