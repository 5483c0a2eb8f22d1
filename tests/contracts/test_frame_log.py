"""Contract of `FrameLog` and `FrameReads`, for every adapter."""

import asyncio
from collections.abc import Sequence

import pytest
from tests.contracts.conftest import FramesEnv

from agentlog_facts.errors import Gap, SlowReader, Unavailable
from agentlog_facts.frame import SLOTS, Frame, FrameRecord
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.ports import FrameTail, PositionedFrames

A, B = ThreadId("thread-a"), ThreadId("thread-b")
RUN = RunId("run-1")
DEADLINE_S = 20.0


def flush(n: int, text: str = "", end: str | None = None, of: str | None = None) -> FrameRecord:
    """Return the n-th flush of an epoch."""
    frames = (Frame("values", {"n": n, "text": text}), Frame("updates", None, "child:1"))
    return FrameRecord(RUN, 3, n, frames, end, of)


async def taken(tail: FrameTail, count: int) -> list[PositionedFrames]:
    """Return the next flushes of a tail."""
    found: list[PositionedFrames] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < count:
            found += await tail.next()
    return found


def numbers(flushes: Sequence[PositionedFrames]) -> list[int]:
    """Return the numbers of the flushes."""
    return [found.record.n for found in flushes]


async def test_a_flush_is_read_back_as_it_was_appended(env: FramesEnv) -> None:
    start = await env.log.end(A)
    record = flush(0, "grüße\u2028\r\n", end="finish-1")
    announced = flush(1, of="cancel-1")
    fence = FrameRecord(RUN, 3, 0, (), release="release-1")
    behind = [await env.log.append(A, one) for one in (record, announced, fence)]
    found = [found async for found in env.reads.read(A, start, behind[-1])]
    assert [read.record for read in found] == [record, announced, fence]
    assert [read.position + SLOTS for read in found] == behind


async def test_positions_grow_by_thread_and_the_end_is_behind_the_last(env: FramesEnv) -> None:
    positions = [await env.log.append(A, flush(n)) for n in range(5)]
    assert positions == sorted(set(positions))
    assert await env.log.end(A) == await env.reads.end(A) == positions[-1]
    assert all(at % SLOTS == 0 for at in positions)


async def test_a_range_holds_only_its_thread_and_its_bounds(env: FramesEnv) -> None:
    start = await env.reads.end(A)
    behind = [await env.log.append(thread, flush(n)) for n in range(6) for thread in (A, B)][::2]
    inner = [found async for found in env.reads.read(A, behind[1] - SLOTS, behind[3])]
    assert numbers(inner) == [1, 2, 3]
    assert numbers([found async for found in env.reads.read(A, behind[1] - SLOTS + 8, behind[3])]) == [2, 3]
    assert [found async for found in env.reads.read(A, start, start)] == []


async def test_a_tail_sees_everything_that_is_acknowledged_after_it_was_entered(env: FramesEnv) -> None:
    await env.log.append(A, flush(0))
    tail = await env.reads.tail(A)
    behind = [await env.log.append(A, flush(n)) for n in range(1, 30)]
    assert tail.start < behind[0]
    assert numbers(await taken(tail, 29))[-29:] == list(range(1, 30))
    tail.close()


async def test_range_up_to_the_tails_start_and_tail_are_gapless(env: FramesEnv) -> None:
    start = await env.reads.end(A)
    first = await env.reads.tail(A)
    writing = asyncio.ensure_future(_append(env, A, 60))
    await taken(first, 10)
    second = await env.reads.tail(A)
    before = [found async for found in env.reads.read(A, start, second.start)]
    after = await taken(second, 60 - len(before))
    assert numbers([*before, *after]) == list(range(60))
    await writing
    first.close()
    second.close()


async def _append(env: FramesEnv, thread_id: ThreadId, count: int) -> None:
    for n in range(count):
        await env.log.append(thread_id, flush(n))
        await asyncio.sleep(0)  # one turn for the readers


