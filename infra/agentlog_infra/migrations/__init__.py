"""Tables of the ledger, as Alembic revisions in plain SQL; `agentlog_infra.migrate` runs them."""
