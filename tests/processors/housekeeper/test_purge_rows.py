"""Tests of the purge: bounded batches, repeated while rows are found, and outages of the database."""

import asyncio
from datetime import timedelta

from agentlog_facts.errors import Unavailable
from agentlog_processors.housekeeper.purge_rows import PurgeRows

WEEK = timedelta(days=7)


class Rows:
    """Deleted threads; the database is away at the first query."""

    def __init__(self, threads: int) -> None:
        self.left = threads
        self.calls: list[tuple[timedelta, int]] = []
        self.empty, self.looked = asyncio.Event(), asyncio.Event()

    async def purge(self, after: timedelta, limit: int) -> int:
        self.calls.append((after, limit))
        self.looked.set()
        if len(self.calls) == 1:
            raise Unavailable("rows: switched off")
        erased = min(limit, self.left)
        self.left -= erased
        if not self.left:
            self.empty.set()
        return erased


async def test_everything_that_is_old_enough_goes_in_portions_although_the_rows_were_away_at_first() -> None:
    rows, stop = Rows(25), asyncio.Event()
    duty = PurgeRows(rows.purge, WEEK, every=timedelta(milliseconds=1), at_once=10)
    running = asyncio.create_task(duty.run(stop))
    async with asyncio.timeout(10):
        await rows.empty.wait()
        stop.set()
        await running
    assert set(rows.calls) == {(WEEK, 10)}
    assert len(rows.calls) >= 4


async def test_a_stop_ends_the_wait_between_two_looks() -> None:
    rows, stop = Rows(0), asyncio.Event()
    running = asyncio.create_task(PurgeRows(rows.purge, WEEK, every=timedelta(hours=1)).run(stop))
    async with asyncio.timeout(10):
        await rows.looked.wait()
        stop.set()
        await running
    assert len(rows.calls) == 1
