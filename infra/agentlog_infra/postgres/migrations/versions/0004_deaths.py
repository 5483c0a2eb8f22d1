"""Column for the deaths of a run's worker in rows of an earlier release; new tables have it from their read model."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; runs of workers that died earlier are not suspects."""
    op.execute("ALTER TABLE IF EXISTS read_v1.runs ADD COLUMN IF NOT EXISTS deaths int NOT NULL DEFAULT 0")


def downgrade() -> None:
    """Drop the column."""
    op.execute("ALTER TABLE IF EXISTS read_v1.runs DROP COLUMN IF EXISTS deaths")
