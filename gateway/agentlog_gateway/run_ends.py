"""Decides how a gateway learns that a run has ended: by hint, and by asking for the rows of watched runs now and then."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import RunStatus


@dataclass(frozen=True, slots=True)
class RunRow:
    """What a stream needs of `read_v1.runs`.

    `resumable` is `kwargs.resumable`; `deleted`: the run is hidden (deleted by somebody, or rolled back); `error` as in
    RunFinished ({error, message}); rows of a deleted temporary thread are returned too, hidden or not.
    """

    run_id: RunId
    thread_id: ThreadId
    status: RunStatus
    resumable: bool = False
    epoch: int | None = None
    outputs_from: int | None = None
    outputs_to: int | None = None
    finished_event_id: str | None = None
    error: JsonObject | None = None
    deleted: bool = False

    @property
    def ended(self) -> bool:
        """Tell whether the run's end was accepted, or the run is gone."""
        return self.deleted or self.status not in ("pending", "running")


class RunRows(Protocol):
    """Rows of runs by id; implemented over `agentlog_projections.runs` in the composition root."""

    async def rows(self, run_ids: Sequence[RunId]) -> Mapping[RunId, RunRow]:
        """Return the rows that exist, deleted ones and those of deleted threads included. Raises: Unavailable."""
        ...
