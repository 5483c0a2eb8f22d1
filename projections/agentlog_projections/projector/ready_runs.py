"""Notifier of workers: it announces runs that become ready by a commit, or when a partition becomes usable.

A lost announcement is harmless: the housekeeper repeats it.
"""

from collections.abc import Collection, Mapping, Sequence

from agentlog_facts.ids import Key, RunId
from agentlog_postgres.connection import Connection, Executor
from agentlog_projections.models.runs import RunsModel
from agentlog_projections.projector.announcer import Announcer, may_be_ready
from agentlog_projections.projector.quarantine import Quarantine
from agentlog_projections.projector.verdicts import Known
from agentlog_projections.sql.claimable import ReadyRun, ready_runs
from agentlog_projections.sql.read_model import Commit

_OF_THREADS = ready_runs("r.thread_id = ANY($1::text[])")
_OF_PARTITIONS = ready_runs("r.partition = ANY($1::int[])")


class ReadyRunNotifier:
    """Announces the ready runs of the partitions that one session holds."""

    def __init__(self, connection: Connection, announcer: Announcer, runs: RunsModel, quarantine: Quarantine) -> None:
        self._connection = connection
        self._announcer = announcer
        self._runs = runs
        self._quarantine = quarantine

    async def after(self, commits: Collection[Commit], known: Mapping[Key, Known]) -> None:
        """Announce the runs that these commits made ready, from the cache or, where that cannot tell, from the rows."""
        ready: list[ReadyRun] = []
        unsure: list[Key] = []
        for key in may_be_ready(commits):
            head = known[key].head
            if not head.runs or head.claimed is not None or self._quarantine.holds(self._runs.name, key):
                continue
            run = self._runs.ready_of(head.runs.keys())
            if run is None:
                unsure.append(key)
            else:
                ready.append(run)
        if unsure:
            ready.extend(await ready_of_threads(self._connection, unsure))
        if ready:
            self._announcer.announce([], ready)

    async def all_of(self, partitions: Sequence[int]) -> None:
        """Announce all ready runs of partitions that have just become usable."""
        ready = await ready_of_partitions(self._connection, partitions) if partitions else []
        if ready:
            self._announcer.announce([], ready)


async def ready_of_threads(connection: Executor, thread_ids: Sequence[str]) -> list[ReadyRun]:
    """Return the runs that may be claimed now on these threads."""
    return await _ready(connection, _OF_THREADS, thread_ids)


async def ready_of_partitions(connection: Executor, partitions: Sequence[int]) -> list[ReadyRun]:
    """Return the runs that may be claimed now in these partitions."""
    return await _ready(connection, _OF_PARTITIONS, partitions)


async def _ready(connection: Executor, sql: str, *arguments: object) -> list[ReadyRun]:
    rows = await connection.fetch(sql, *arguments)
    return [ReadyRun(RunId(row["run_id"]), row["graph_id"], suspect=row["deaths"] > 0) for row in rows]
