"""Columns and indexes for changes of assistants in rows of an earlier release; new tables have them already.

An earlier release wrote one fact a commit, each the next version, and only servers wrote them.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

INDEXES = (
    "assistants_created ON read_v1.assistants (created_at, assistant_id) WHERE NOT deleted",
    "assistants_updated ON read_v1.assistants (updated_at, assistant_id) WHERE NOT deleted",
    "assistants_name ON read_v1.assistants (name, assistant_id) WHERE NOT deleted",
    "assistants_graph ON read_v1.assistants (graph_id, assistant_id) WHERE NOT deleted",
    "assistants_metadata ON read_v1.assistants USING gin (read_v1.searchable(metadata) jsonb_path_ops) "
    "WHERE NOT deleted",
    "assistants_deletions ON read_v1.assistants (deletion_asked_at) WHERE deletion IS NOT NULL",
    "runs_active_of_assistant ON read_v1.runs (assistant_id) WHERE status IN ('pending', 'running')",
)
NEW = ("newest", "revision", "system_description", "deletion", "deletion_asked_at")


def upgrade() -> None:
    """Add the columns, fill them, and make the indexes."""
    made = "\n".join(f"CREATE INDEX IF NOT EXISTS {one};" for one in INDEXES)
    op.execute(f"""
DO $$ BEGIN
  IF to_regclass('read_v1.assistants') IS NOT NULL THEN
    ALTER TABLE read_v1.assistants
      ADD COLUMN IF NOT EXISTS newest int, ADD COLUMN IF NOT EXISTS revision bigint,
      ADD COLUMN IF NOT EXISTS system_description text, ADD COLUMN IF NOT EXISTS deletion json,
      ADD COLUMN IF NOT EXISTS deletion_asked_at timestamptz;
    UPDATE read_v1.assistants SET newest = version, revision = version - 1, system_description = description
     WHERE newest IS NULL;
    ALTER TABLE read_v1.assistants ALTER COLUMN newest SET NOT NULL, ALTER COLUMN revision SET NOT NULL;
    {made}
  END IF;
END $$
""")


def downgrade() -> None:
    """Drop them."""
    for one in INDEXES:
        op.execute(f"DROP INDEX IF EXISTS read_v1.{one.partition(' ')[0]}")
    for name in NEW:
        op.execute(f"ALTER TABLE IF EXISTS read_v1.assistants DROP COLUMN IF EXISTS {name}")
