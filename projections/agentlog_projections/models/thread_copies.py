"""Read model `thread_copies`: the progress of copies of threads, one row for each new thread."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from agentlog_facts.thread import ThreadCopied
from agentlog_facts.thread_copy import ThreadCopyAsked, ThreadCopyContinued, ThreadCopyGivenUp
from agentlog_projections.sql.batch import Transaction
from agentlog_projections.sql.columns import Column, Columns
from agentlog_projections.sql.read_model import Commit, by_key
from agentlog_projections.sql.schema import PRELUDE

COLUMNS = Columns(
    Column("thread_id", "text PRIMARY KEY"),
    Column("partition", "int NOT NULL"),
    Column("source_thread_id", "text NOT NULL"),
    Column("event_id", "text NOT NULL"),
    Column("asked_at", "timestamptz NOT NULL"),
    Column("copied_to", "bigint NOT NULL"),
    Column("version", "bigint NOT NULL"),
    Column("state", "text NOT NULL"),
    Column("ordinal", "bigint NOT NULL"),
)
_LOAD = f"SELECT {COLUMNS.names} FROM read_v1.thread_copies WHERE thread_id = ANY($1::text[])"
_WRITE = f"""
INSERT INTO read_v1.thread_copies ({COLUMNS.names}) SELECT {COLUMNS.names} FROM {COLUMNS.unnested}
ON CONFLICT (thread_id) DO UPDATE SET {COLUMNS.without("thread_id").assigned("excluded")}
"""


@dataclass(slots=True)
class CopyRow:
    """A row: `event_id` is that of the commit that asked, `version` that of the stream `copy-`."""

    thread_id: str
    partition: int
    source_thread_id: str
    event_id: str
    asked_at: datetime
    copied_to: int = 0
    version: int = 0
    state: str = "open"
    ordinal: int = 0


class ThreadCopiesModel:
    """Folds copies; it caches no rows between batches."""

    name: ClassVar[str] = "thread_copies"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[str, ...]] = ("thread_copies",)
    ddl: ClassVar[str] = f"""{PRELUDE}
CREATE TABLE IF NOT EXISTS read_v1.thread_copies (
    {COLUMNS.definitions}
);
CREATE INDEX IF NOT EXISTS thread_copies_open ON read_v1.thread_copies (asked_at) WHERE state = 'open';
"""

    def forget(self) -> None:
        """Do nothing: no rows are cached."""

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        """Collect one row per touched copy."""
        groups = by_key([commit for commit in batch if _is_of_copy(commit)])
        if not groups:
            return
        rows = {row["thread_id"]: COLUMNS.read(CopyRow, row) for row in await tx.fetch(_LOAD, list(groups))}
        for key, commits in groups.items():
            for commit in commits:
                row = _fold(rows.get(key), commit)
                if row is not None:
                    rows[key] = row
        if rows:
            tx.write(_WRITE, *COLUMNS.arguments(rows.values()))


def _is_of_copy(commit: Commit) -> bool:
    copied = any(isinstance(fact, ThreadCopied) for fact in commit.draft.facts)
    return commit.draft.stream.startswith("copy-") or copied


def _fold(row: CopyRow | None, commit: Commit) -> CopyRow | None:
    if row is not None and row.ordinal > commit.ordinal:
        return row
    draft = commit.draft
    for fact in draft.facts:
        match fact:
            case ThreadCopyAsked():
                source, partition = fact.source_thread_id, commit.place.partition
                row = CopyRow(fact.thread_id, partition, source, draft.event_id, draft.occurred_at)
            case ThreadCopyContinued() if row is not None:
                row.copied_to = fact.up_to
            case ThreadCopyGivenUp() if row is not None:
                row.state = "given_up"
            case ThreadCopied() if row is not None:
                row.state = "done"
            case _:
                pass
    if row is not None:
        row.ordinal = commit.ordinal + len(draft.facts)
        if draft.stream.startswith("copy-"):
            row.version = commit.version
    return row
