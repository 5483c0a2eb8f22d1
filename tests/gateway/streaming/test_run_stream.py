"""Typed events of a run stream, in order and with their positions."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.contracts.memory_frames import MemoryFrames
from tests.gateway.stream_env import DEADLINE_S, RUN, THREAD, StreamEnv, stream_env_over

from agentlog_facts.frame import SLOTS, Frame
from agentlog_facts.ids import RunId
from agentlog_gateway.streaming.run_stream import BATCH_BYTES, INTERNAL, RunStream
from agentlog_gateway.streaming.stream_event import (
    EventBatch,
    StreamEnd,
    StreamEvent,
    StreamFlush,
    StreamGap,
    StreamNotFound,
)


@pytest.fixture
async def frames() -> MemoryFrames:
    """Return a log of frames."""
    return MemoryFrames()


@pytest.fixture
async def env(frames: MemoryFrames) -> AsyncIterator[StreamEnv]:
    """Yield a claimed run, whose first flush has the frame `metadata`."""
    async with stream_env_over(frames, frames) as made:
        made.create()
        await made.claim()
        yield made


async def batches(stream: RunStream) -> list[EventBatch]:
    """Return all batches of a stream."""
    async with asyncio.timeout(DEADLINE_S):
        found = [batch async for batch in stream]
    await stream.aclose()
    return found


async def events(stream: RunStream) -> list[StreamEvent]:
    """Return all events of a stream."""
    return [event for batch in await batches(stream) for event in batch]


async def from_start(env: StreamEnv) -> list[StreamEvent]:
    """Return all events of a run."""
    return await events(await env.streams.join(THREAD, RUN, last_event_id="0"))


def names(found: list[StreamEvent]) -> list[str]:
    """Return for each event the names of its flush's frames, or its class."""
    return [
        ",".join(frame.event for frame in event.flush.record.frames)
        if isinstance(event, StreamFlush)
        else type(event).__name__
        for event in found
    ]


async def test_flushes_come_in_order_with_their_positions_and_then_the_end(env: StreamEnv) -> None:
    first = env.rows.by_id[RUN].outputs_from or 0
    await env.flush(Frame("values", 1), Frame("custom", 2))
    await env.finish(Frame("values", 3))
    found = await from_start(env)
    flushes = [event for event in found if isinstance(event, StreamFlush)]
    assert names(found) == ["metadata", "values,custom", "values", "StreamEnd"]
    assert [flush.flush.position for flush in flushes] == [first, first + SLOTS, first + 2 * SLOTS]
    assert {(flush.resumable, flush.after) for flush in flushes} == {(True, -1)}
    assert found[-1] == StreamEnd("success")


async def test_a_live_stream_yields_the_same_events_as_a_replay(env: StreamEnv) -> None:
    reading = asyncio.create_task(from_start(env))
    for number in range(5):
        await env.flush(Frame("values", number))
        await asyncio.sleep(0)
    await env.finish(Frame("values", 5))
    assert await reading == await from_start(env)


async def test_a_resumed_stream_begins_with_the_flush_of_its_cursor_and_names_what_was_seen(env: StreamEnv) -> None:
    behind = await env.flush(Frame("values", 1), Frame("values", 2))
    await env.finish(Frame("values", 3))
    at = behind - SLOTS
    found = await events(await env.streams.join(THREAD, RUN, last_event_id=f"{at // SLOTS}-0"))
    first = found[0]
    assert isinstance(first, StreamFlush)
    assert (first.flush.position, first.after) == (at, at)
    assert names(found) == ["values,values", "values", "StreamEnd"]


async def test_a_run_that_is_not_resumable_says_so_with_each_flush(env: StreamEnv) -> None:
    env.rows.by_id[RUN] = replace(env.rows.by_id[RUN], resumable=False)
    await env.finish(Frame("values", 1))
    found = await events(env.streams.replay(THREAD, RUN))
    assert {event.resumable for event in found if isinstance(event, StreamFlush)} == {False}


async def test_a_gap_names_the_positions_that_are_gone(env: StreamEnv, frames: MemoryFrames) -> None:
    behind = await env.flush(Frame("values", 1))
    await env.finish(Frame("values", 2))
    await frames.expire(THREAD, behind)
    assert (await from_start(env))[0] == StreamGap(env.rows.by_id[RUN].outputs_from or 0, behind)


async def test_a_run_that_is_not_there_yields_one_event_and_no_end(env: StreamEnv) -> None:
    stream = await env.streams.join(THREAD, RunId("nobody"))
    assert await events(stream) == [StreamNotFound()]
    assert stream.ended


@pytest.mark.parametrize("error", [None, {"error": "ValueError", "message": "no"}])
async def test_an_end_carries_the_error_that_no_flush_has_announced(
    env: StreamEnv, error: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentlog_gateway.timeouts.END_ANNOUNCEMENT_S", 0.01)
    expected = None if error is None else dict(error)
    await env.accept_end(
        "error", outputs_to=await env.log.end(THREAD), error=None if expected is None else {**expected}
    )
    assert (await from_start(env))[-1] == StreamEnd("error", INTERNAL if expected is None else {**expected})
    await env.announce("finished", Frame("error", {}))
    assert names(await from_start(env))[-2:] == ["error", "StreamEnd"]
    assert (await from_start(env))[-1] == StreamEnd("error")


async def test_a_live_stream_of_a_run_that_has_ended_yields_its_end_alone(env: StreamEnv) -> None:
    await env.finish(Frame("values", 1), status="interrupted")
    assert await events(await env.streams.join(THREAD, RUN)) == [StreamEnd("interrupted")]


async def test_a_heartbeat_that_is_due_comes_behind_the_events_that_are_ready(frames: MemoryFrames) -> None:
    async with stream_env_over(frames, frames, heartbeat_s=0.0) as made:
        made.create()
        await made.claim()
        stream = await made.streams.join(THREAD, RUN, last_event_id="0")
        async with asyncio.timeout(DEADLINE_S):
            async for batch in stream:
                if len(batch) > 1:
                    assert names(batch) == ["values", "StreamHeartbeat"]
                    break
                await made.flush(Frame("values", 1))
                await asyncio.sleep(0)  # one turn: the timer fires
        await stream.aclose()


async def test_a_range_is_handed_on_in_batches_of_bounded_size(env: StreamEnv) -> None:
    for _ in range(6):
        await env.flush(Frame("values", "x" * (BATCH_BYTES // 2)))
    await env.finish()
    found = await batches(await env.streams.join(THREAD, RUN, last_event_id="0"))
    assert [names(batch) for batch in found[:3]] == [["metadata", "values", "values"], ["values"] * 2, ["values"] * 2]


async def test_a_stream_that_is_closed_yields_no_end(env: StreamEnv) -> None:
    stream = await env.streams.join(THREAD, RUN, last_event_id="0")
    async with asyncio.timeout(DEADLINE_S):
        async for batch in stream:
            assert names(batch) == ["metadata"]
            stream.close()
    assert not stream.ended
