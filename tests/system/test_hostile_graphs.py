"""System test of hostile graphs and records: a seeded crowd of them harms no other run and no process but a worker."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiokafka import AIOKafkaProducer
from tests.histories.mutated import mutated
from tests.system.api import Api
from tests.system.checker.records import client_options
from tests.system.graphs.hostile import DEEDS, KILLERS
from tests.system.runs_env import run_status
from tests.system.servers import RunningServer, running_server
from tests.system.test_stuck_nodes import GRAPHS

from agentlog_facts.errors import BlobMissing, Corrupt, UnknownSchema
from agentlog_facts.json_value import Json, JsonObject
from agentlog_infra.kafka.event_log import resolve
from agentlog_infra.kafka.partitions import partition_of

FEW, MANY = 60, 2_000
FEW_KILLERS, MANY_KILLERS = 3, 30
AT_ONCE = 12
OK_S = 1.0
"""How soon the server must answer /ok."""
OK_PAUSE_S = 0.05
END_S = 180.0
"""How long a run may take; one that ends its worker twice waits for two new workers."""
TERMINAL = {"success", "error", "interrupted", "timeout"}
INNOCENT: JsonObject = {"sleep_ms": 100}
ENVIRONMENT = {
    "AGENTLOG_CANCEL_GRACE_SECS": "3",
    "AGENTLOG_STUCK_SECS": "4",
    "AGENTLOG_LEASE_TTL_SECS": "6",
    "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "1",
}


@dataclass
class Crowd:
    """Runs in progress on one server, and the complaints about them."""

    api: Api
    wrong: list[str] = field(default_factory=list[str])
    slowest_ok_s: float = 0.0
    oks: int = 0

    async def hostile(self, deed: str, seed: int) -> None:
        """Do a deed and require an end of its run."""
        status = await self._ended("hostile", {"deed": deed, "seed": seed})
        if status not in TERMINAL:
            self.wrong.append(f"{deed} {seed}: {status} after {END_S:g} s")

    async def innocent(self, number: int) -> None:
        """Execute a harmless run beside the others and require its success."""
        status = await self._ended("steps", INNOCENT)
        if status != "success":
            self.wrong.append(f"innocent run {number}: {status}")

    async def _ended(self, assistant: str, data: JsonObject) -> str:
        thread_id = await self.api.thread()
        run_id = await self.api.start_run(thread_id, assistant, data)
        end = time.monotonic() + END_S
        status = "pending"
        while status not in TERMINAL and time.monotonic() < end:
            await asyncio.sleep(0.05)  # a status has no event that outlives a worker
            status = await run_status(self.api, thread_id, run_id)
        for path in (f"/threads/{thread_id}", f"/threads/{thread_id}/state", f"/threads/{thread_id}/history"):
            answer, content = await self.api.raw("GET", path)
            if answer not in (200, 400):
                self.wrong.append(f"{assistant} {data}: GET {path}: {answer} {content[:200]!r}")
        return status

    @asynccontextmanager
    async def asked_for_health(self) -> AsyncGenerator[None]:
        """Ask for /ok for the length of the block, and note the slowest answer."""

        async def ask() -> None:
            while True:
                started = time.monotonic()
                try:
                    status, _ = await self.api.raw("GET", "/ok")
                    self.oks += status == 200
                    if status != 200:
                        self.wrong.append(f"GET /ok: {status}")
                except (aiohttp.ClientError, TimeoutError) as error:
                    self.wrong.append(f"GET /ok: {error!r}")
                self.slowest_ok_s = max(self.slowest_ok_s, time.monotonic() - started)
                await asyncio.sleep(OK_PAUSE_S)

        asking = asyncio.create_task(ask())
        try:
            yield
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


def deeds(seed: int, count: int, killers: int) -> list[tuple[str, int]]:
    """Return so many deeds in random order, some of which end their process."""
    chance = random.Random(seed)
    harmless = sorted(DEEDS.keys() - KILLERS)
    chosen = [chance.choice(harmless) for _ in range(count - killers)]
    chosen += [sorted(KILLERS)[number % len(KILLERS)] for number in range(killers)]
    chance.shuffle(chosen)
    return [(name, chance.getrandbits(30)) for name in chosen]


async def in_turn(crowd: Crowd, chosen: Sequence[tuple[str, int]]) -> None:
    """Do all deeds, AT_ONCE at a time, with one innocent run beside each tenth."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, name: str, seed: int) -> None:
        async with slots:
            await crowd.hostile(name, seed)

    async def innocent(number: int) -> None:
        async with slots:
            await crowd.innocent(number)

    async with asyncio.TaskGroup() as group:
        for number, (name, seed) in enumerate(chosen):
            if number % 10 == 0:
                group.create_task(innocent(number))
            group.create_task(one(number, name, seed))


class NoBlobs:
    """Implements `ports.Blobs` without any."""

    async def read(self, sha256: str) -> Json:
        raise BlobMissing(sha256)


async def hostile_records(log: str, seed: int, count: int) -> int:
    """Append the records of `count` mutated histories to all topics; return their number.

    A partition stops by design at a record of a later release and at one whose blob is missing: these are left out.
    """
    sent = 0
    async with AIOKafkaProducer(**client_options(log)) as client:
        partitions = len(await client.partitions_for("agentlog.events"))
        for number in range(seed, seed + count):
            for raw in mutated(number):
                try:
                    await resolve(raw, NoBlobs())
                except (UnknownSchema, BlobMissing):
                    continue
                except Corrupt:
                    pass  # what the projector must survive
                key = (
                    b"" if raw.key is None and raw.value is None else raw.key
                )  # the client sends no record without both
                at = partition_of((raw.key or b"").decode(errors="replace").encode(), partitions)
                for topic in ("agentlog.events", "agentlog.outputs", "agentlog.blobs"):
                    await client.send(topic, raw.value, key, partition=at)
                sent += 1
        await client.flush()
    return sent


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1])
async def test_no_deed_of_a_graph_harms_another_run_or_the_server(seed: int, full: bool) -> None:
    chosen = deeds(seed, MANY, MANY_KILLERS) if full else deeds(seed, FEW, FEW_KILLERS)
    with running_server(ENVIRONMENT, GRAPHS) as server:
        started = server.process and server.process.pid
        crowd, records = Crowd(Api(server.url)), 0
        try:
            async with crowd.asked_for_health():
                _, records = await asyncio.gather(
                    in_turn(crowd, chosen), hostile_records(server.kafka, seed, len(chosen))
                )
            await is_whole(server, crowd)
        finally:
            said = f"slowest of {crowd.oks} answers to /ok {crowd.slowest_ok_s:.2f} s"
            print(f"{len(chosen)} deeds, {records} records on each topic, {said}, wrong: {len(crowd.wrong)}")
            if crowd.wrong:
                print(server.log()[-5_000:])
        assert started == (server.process and server.process.pid)
    assert records > len(chosen), "no record was sent"
    assert not crowd.wrong, "\n".join(crowd.wrong)
    assert crowd.oks > len(chosen), "/ok was not asked all the time"
    assert crowd.slowest_ok_s < OK_S


async def is_whole(server: RunningServer, crowd: Crowd) -> None:
    """Require that every partition is folded and a new run succeeds."""
    status, content = await crowd.api.raw("GET", "/ready")
    assert status == 200, content
    await crowd.innocent(-1)
