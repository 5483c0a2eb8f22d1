"""A run waits for checkpoints whose rows are being built, up to its patience."""

from datetime import timedelta

import pytest
from tests.infra.langgraph.memory_checkpoints import MemoryCheckpoints

from agentlog_facts.checkpoint_ports import StoredCheckpoint
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId, ThreadId
from agentlog_infra.system_ports import SystemClock
from agentlog_processors.runs.retrying_reads import RetryingReads

T1 = ThreadId("t1")


class Built(MemoryCheckpoints):
    """Cannot be read the first few times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    async def latest(self, thread_id: ThreadId, ns: str, exclude_run: RunId | None = None) -> StoredCheckpoint | None:
        self.left -= 1
        if self.left >= 0:
            raise Unavailable("being built")
        return await super().latest(thread_id, ns, exclude_run)


async def test_rows_that_are_being_built_are_asked_for_again() -> None:
    rows = Built(3)
    assert await RetryingReads(rows, SystemClock()).latest(T1, "") is None
    assert rows.left == -1


async def test_rows_that_stay_away_are_told_in_the_end() -> None:
    with pytest.raises(Unavailable, match="being built"):
        await RetryingReads(Built(1000), SystemClock(), timedelta(milliseconds=120)).latest(T1, "")
