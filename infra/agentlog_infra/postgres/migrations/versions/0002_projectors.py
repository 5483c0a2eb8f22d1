"""Table of the projectors that share the partitions: last heartbeat and connection of each."""

from alembic import op

revision = "0002"
down_revision = "0001"

TABLES = """
CREATE TABLE ledger.projectors (
    owner         text PRIMARY KEY,       -- as in positions.owner
    seen_at       timestamptz NOT NULL,   -- its last heartbeat, by the clock of the database
    backend       int NOT NULL,           -- pid and start of the server process of its connection: gone with a
    backend_start timestamptz NOT NULL    -- projector that was killed, before its heartbeat is overdue
) WITH (fillfactor = 50);
"""


def upgrade() -> None:
    """Create the table."""
    op.execute(TABLES)


def downgrade() -> None:
    """Drop the table: it describes only projectors that run now."""
    op.execute("DROP TABLE ledger.projectors")
