"""Read model interface, and the accepted commits that it folds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from agentlog_facts.envelope import Draft, LogPosition
from agentlog_facts.ids import Key, RunId
from agentlog_projections.sql.batch import Transaction


@dataclass(frozen=True, slots=True)
class Commit:
    """An accepted commit: `version` on its stream; `ordinal` counts the facts its aggregate had accepted before it.

    Ordinals order what one aggregate holds. They come from the log alone, so a rebuild gives the same ones.
    `ended` names the runs that this commit ended, whatever by: their own end or that of their thread.
    """

    place: LogPosition
    draft: Draft
    version: int
    ordinal: int
    ended: tuple[RunId, ...] = ()


class ReadModel(Protocol):
    """A table that answers questions, folded from accepted commits; `apply` keeps what it has folded in memory."""

    name: ClassVar[str]
    version: ClassVar[int]
    ddl: ClassVar[str]
    tables: ClassVar[tuple[str, ...]]

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        """Collect the writes that the batch asks for; the same batch twice gives the same rows.

        Raises ValueError, TypeError or LookupError for a commit that this model cannot hold.
        """
        ...

    def forget(self) -> None:
        """Drop what is remembered of rows: the transaction was lost, or somebody else wrote."""
        ...


def by_key(batch: Sequence[Commit]) -> dict[Key, list[Commit]]:
    """Group commits by aggregate, each group in log order."""
    groups: dict[Key, list[Commit]] = {}
    for commit in batch:
        groups.setdefault(commit.draft.key, []).append(commit)
    return groups
