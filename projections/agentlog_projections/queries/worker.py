"""Port for the queries of workers, the reaper and the reconciler, and the types of the answers.

No answer shows a partition that is still catching up or has stopped, and none names work on a quarantined thread.
Times are compared by the clock of the database.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from agentlog_commands.claims import CancelRequest, Claim
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_projections.sql.claimable import ReadyRun


@dataclass(frozen=True, slots=True)
class ExecutableRun:
    """A run with the parts of its thread that its execution needs, from one snapshot.

    `ready`: pending, due, not cancelled, and first in the queue of a free thread; `active`: without an end. `values` is
    the thread's JSON view (None: no state yet), `next` the nodes that it shows as left to run: both as before the run.
    `version` is that of the stream `thread-`; `deaths` as in `Claim`. `has_checkpoints` is False if the thread has
    neither checkpoints nor pending writes, hidden ones included.
    """

    run_id: RunId
    thread_id: ThreadId
    graph_id: str
    assistant: JsonObject
    kwargs: JsonObject
    metadata: JsonObject
    temporary: bool
    attempt: int
    counted: int
    epoch: int | None
    cancel: CancelRequest | None
    ready: bool
    active: bool
    thread_metadata: JsonObject
    values: JsonObject | None
    next: tuple[str, ...]
    version: int
    deaths: int = 0
    has_checkpoints: bool = True


@dataclass(frozen=True, slots=True)
class ClaimStatus:
    """Claim of a run as the rows show it, for comparison with the claim that a worker believes it has.

    `epoch` is that of the present claim, None while no worker holds the run. `worker` is the last holder. It is
    compared too: if the log was restored from a copy without the worker's claim, another worker may have got the same
    epoch. `version` is that of the thread's stream; below the worker's epoch, the rows do not show its claim yet. For a
    run that is gone, all fields but `version` are None.
    """

    epoch: int | None
    worker: str | None
    cancel: CancelRequest | None
    version: int


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A run that no worker holds or may claim: cancelled while it was claimed, or lost too often."""

    run_id: RunId
    thread_id: ThreadId
    counted: int
    cancel: CancelRequest | None
    deaths: int = 0


class WorkerQueries(Protocol):
    """Reads for processors. Every method raises Unavailable when the database does not answer."""

    async def work(self, run_id: RunId) -> ExecutableRun | None:
        """Return the run, None when it is unknown, hidden, or its partition not present."""
        ...

    async def run_version(self, thread_id: ThreadId, run_id: RunId) -> int | None:
        """Return the version of the stream `run-`, None when nothing was accepted on it.

        Raises: Unavailable also while the partition is not present.
        """
        ...

    async def marks(self, runs: Mapping[RunId, ThreadId]) -> Mapping[RunId, ClaimStatus]:
        """Return epoch and cancel request of runs (id -> thread).

        Those whose partition is not present, or whose thread is not known, are missing.
        """
        ...

    async def claims(self, limit: int) -> Sequence[Claim]:
        """Return claimed runs, the oldest claims first; `progressed` is not filled in."""
        ...

    async def with_progress(self, claim: Claim) -> Claim:
        """Return the claim with `progressed` filled in from the ledger."""
        ...

    async def leftovers(self, retries: int) -> Sequence[UnfinishedRun]:
        """Return released runs that still have to be ended."""
        ...

    async def waiting_graphs(self) -> Collection[str]:
        """Return the ids of the graphs of all runs that may be claimed now."""
        ...

    async def waiting_long(self, graph_ids: Collection[str], waited: timedelta) -> Sequence[UnfinishedRun]:
        """Return runs of these graphs that may be claimed now and have been due for longer than `waited`.

        At most 1,000, the oldest first.
        """
        ...

    async def ready(self, limit: int) -> Sequence[ReadyRun]:
        """Return runs that may be claimed now, the oldest first."""
        ...

    async def next_due(self) -> timedelta | None:
        """Return the time until the next delayed run is due, None when there is none."""
        ...
