"""What a projector does not fold any more: partitions that hold what its release does not know."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; it goes with its projector."""
    op.execute("ALTER TABLE ledger.projectors ADD COLUMN refused int[] NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Drop it: it says only who folds what now."""
    op.execute("ALTER TABLE ledger.projectors DROP COLUMN refused")
