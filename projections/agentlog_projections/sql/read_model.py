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

    Ordinals give the order within one aggregate. They come from the log alone, so a rebuild gives the same ones.
    `ended` names the runs that this commit ended, by a fact of their own or by the deletion of their thread.
    """

    place: LogPosition
    draft: Draft
    version: int
    ordinal: int
    ended: tuple[RunId, ...] = ()


class ReadModel(Protocol):
    """A table that answers queries, folded from accepted commits; `apply` may cache rows in memory."""

    name: ClassVar[str]
    version: ClassVar[int]
    ddl: ClassVar[str]
    tables: ClassVar[tuple[str, ...]]

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        """Collect the writes of a batch; the same batch twice gives the same rows.

        Raises ValueError, TypeError or LookupError for a commit that this model cannot hold.
        """
        ...

    def forget(self) -> None:
        """Drop the cached rows: the transaction was lost, or another process wrote."""
        ...


def by_key(batch: Sequence[Commit]) -> dict[Key, list[Commit]]:
    """Group commits by aggregate, each group in log order."""
    groups: dict[Key, list[Commit]] = {}
    for commit in batch:
        groups.setdefault(commit.draft.key, []).append(commit)
    return groups
