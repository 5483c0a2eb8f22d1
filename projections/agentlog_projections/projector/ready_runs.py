"""Decides which runs workers are offered: after a commit, and where a partition comes into use.

Losing an offer is harmless: the housekeeper makes it again.
"""

from collections.abc import Collection, Mapping, Sequence

from agentlog_facts.ids import Key
from agentlog_projections.models.runs import ReadyRun, RunsModel, ready_of_partitions, ready_of_threads
from agentlog_projections.projector.announcer import Announcer, may_be_ready
from agentlog_projections.projector.quarantine import Quarantine
from agentlog_projections.projector.verdicts import Known
from agentlog_projections.sql.database import Connection
from agentlog_projections.sql.read_model import Commit


class ReadyRunNotifier:
    """Offers runs of the partitions that one fold holds."""

    def __init__(self, connection: Connection, announcer: Announcer, runs: RunsModel, quarantine: Quarantine) -> None:
        """What is quarantined is not offered."""
        self._connection = connection
        self._announcer = announcer
        self._runs = runs
        self._quarantine = quarantine

    async def after(self, commits: Collection[Commit], known: Mapping[Key, Known]) -> None:
        """Offer the runs that may be claimed now: known ones at once, the others by a look at the rows."""
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
        """Offer all waiting runs of partitions of which nothing was offered until now."""
        ready = await ready_of_partitions(self._connection, partitions) if partitions else []
        if ready:
            self._announcer.announce([], ready)
