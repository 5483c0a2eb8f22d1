"""Column for the partitions that a projector has given up, because they hold records of a newer release."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; its value goes with the row of the projector."""
    op.execute("ALTER TABLE ledger.projectors ADD COLUMN refused int[] NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Drop the column: it describes only projectors that run now."""
    op.execute("ALTER TABLE ledger.projectors DROP COLUMN refused")
