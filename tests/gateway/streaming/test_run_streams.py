"""Streams of runs as their clients see them, in spite of faults of runs, connections and the log."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import pytest
from tests.contracts.conftest import FramesEnv
from tests.contracts.memory_frames import MemoryFrames
from tests.gateway.stream_env import (
    DEADLINE_S,
    OTHER_THREAD,
    RUN,
    THREAD,
    Event,
    StreamEnv,
    encoded,
    everything,
    parsed,
    some,
    stream_env_over,
)

from agentlog_facts.errors import Unavailable
from agentlog_facts.frame import SLOTS, Frame, FrameRecord, event_id
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json
from agentlog_facts.ports import FrameTail, PositionedFrames
from agentlog_gateway.streaming.run_stream import RunStream
from agentlog_gateway.streaming.stream_modes import stream_modes

NOT_FOUND: Event = (None, "error", {"error": "HTTPException", "message": "404: Run not found"})


@pytest.fixture
async def memory() -> AsyncIterator[tuple[StreamEnv, MemoryFrames]]:
    """Yield streams over frames in memory."""
    frames = MemoryFrames()
    async with stream_env_over(frames, frames) as made:
        yield made, frames


@pytest.fixture
async def claimed(memory: tuple[StreamEnv, MemoryFrames]) -> StreamEnv:
    """Return a claimed run that has flushed one value."""
    made = memory[0]
    made.create()
    await made.claim()
    await made.flush(_value(0))
    return made


def _value(number: int, ns: str = "") -> Frame:
    return Frame("values", {"n": number}, ns)


def _without_ids(events: list[Event]) -> list[tuple[str, Json]]:
    return [(event, data) for _, event, data in events]


async def _from_start(env: StreamEnv, run_id: RunId = RUN) -> list[Event]:
    return await everything(await env.streams.join(THREAD, run_id, last_event_id="0"))


async def test_a_stream_opened_before_its_run_shows_all_of_it_and_ends(
    memory: tuple[StreamEnv, MemoryFrames],
) -> None:
    made, frames = memory
    live = await made.streams.open(THREAD)
    made.create(resumable=False)
    events = live.events(RUN, resumable=False)
    reading = asyncio.ensure_future(everything(events))
    await made.claim()
    await made.flush(_value(1), _value(2, "child:1"))
    await made.finish(_value(3))
    values: list[tuple[str, Json]] = [("values", {"n": 1}), ("values|child:1", {"n": 2}), ("values", {"n": 3})]
    assert (await reading)[1:] == [(None, *value) for value in values]
    assert events.ended
    assert frames.listeners() == 0


async def test_a_run_that_ends_before_anybody_reads_its_stream_is_shown_whole(
    memory: tuple[StreamEnv, MemoryFrames],
) -> None:
    made, _ = memory
    live = await made.streams.open(THREAD)
    made.create()
    await made.claim()
    await made.finish(_value(1))
    await asyncio.sleep(0)  # one turn: the hint arrives before any subscription
    shown = await everything(live.events(RUN, resumable=True))
    assert _without_ids(shown)[1:] == [("values", {"n": 1})]
    assert shown == await _from_start(made)


async def test_an_end_waits_for_its_fact_and_a_void_one_is_never_shown(claimed: StreamEnv) -> None:
    reading = asyncio.ensure_future(everything(await claimed.streams.join(THREAD, RUN, last_event_id="0")))
    await claimed.flush(Frame("values", {"n": "void end"}), end="void-finish")
    await claimed.flush(_value(5))  # the stopped attempt flushes after its end
    await claimed.claim()
    await claimed.flush(_value(6))
    await claimed.finish(_value(7))
    shown = await reading
    assert [data for _, event, data in shown if event == "values"] == [{"n": 0}, {"n": 6}, {"n": 7}]
    assert shown == await _from_start(claimed)


async def test_late_and_repeated_flushes_and_those_of_other_runs_never_show(claimed: StreamEnv) -> None:
    reading = asyncio.ensure_future(everything(await claimed.streams.join(THREAD, RUN, last_event_id="-")))
    old = claimed.epoch
    await claimed.flush(_value(1))
    await claimed.flush(_value(1), n=claimed.n[old])
    await claimed.claim()
    await claimed.flush(_value(-1), epoch=old, n=99)
    await claimed.flush(_value(-2), run_id=RunId("run-2"))
    await claimed.flush(_value(2))
    await claimed.finish()
    shown = await reading
    assert [data for _, event, data in shown if event == "values"] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert shown == await _from_start(claimed)


async def test_what_an_attempt_says_behind_its_release_never_shows(claimed: StreamEnv) -> None:
    reading = asyncio.ensure_future(everything(await claimed.streams.join(THREAD, RUN, last_event_id="0")))
    await claimed.release()
    live = await claimed.streams.join(THREAD, RUN)
    await claimed.flush(_value(-1))
    joined = asyncio.ensure_future(everything(await claimed.streams.join(THREAD, RUN, last_event_id="0")))
    late = asyncio.ensure_future(everything(live))
    await claimed.flush(_value(-2), end="void-finish")
    await claimed.claim()
    await claimed.flush(_value(1))
    await claimed.finish(_value(2))
    shown = await reading
    assert [data for _, event, data in shown if event == "values"] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert shown == await joined == await _from_start(claimed)
    assert await late == shown[2:]


async def test_a_release_that_never_came_to_be_hides_nothing(claimed: StreamEnv) -> None:
    reading = asyncio.ensure_future(everything(await claimed.streams.join(THREAD, RUN, last_event_id="0")))
    await claimed.fence()
    await claimed.flush(_value(1))
    await claimed.fence()
    await claimed.flush(_value(2), n=claimed.n[claimed.epoch])
    await claimed.flush(_value(2))
    await claimed.finish(_value(3))
    shown = await reading
    assert [data for _, event, data in shown if event == "values"] == [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}]
    assert shown == await _from_start(claimed)
    assert shown[3:] == await everything(await claimed.streams.join(THREAD, RUN, last_event_id=shown[2][0]))


async def test_a_reaped_run_ends_with_the_announced_error_once(claimed: StreamEnv) -> None:
    reading = asyncio.ensure_future(everything(await claimed.streams.join(THREAD, RUN, last_event_id="-1")))
    error = {"error": "TimeoutError", "message": ""}
    await claimed.accept_end("timeout", outputs_to=await claimed.log.end(THREAD), error=dict(error))
    await claimed.announce("finished", Frame("error", dict(error)))
    await claimed.announce("finished", Frame("error", dict(error)))
    shown = await reading
    assert _without_ids(shown)[1:] == [("values", {"n": 0}), ("error", error)]
    assert shown == await _from_start(claimed)
    assert shown[-1][0] is not None
    assert await everything(await claimed.streams.join(THREAD, RUN, last_event_id=shown[-1][0])) == []


async def test_a_failed_run_without_an_end_flush_ends_from_the_facts(
    claimed: StreamEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentlog_gateway.timeouts.END_ANNOUNCEMENT_S", 0.05)
    reading = asyncio.ensure_future(everything(await claimed.streams.join(THREAD, RUN, last_event_id="0")))
    error = {"error": "ValueError", "message": "no"}
    await claimed.accept_end("error", outputs_to=await claimed.log.end(THREAD), error=dict(error))
    assert (await reading)[-1] == (None, "error", error)


async def test_a_pending_run_that_is_cancelled_closes_without_a_word(
    memory: tuple[StreamEnv, MemoryFrames],
) -> None:
    made, _ = memory
    live = await made.streams.open(THREAD)
    made.create()
    reading = asyncio.ensure_future(everything(live.events(RUN, resumable=True)))
    await made.accept_end("interrupted")
    assert await reading == []
    assert await _from_start(made) == []


async def test_the_end_comes_without_any_hint(claimed: StreamEnv) -> None:
    claimed.hints.away = True
    reading = asyncio.ensure_future(everything(await claimed.streams.join(THREAD, RUN, last_event_id="0")))
    await claimed.finish(_value(1))
    assert _without_ids(await reading)[1:] == [("values", {"n": 0}), ("values", {"n": 1})]


async def test_rows_that_are_away_delay_the_end_only(claimed: StreamEnv) -> None:
    reading = asyncio.ensure_future(everything(await claimed.streams.join(THREAD, RUN, last_event_id="0")))
    claimed.rows.away = True
    await claimed.finish(_value(1))
    asked = claimed.rows.asked
    async with asyncio.timeout(DEADLINE_S):
        await claimed.rows.asked_again(asked + 2)
    assert not reading.done()
    claimed.rows.away = False
    assert _without_ids(await reading)[-1] == ("values", {"n": 1})


async def test_joins_of_unknown_runs_and_runs_of_other_threads_get_one_error(claimed: StreamEnv) -> None:
    assert await everything(await claimed.streams.join(THREAD, RunId("nobody"))) == [NOT_FOUND]
    assert await everything(await claimed.streams.join(OTHER_THREAD, RUN, last_event_id="0")) == [NOT_FOUND]


async def test_a_run_deleted_while_streamed_ends_with_an_error_and_a_rolled_back_one_silently(
    claimed: StreamEnv,
) -> None:
    joined = await claimed.streams.join(THREAD, RUN)
    reading = asyncio.ensure_future(everything(joined))
    claimed.rows.by_id[RUN] = replace(claimed.rows.by_id[RUN], deleted=True)
    await claimed.hint()
    assert await reading == [NOT_FOUND]
    assert await everything(await claimed.streams.join(THREAD, RUN, last_event_id="0")) == [NOT_FOUND]

    second = RunId("run-2")
    claimed.create(second)
    await claimed.claim(second)
    reading = asyncio.ensure_future(everything(await claimed.streams.join(THREAD, second)))
    claimed.rows.by_id[second] = replace(claimed.rows.by_id[second], deleted=True)
    await claimed.accept_end("rollback", run_id=second)
    assert await reading == []


async def test_a_join_without_a_cursor_is_live_only(claimed: StreamEnv) -> None:
    reading = asyncio.ensure_future(everything(await claimed.streams.join(THREAD, RUN)))
    await claimed.flush(_value(1))
    await claimed.finish()
    assert _without_ids(await reading) == [("values", {"n": 1})]
    assert await everything(await claimed.streams.join(THREAD, RUN)) == []
    assert await everything(await claimed.streams.join(THREAD, RUN, last_event_id="what?")) == []


async def test_a_cursor_the_log_has_not_reached_replays_nothing(claimed: StreamEnv) -> None:
    reading = asyncio.ensure_future(everything(await claimed.streams.join(THREAD, RUN, last_event_id="99999999-0")))
    await claimed.flush(_value(1))
    await claimed.finish()
    assert _without_ids(await reading) == [("values", {"n": 1})]


async def test_a_run_that_is_not_resumable_has_no_ids_and_ignores_cursors(
    memory: tuple[StreamEnv, MemoryFrames],
) -> None:
    made, _ = memory
    made.create(resumable=False)
    await made.claim()
    reading = asyncio.ensure_future(everything(await made.streams.join(THREAD, RUN, last_event_id="0")))
    await made.flush(_value(1))
    await made.finish()
    assert await reading == [(None, "values", {"n": 1})]
    assert await everything(await made.streams.join(THREAD, RUN, last_event_id="0")) == []
    replayed = await everything(made.streams.replay(THREAD, RUN))
    assert [event for _, event, _ in replayed] == ["metadata", "values"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["custom"], ["custom", "error"]),
        (["custom", "values"], ["values", "values|child:1", "custom", "error"]),
        (["custom,values"], ["values", "values|child:1", "custom", "error"]),
        (['["messages-tuple"]'], ["messages", "messages/partial", "error"]),
        (["nonsense"], ["error"]),
        ([""], ["metadata", "values", "values|child:1", "custom", "messages", "messages/partial", "error"]),
    ],
)
async def test_a_filter_keeps_its_modes_in_every_namespace(
    memory: tuple[StreamEnv, MemoryFrames], asked: list[str], expected: list[str]
) -> None:
    made, _ = memory
    made.create()
    await made.claim()
    await made.flush(_value(0), _value(1, "child:1"), Frame("custom", 1))
    await made.flush(Frame("messages", []), Frame("messages/partial", []))
    await made.finish(Frame("error", {}), status="error")
    joined = await made.streams.join(THREAD, RUN, last_event_id="0")
    assert [event for _, event, _ in await everything(joined, stream_modes(asked))] == expected


async def test_heartbeats_come_while_nothing_happens_and_between_events() -> None:
    frames = MemoryFrames()
    async with stream_env_over(frames, frames, heartbeat_s=0.02) as made:
        live = await made.streams.open(THREAD)
        made.create()
        events = live.events(RUN, resumable=True)
        beats = 0
        async with asyncio.timeout(DEADLINE_S):
            async for chunk in encoded(events):
                assert chunk == b": heartbeat\r\n\r\n"
                beats += 1
                if beats == 3:
                    break
        await events.aclose()


async def test_a_client_that_stops_reading_holds_bounded_memory_and_misses_nothing(claimed: StreamEnv) -> None:
    joined = await claimed.streams.join(THREAD, RUN, last_event_id="0")
    chunks = encoded(joined)
    data = await anext(chunks)
    for number in range(1, 1500):
        await claimed.flush(_value(number))
    await claimed.finish()
    async with asyncio.timeout(DEADLINE_S):
        async for chunk in chunks:
            data += chunk
    assert parsed(data) == await _from_start(claimed)
    assert len(parsed(data)) == 1501


class Unsteady(MemoryFrames):
    """Frames of a log that fails `faults` times."""

    def __init__(self) -> None:
        super().__init__()
        self.faults = 0

    async def tail(self, thread_id: ThreadId) -> FrameTail:
        """Open a tail, if the log answers."""
        self._answer()
        return await super().tail(thread_id)

    async def read(self, thread_id: ThreadId, start: int, end: int) -> AsyncGenerator[PositionedFrames]:
        """Yield a range, and fail in its middle while there are faults left."""
        async for flush in super().read(thread_id, start, end):
            yield flush
            self._answer()

    def _answer(self) -> None:
        if self.faults:
            self.faults -= 1
            raise Unavailable("frames: the log does not answer")


async def test_a_log_that_breaks_off_in_the_middle_costs_time_and_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlog_gateway.timeouts.STREAM_RETRY_S", 0.001)
    frames = Unsteady()
    async with stream_env_over(frames, frames) as made:
        made.create()
        await made.claim()
        for number in range(5):
            await made.flush(_value(number))
        joined = await made.streams.join(THREAD, RUN, last_event_id="0")
        frames.faults = 7
        reading = asyncio.ensure_future(everything(joined))
        await made.finish(_value(5))
        shown = await reading
        assert frames.faults == 0
        assert shown == await _from_start(made)
        assert [data for _, event, data in shown if event == "values"] == [{"n": n} for n in range(6)]


async def test_a_log_that_stays_away_ends_the_stream_so_that_the_client_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agentlog_gateway.timeouts.STREAM_RETRY_S", 0.001)
    monkeypatch.setattr("agentlog_gateway.timeouts.OUTAGE_S", 0.02)
    frames = Unsteady()
    async with stream_env_over(frames, frames) as made:
        made.create()
        await made.claim()
        joined = await made.streams.join(THREAD, RUN, last_event_id="0")
        frames.faults = 1_000_000
        assert [event for _, event, _ in await everything(joined)] == ["metadata"]
        assert not joined.ended


async def test_what_expired_is_said_and_the_rest_is_shown(memory: tuple[StreamEnv, MemoryFrames]) -> None:
    made, frames = memory
    made.create()
    await made.claim()
    behind = [await made.flush(_value(number)) for number in range(4)]
    await frames.expire(THREAD, behind[1])
    await made.finish()
    shown = await _from_start(made)
    assert [event for _, event, _ in shown] == ["gap", "values", "values"]
    await frames.expire(THREAD, await made.log.end(THREAD))
    assert [event for _, event, _ in await _from_start(made)] == ["gap"]


@pytest.mark.timeout(20)
async def test_a_run_whose_flushes_were_lost_with_the_end_of_outputs_shows_a_gap_and_its_end(
    memory: tuple[StreamEnv, MemoryFrames],
) -> None:
    made, _ = memory
    made.create()
    await made.claim()
    behind = await made.flush(_value(0))
    await made.accept_end("success", outputs_to=behind + 5 * SLOTS)
    shown = await _from_start(made)
    assert [event for _, event, _ in shown] == ["metadata", "values", "gap"]
    assert shown[-1][2] == {"from": event_id(behind), "to": event_id(behind + 5 * SLOTS)}


async def test_a_closed_stream_ends_and_gives_its_tail_back(memory: tuple[StreamEnv, MemoryFrames]) -> None:
    made, frames = memory
    live = await made.streams.open(THREAD)
    made.create()
    events = live.events(RUN, resumable=True)
    reading = asyncio.ensure_future(everything(events))
    await asyncio.sleep(0)
    events.close()
    assert await reading == []
    assert not events.ended
    assert frames.listeners() == 0


async def _follow_with_cuts(env: StreamEnv, live: RunStream, cuts: list[int]) -> list[Event]:
    """Read a stream that breaks after each number of `cuts`, and resume it after the last event received."""
    shown = await some(live, cuts[0])
    for count in [*cuts[1:], 1_000_000]:
        cursor = shown[-1][0] if shown else "0"
        shown += await some(await env.streams.join(THREAD, RUN, last_event_id=cursor), count)
    return shown


async def _random_run(env: StreamEnv, dice: random.Random) -> None:
    """Write the history of a run with random faults: voids, releases, late and repeated flushes, fences."""
    for attempt in range(dice.randint(1, 3)):
        if attempt:
            await env.flush(_value(-1), end=f"void-{attempt}")
            if dice.random() < 0.7:
                await env.release()
                await env.flush(_value(-5))
        old = env.epoch
        await env.claim()
        for number in range(dice.randint(3, 30)):
            match dice.randrange(9):
                case 0:
                    await env.flush(_value(-2), epoch=old, n=10_000 + number)
                case 1:
                    await env.flush(_value(-3), n=env.n[env.epoch])
                case 2:
                    await env.log.append(OTHER_THREAD, _other(number))
                case 3:
                    await (env.fence() if dice.random() < 0.1 else env.flush(_value(number)))
                case _:
                    frames = [_value(number, dice.choice(["", "child:1"])) for _ in range(dice.randint(1, 5))]
                    await env.flush(*frames)
            if dice.random() < 0.3:
                await asyncio.sleep(0.001)  # one turn or two for the readers
    if dice.random() < 0.5:
        await env.finish(_value(99), _value(100))
        return
    await env.accept_end("error", outputs_to=await env.log.end(THREAD), error={"error": "E", "message": "m"})
    await env.announce("finished", Frame("error", {"error": "E", "message": "m"}))


def _other(number: int) -> FrameRecord:
    return FrameRecord(RunId("run-x"), number, number, (_value(-4),))


@pytest.mark.parametrize("seed", range(6))
async def test_a_stream_cut_five_times_and_resumed_equals_the_run_joined_from_its_start(
    env: FramesEnv, seed: int
) -> None:
    dice = random.Random(seed)
    async with stream_env_over(env.log, env.reads) as made:
        live = await made.streams.open(THREAD)
        made.create()
        events = live.events(RUN, resumable=True)
        running = asyncio.ensure_future(_random_run(made, dice))
        resumed = await _follow_with_cuts(made, events, [dice.randint(1, 12) for _ in range(5)])
        await running
        whole = await _from_start(made)
    assert resumed == whole
    assert len({at for at, _, _ in whole}) == len(whole)
    assert not [data for _, _, data in whole if isinstance(data, dict) and str(data.get("n")).startswith("-")]


async def test_a_replay_begins_once_the_rows_can_be_read(claimed: StreamEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlog_gateway.timeouts.STREAM_RETRY_S", 0.01)
    claimed.rows.away = True
    replayed = asyncio.ensure_future(everything(claimed.streams.replay(THREAD, RUN)))
    await claimed.rows.asked_again(claimed.rows.asked + 3)
    claimed.rows.away = False
    await claimed.finish()
    assert [event for _, event, _ in await replayed] == ["metadata", "values"]


async def test_a_stream_goes_on_while_the_rows_are_built_anew(claimed: StreamEnv) -> None:
    events = await claimed.streams.join(THREAD, RUN, last_event_id="-1")
    reading = asyncio.create_task(everything(events))
    claimed.rows.built = True
    asked = claimed.rows.asked
    await claimed.hint(RUN)
    await claimed.rows.asked_again(asked + 2)
    with pytest.raises(Unavailable):
        await claimed.streams.join(THREAD, RUN)
    assert not reading.done()
    claimed.rows.built = False
    await claimed.finish()
    async with asyncio.timeout(DEADLINE_S):
        assert NOT_FOUND not in await reading
