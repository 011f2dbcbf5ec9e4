"""The ledger: assignments, outcomes and decisions, in SQLite or PostgreSQL."""
