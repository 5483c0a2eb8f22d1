"""Tests of reads with retries: a run waits for checkpoints while rows are rebuilt, up to a limit."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from tests.infra.langgraph.memory_checkpoints import MemoryCheckpoints

from agentlog_facts.checkpoint_ports import CheckpointQuery, StoredCheckpoint, find_latest
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import ThreadId
from agentlog_infra.system_ports import SystemClock
from agentlog_processors.runs.retrying_reads import RetryingReads

T1 = ThreadId("t1")


class Built(MemoryCheckpoints):
    """Rows that cannot be read the first few times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        self.left -= 1
        if self.left >= 0:
            raise Unavailable("being built")
        return await super().find(query)


async def test_rows_that_are_being_built_are_asked_for_again() -> None:
    rows = Built(3)
    assert await find_latest(RetryingReads(rows, SystemClock()), T1, "") is None
    assert rows.left == -1


async def test_rows_that_stay_away_are_told_in_the_end() -> None:
    with pytest.raises(Unavailable, match="being built"):
        await find_latest(RetryingReads(Built(1000), SystemClock(), timedelta(milliseconds=120)), T1, "")
