"""Tests of the stream of a thread, over a log in memory."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from tests.contracts.memory_frames import MemoryFrames
from tests.gateway.stream_env import DEADLINE_S, THREAD, Event, StreamEnv, parsed, stream_env_over

from agentlog_facts.frame import STATE_UPDATE, Frame, FrameRecord, event_id
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, as_object
from agentlog_gateway.http.errors import Problem
from agentlog_gateway.streaming.sse import Framer
from agentlog_gateway.streaming.threads.announcer import NO_RUN
from agentlog_gateway.streaming.threads.thread_modes import ThreadEncoder, thread_modes
from agentlog_gateway.streaming.threads.thread_stream import ThreadStream
from agentlog_gateway.streaming.threads.thread_streams import ThreadStreams
from agentlog_infra.kafka.outputs.buffer import MAX_FLUSHES

FIRST, SECOND = RunId("run-1"), RunId("run-2")
VALUES = Frame("values", {"n": 1})


class Places:
    """Places of the runs in the rows of the environment."""

    def __init__(self, env: StreamEnv) -> None:
        self._env = env

    async def first_output(self, thread_id: ThreadId) -> int | None:
        found = [row.outputs_from for row in self._env.rows.by_id.values() if row.outputs_from is not None]
        return min(found, default=None)

    async def last_claim(self, thread_id: ThreadId) -> tuple[int, RunId | None]:
        for row in self._env.rows.by_id.values():
            if row.status == "running" and row.epoch is not None:
                return row.epoch, row.run_id
        return max((row.version for row in self._env.rows.by_id.values()), default=-1), None


class Client:
    """One client of the thread's stream; `read` returns the events that it has got, in order."""

    def __init__(self, env: StreamEnv, cursor: str | None = None, modes: str = "run_modes") -> None:
        streams = ThreadStreams(env.streams.sources, Places(env))
        self._events = streams.open(THREAD, cursor)
        self._encoder = ThreadEncoder(Framer(), thread_modes([modes]))
        self._chunks = self._encoded(self._events)
        self.got: list[Event] = []

    async def _encoded(self, events: ThreadStream) -> AsyncGenerator[bytes]:
        async for batch in events:
            yield self._encoder.encode(batch)

    async def read(self, count: int) -> list[tuple[str, Json]]:
        """Return the names and data of the next `count` events."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.got) < count:
                self.got += parsed(await anext(self._chunks))
        found, self.got = self.got[:count], self.got[count:]
        self.last_id = found[-1][0]
        return [(event, data) for _, event, data in found]

    async def listens(self) -> None:
        """Wait until the client is at the live end."""
        async with asyncio.timeout(DEADLINE_S):
            while not (await anext(self._chunks)):
                pass

    async def close(self) -> None:
        await self._events.aclose()
        await self._chunks.aclose()


@pytest.fixture
async def env() -> AsyncGenerator[StreamEnv]:
    frames = MemoryFrames()
    async with stream_env_over(frames, frames, heartbeat_s=0.05) as made:
        yield made


async def opened(env: StreamEnv, cursor: str | None = None, modes: str = "run_modes") -> Client:
    """Return a client that has begun to read: it has got a heartbeat."""
    client = Client(env, cursor, modes)
    await client.listens()
    return client


async def a_run(env: StreamEnv, run_id: RunId, *frames: Frame, resumable: bool = True) -> None:
    """Execute a run as its worker does."""
    env.create(run_id, resumable=resumable)
    await env.claim(run_id)
    outputs_to = await env.flush(*frames, run_id=run_id, end=f"end-{run_id}")
    await env.accept_end(run_id=run_id, event_id=f"end-{run_id}", outputs_to=outputs_to)


def started(run_id: RunId, epoch: int) -> tuple[str, object]:
    return "metadata", {"run_id": run_id, "epoch": epoch}


def done(run_id: RunId) -> tuple[str, object]:
    return "metadata", {"status": "run_done", "run_id": run_id}


async def test_every_run_of_the_thread_is_told_with_its_end(env: StreamEnv) -> None:
    client = await opened(env)
    await a_run(env, FIRST, VALUES, resumable=False)
    assert await client.read(3) == [started(FIRST, 6), ("values", {"n": 1}), done(FIRST)]
    assert client.last_id is not None
    await a_run(env, SECOND)
    assert await client.read(2) == [started(SECOND, 9), done(SECOND)]
    await client.close()


async def test_lifecycle_tells_starts_and_ends_only(env: StreamEnv) -> None:
    client = await opened(env, modes="lifecycle")
    await a_run(env, FIRST, VALUES, Frame("error", {"error": "ValueError", "message": ""}))
    assert await client.read(2) == [started(FIRST, 6), done(FIRST)]
    await client.close()


async def test_updates_of_the_state_are_told_once_and_only_to_those_who_ask(env: StreamEnv) -> None:
    asks, both, other = (
        await opened(env, modes=STATE_UPDATE),
        await opened(env, modes="run_modes,state_update"),
        await opened(env),
    )
    update = FrameRecord(NO_RUN, 0, 0, (Frame(STATE_UPDATE, {"state": {"values": {}}}),), of="update-1")
    await env.log.append(THREAD, update)
    await env.log.append(THREAD, update)
    await a_run(env, FIRST)
    await env.log.append(THREAD, replace(update, of="update-2"))
    told: tuple[str, object] = (STATE_UPDATE, {"state": {"values": {}}})
    assert await asks.read(2) == [told, told]
    assert await both.read(4) == [told, started(FIRST, 6), done(FIRST), told]
    assert await other.read(2) == [started(FIRST, 6), done(FIRST)]
    for client in (asks, both, other):
        await client.close()


async def test_a_client_that_returns_misses_and_repeats_nothing(env: StreamEnv) -> None:
    first = await opened(env)
    await a_run(env, FIRST, VALUES, Frame("values", {"n": 2}))
    await first.read(2)
    seen = first.last_id
    rest = await first.read(2)
    await first.close()
    await a_run(env, SECOND, VALUES)
    again = Client(env, seen)
    assert await again.read(5) == [*rest, started(SECOND, 9), ("values", {"n": 1}), done(SECOND)]
    await again.close()
    after_all = Client(env, again.last_id)
    await after_all.listens()
    await a_run(env, RunId("run-3"))
    assert await after_all.read(2) == [started(RunId("run-3"), 12), done(RunId("run-3"))]
    await after_all.close()


async def test_a_replay_has_resumable_runs_only(env: StreamEnv) -> None:
    await a_run(env, FIRST, VALUES, resumable=False)
    await a_run(env, SECOND, VALUES)
    client = Client(env, "-1")
    assert await client.read(3) == [started(SECOND, 9), ("values", {"n": 1}), done(SECOND)]
    await client.close()


async def test_a_run_that_is_not_resumable_goes_on_for_a_client_that_returns(env: StreamEnv) -> None:
    first = await opened(env)
    env.create(FIRST, resumable=False)
    await env.claim(FIRST)
    await env.flush(VALUES, run_id=FIRST)
    await first.read(2)
    await first.close()
    again = await opened(env, first.last_id)
    outputs_to = await env.flush(Frame("values", {"n": 2}), run_id=FIRST, end="finished")
    await env.accept_end(run_id=FIRST, outputs_to=outputs_to)
    assert await again.read(2) == [("values", {"n": 2}), done(FIRST)]
    await again.close()


async def test_a_client_that_comes_during_a_run_gets_the_rest_of_it(env: StreamEnv) -> None:
    env.create(FIRST)
    await env.claim(FIRST)
    client = await opened(env)
    await env.finish(VALUES, run_id=FIRST)
    assert await client.read(2) == [("values", {"n": 1}), done(FIRST)]
    await client.close()


async def test_late_flushes_of_an_earlier_claim_are_not_told(env: StreamEnv) -> None:
    client = await opened(env)
    env.create(FIRST)
    late = await env.claim(FIRST)
    await env.release(FIRST)
    await env.flush(Frame("values", {"late": 1}), run_id=FIRST, epoch=late)
    await env.claim(FIRST)
    await env.flush(Frame("values", {"late": 2}), run_id=FIRST, epoch=late)
    await env.finish(VALUES, run_id=FIRST)
    assert await client.read(4) == [started(FIRST, 6), started(FIRST, 9), ("values", {"n": 1}), done(FIRST)]
    await client.close()


async def test_an_end_that_is_void_is_not_told(env: StreamEnv) -> None:
    client = await opened(env)
    env.create(FIRST)
    await env.claim(FIRST)
    await env.flush(Frame("values", {"void": 1}), run_id=FIRST, end="void")
    await env.flush(VALUES, run_id=FIRST, end="finished")
    await env.accept_end(run_id=FIRST)
    assert await client.read(3) == [started(FIRST, 6), ("values", {"n": 1}), done(FIRST)]
    await env.flush(Frame("values", {"later": 1}), run_id=FIRST)
    await a_run(env, SECOND)
    assert await client.read(2) == [started(SECOND, 9), done(SECOND)]
    await client.close()


async def test_a_run_that_ends_in_its_fenced_epoch_is_told_whole(env: StreamEnv) -> None:
    client = await opened(env)
    env.create(FIRST)
    await env.claim(FIRST)
    await env.fence(FIRST)
    await env.flush(VALUES, run_id=FIRST)
    await env.finish(Frame("values", {"n": 2}), run_id=FIRST)
    assert await client.read(4) == [started(FIRST, 6), ("values", {"n": 1}), ("values", {"n": 2}), done(FIRST)]
    await client.close()


async def test_an_end_that_another_process_announces_is_told_with_its_error(env: StreamEnv) -> None:
    client = await opened(env)
    env.create(FIRST)
    await env.claim(FIRST)
    await env.release(FIRST)
    await env.accept_end("error", run_id=FIRST, event_id="reaped")
    error = Frame("error", {"error": "WorkerDied", "message": ""})
    await env.announce("reaped", error, run_id=FIRST)
    await env.announce("reaped", error, run_id=FIRST)
    assert await client.read(3) == [started(FIRST, 6), ("error", error.data), done(FIRST)]
    await a_run(env, SECOND)
    assert await client.read(2) == [started(SECOND, 9), done(SECOND)]
    await client.close()


async def test_a_pending_run_that_is_cancelled_is_done(env: StreamEnv) -> None:
    client = await opened(env)
    env.create(FIRST)
    await env.accept_end("interrupted", run_id=FIRST, event_id="cancelled")
    await env.announce("void", run_id=FIRST)
    await env.announce("cancelled", run_id=FIRST)
    assert await client.read(1) == [done(FIRST)]
    await client.close()


async def test_an_end_that_nobody_announces_is_told_from_the_row(env: StreamEnv) -> None:
    client = await opened(env)
    env.create(FIRST)
    await env.claim(FIRST)
    await env.accept_end("error", run_id=FIRST, error={"error": "ValueError", "message": "bad"})
    assert await client.read(3) == [
        started(FIRST, 6),
        ("error", {"error": "ValueError", "message": "bad"}),
        done(FIRST),
    ]
    assert client.last_id is None
    await client.close()


async def test_the_stream_of_a_thread_that_does_not_exist_has_heartbeats_only(env: StreamEnv) -> None:
    client = await opened(env)
    for _ in range(3):
        await client.listens()
    assert client.got == []
    await client.close()


async def test_an_outage_of_the_rows_loses_nothing(env: StreamEnv) -> None:
    await a_run(env, FIRST, VALUES)
    env.rows.away = True
    client = Client(env, "-1")
    await client.listens()
    env.rows.away = False
    assert await client.read(3) == [started(FIRST, 6), ("values", {"n": 1}), done(FIRST)]
    await client.close()


async def test_an_outage_of_the_rows_delays_only_what_needs_them(env: StreamEnv) -> None:
    client = await opened(env)
    env.create(FIRST)
    await env.claim(FIRST)
    await env.flush(VALUES, run_id=FIRST)
    await env.accept_end("error", run_id=FIRST, event_id="reaped")
    env.rows.away = True
    error = Frame("error", {"error": "WorkerDied", "message": ""})
    await env.announce("reaped", error, run_id=FIRST)
    assert await client.read(2) == [started(FIRST, 6), ("values", {"n": 1})]
    env.rows.away = False
    assert await client.read(2) == [("error", error.data), done(FIRST)]
    await client.close()


async def test_a_client_that_falls_behind_goes_on_from_the_log(env: StreamEnv) -> None:
    client = await opened(env)
    env.create(FIRST)
    await env.claim(FIRST)
    for number in range(MAX_FLUSHES + 10):
        await env.flush(Frame("values", {"n": number}), run_id=FIRST)
    await env.finish(run_id=FIRST)
    told = await client.read(MAX_FLUSHES + 12)
    assert told[1:-1] == [("values", {"n": number}) for number in range(MAX_FLUSHES + 10)]
    assert told[-1] == done(FIRST)
    await client.close()


async def test_what_has_expired_is_told_as_a_gap(env: StreamEnv) -> None:
    await a_run(env, FIRST)
    await a_run(env, SECOND)
    assert isinstance(env.log, MemoryFrames)
    start = await env.log.end(THREAD)
    await env.log.expire(THREAD, start)
    await a_run(env, RunId("run-3"))
    client = Client(env, "-1")
    [gap, *rest] = await client.read(3)
    assert (gap[0], as_object(gap[1])["to"]) == ("gap", event_id(start))
    assert rest == [started(RunId("run-3"), 12), done(RunId("run-3"))]
    await client.close()


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ([], {"run_modes"}),
        (["lifecycle,state_update"], {"lifecycle", "state_update"}),
        (["lifecycle", "run_modes"], {"lifecycle", "run_modes"}),
        (['["state_update"]'], {"state_update"}),
    ],
)
def test_modes_are_repeated_or_separated_by_commas_or_a_list(given: list[str], names: set[str]) -> None:
    assert thread_modes(given).names == names


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(Problem, match="Invalid stream mode: values") as refused:
        thread_modes(["lifecycle", "values"])
    assert refused.value.status == 422
