"""Marks that PostgreSQL removes itself when a crash may have taken back commits: an unlogged table."""

from alembic import op

revision = "0006"
down_revision = "0005"

TABLES = """
CREATE UNLOGGED TABLE ledger.crash_marks (
    partition int PRIMARY KEY   -- its rows were complete once, and no crash has emptied this table since
);
INSERT INTO ledger.crash_marks SELECT partition FROM ledger.positions;
"""
"""Earlier releases waited for the disk at each commit, so the rows that they have left are complete."""


def upgrade() -> None:
    """Create the table."""
    op.execute(TABLES)


def downgrade() -> None:
    """Drop the table: earlier releases wait for the disk at each commit."""
    op.execute("DROP TABLE ledger.crash_marks")
