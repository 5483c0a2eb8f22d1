"""Column for the time of the last progress of each partition."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; every batch sets it, by the clock of the database."""
    op.execute("ALTER TABLE ledger.positions ADD COLUMN moved_at timestamptz NOT NULL DEFAULT clock_timestamp()")


def downgrade() -> None:
    """Drop the column: it describes only the present."""
    op.execute("ALTER TABLE ledger.positions DROP COLUMN moved_at")