async def test_all_readers_of_a_thread_get_the_very_same_flush(env: FramesEnv) -> None:
    tails = [await env.reads.tail(A) for _ in range(50)]
    other = await env.reads.tail(B)
    await env.log.append(A, flush(0))
    await env.log.append(B, flush(1))
    found = [(await taken(tail, 1))[0] for tail in tails]
    assert {id(one) for one in found} == {id(found[0])}
    assert numbers(await taken(other, 1)) == [1]
    for tail in [*tails, other]:
        tail.close()


async def test_a_poke_makes_a_waiting_reader_look_around(env: FramesEnv) -> None:
    tail = await env.reads.tail(A)
    waiting = asyncio.ensure_future(tail.next())
    asyncio.get_running_loop().call_soon(tail.poke)
    async with asyncio.timeout(DEADLINE_S):
        assert list(await waiting) == []
    tail.poke()
    assert list(await tail.next()) == []
    tail.close()


async def test_a_reader_that_falls_behind_is_told_so_and_finds_everything_in_the_log(env: FramesEnv) -> None:
    slow, quick = await env.reads.tail(A), await env.reads.tail(A)
    start = slow.start
    text = "x" * 100_000
    count = 60
    seen = 0
    for n in range(count):
        await env.log.append(A, flush(n, text))
        seen += len(await taken(quick, 1))
    assert seen == count
    with pytest.raises(SlowReader):
        await taken(slow, count)
    end = await env.reads.end(A)
    assert numbers([found async for found in env.reads.read(A, start, end)]) == list(range(count))
    quick.close()


async def test_a_closed_tail_takes_no_more(env: FramesEnv) -> None:
    closed, other = await env.reads.tail(A), await env.reads.tail(A)
    closed.close()
    closed.close()
    await env.log.append(A, flush(0))
    await taken(other, 1)
    closed.poke()
    assert list(await closed.next()) == []
    other.close()


async def test_a_flush_far_over_the_record_limit_arrives_whole_by_range_and_tail(env: FramesEnv) -> None:
    tail = await env.reads.tail(A)
    start = tail.start
    large = flush(1, "0123456789" * 600_000)
    await env.log.append(A, flush(0))
    assert [found.record for found in await taken(tail, 1)] == [flush(0)]
    end = await env.log.append(A, large)
    assert [found.record for found in await taken(tail, 1)] == [large]
    assert [found.record async for found in env.reads.read(A, start, end)] == [flush(0), large]
    assert [found.record async for found in env.reads.read(A, end - SLOTS, end)] == [large]
    tail.close()


async def test_what_has_expired_is_a_gap_that_says_where_the_log_goes_on(env: FramesEnv) -> None:
    behind = [await env.log.append(A, flush(n)) for n in range(6)]
    await env.expire(A, behind[2])
    with pytest.raises(Gap) as caught:
        assert [found async for found in env.reads.read(A, behind[0], behind[-1])] == []
    assert caught.value.available_from == behind[2]
    assert numbers([found async for found in env.reads.read(A, behind[2], behind[-1])]) == [3, 4, 5]


async def test_a_range_behind_the_end_of_the_log_gives_what_is_there_and_says_that_the_rest_is_not(
    env: FramesEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentlog_infra.timeouts.OUTPUTS_READ_MS", 300)
    start = await env.reads.end(A)
    end = await env.log.append(A, flush(0))
    for further in (1, 5):
        found: list[PositionedFrames] = []
        with pytest.raises(Unavailable):
            await _collect(env, start, end + further * SLOTS, found)
        assert numbers(found) == [0]
        with pytest.raises(Unavailable):
            await _collect(env, end + further * SLOTS, end + 9 * SLOTS, found)


async def _collect(env: FramesEnv, start: int, end: int, found: list[PositionedFrames]) -> None:
    async for read in env.reads.read(A, start, end):
        found.append(read)
