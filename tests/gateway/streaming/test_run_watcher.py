"""Watcher of runs: hints, polling, and outages of the rows."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
from tests.gateway.stream_env import DEADLINE_S, RUN, THREAD, Rows

from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId
from agentlog_facts.notification import Hint
from agentlog_gateway.streaming.run_watcher import RunWatcher
from agentlog_projections.queries.run_status import RunStatusRow

ENDED = Hint(0, 0, 1, ended=(RUN,))


class SlowRows(Rows):
    """Rows whose reads wait for `go`, with the values of the selected runs."""

    def __init__(self) -> None:
        super().__init__()
        self.by_id[RUN] = RunStatusRow(RUN, THREAD, "pending")
        self.go = asyncio.Event()
        self.go.set()

    def end(self) -> None:
        """End the run."""
        self.by_id[RUN] = replace(self.by_id[RUN], status="success", values={"n": 1})

    async def rows(
        self, run_ids: Sequence[RunId], with_values: Collection[RunId] = ()
    ) -> Mapping[RunId, RunStatusRow | None]:
        found = await super().rows(run_ids)
        await self.go.wait()
        return {
            run_id: row if run_id in with_values else row and replace(row, values=None) for run_id, row in found.items()
        }


@pytest.fixture
async def rows() -> SlowRows:
    """Return rows with one pending run."""
    return SlowRows()


@pytest.fixture
async def watcher(rows: SlowRows) -> AsyncIterator[RunWatcher]:
    """Yield a running watcher."""
    async with asyncio.timeout(DEADLINE_S):
        made = RunWatcher(rows, 0.05)
        serving = asyncio.ensure_future(made.run())
        yield made
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def test_a_waiting_call_gets_the_row_with_values_and_a_stream_on_the_same_run_is_woken(
    watcher: RunWatcher, rows: SlowRows
) -> None:
    woken = asyncio.Event()
    stream = watcher.subscribe(RUN, woken.set)
    waiting = asyncio.create_task(watcher.outcome(RUN, with_values=True))
    await asyncio.sleep(0)
    rows.end()
    watcher.on_hint(ENDED)
    await woken.wait()
    found = await waiting
    assert found is not None
    assert found.values == {"n": 1}
    assert stream.over
    assert rows.asked == 1


async def test_a_run_that_ended_before_the_subscription_is_looked_at(watcher: RunWatcher, rows: SlowRows) -> None:
    watcher.on_hint(ENDED)
    rows.end()
    found = await watcher.outcome(RUN)
    assert found is not None
    assert found.ended
    assert rows.asked == 1


async def test_a_call_that_looks_first_needs_no_hint(watcher: RunWatcher, rows: SlowRows) -> None:
    assert await watcher.outcome(RunId("nobody"), look_first=True) is None
    assert rows.asked == 1


async def test_polling_replaces_a_hint_that_was_lost(watcher: RunWatcher, rows: SlowRows) -> None:
    waiting = asyncio.create_task(watcher.outcome(RUN))
    await rows.asked_again(2)
    rows.end()
    assert await waiting == replace(rows.by_id[RUN], values=None)


async def test_a_call_that_comes_while_the_rows_are_read_for_a_stream_gets_its_values_all_the_same(
    watcher: RunWatcher, rows: SlowRows
) -> None:
    rows.end()
    rows.go.clear()
    stream = watcher.subscribe(RUN, lambda: None)
    watcher.on_hint(ENDED)
    await rows.asked_again(1)
    waiting = asyncio.create_task(watcher.outcome(RUN, with_values=True))
    await asyncio.sleep(0)
    rows.go.set()
    found = await waiting
    assert found is not None
    assert found.values == {"n": 1}
    assert stream.over


@pytest.mark.parametrize("built", [False, True])
async def test_rows_that_stay_away_end_a_waiting_call_and_no_stream(
    watcher: RunWatcher, rows: SlowRows, built: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentlog_gateway.timeouts.OUTAGE_S", 0.01)
    rows.away, rows.built = not built, built
    stream = watcher.subscribe(RUN, lambda: None)
    with pytest.raises(Unavailable):
        await watcher.outcome(RUN, look_first=True)
    rows.away = rows.built = False
    rows.end()
    watcher.on_hint(ENDED)
    await rows.asked_again(rows.asked + 1)
    await asyncio.sleep(0)
    assert stream.over


async def test_rows_that_come_back_end_no_call(
    watcher: RunWatcher, rows: SlowRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.away = True
    waiting = asyncio.create_task(watcher.outcome(RUN, look_first=True))
    await rows.asked_again(2)
    rows.away = False
    asked = rows.asked
    await rows.asked_again(asked + 1)
    monkeypatch.setattr("agentlog_gateway.timeouts.OUTAGE_S", 0.0)
    assert not waiting.done()
    rows.end()
    assert await waiting is not None


async def test_a_call_that_is_cancelled_leaves_nothing_to_ask_for(watcher: RunWatcher, rows: SlowRows) -> None:
    waiting = asyncio.create_task(watcher.outcome(RUN))
    await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    watcher.on_hint(ENDED)
    later = asyncio.create_task(watcher.outcome(RunId("nobody"), look_first=True))
    assert await later is None
    assert rows.asked == 1
