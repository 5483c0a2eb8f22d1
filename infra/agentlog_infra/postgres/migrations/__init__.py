"""Tables of the ledger, as Alembic revisions in plain SQL; `agentlog_infra.postgres.migrate` runs them."""
