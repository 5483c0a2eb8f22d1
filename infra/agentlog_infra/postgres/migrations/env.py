"""Environment of Alembic: it writes SQL, which `agentlog_infra.postgres.migrate` executes."""

from alembic import context

context.configure(dialect_name="postgresql", version_table="alembic_version", version_table_schema="ledger")
context.run_migrations()
