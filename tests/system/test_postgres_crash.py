"""System test of crashes of PostgreSQL under load: no read shows rows that are older than an answer."""

import asyncio
import signal
from collections import Counter
from collections.abc import Generator

import pytest
from tests.system.cluster import running_cluster
from tests.system.faults_env import END_S, SIZES, FaultsEnv, lasting, until
from tests.system.noted import Client

from agentlog_facts.json_value import as_object

WRITERS = 6
CRASHES = 4
UNDER_LOAD_S = 1.5
AWAY = (0, 503, 504)
"""Statuses of a read while PostgreSQL is away or its rows are not complete again; 0: no answer."""


@pytest.fixture(scope="module")
def env() -> Generator[FaultsEnv]:
    """Yield a cluster for all crashes."""
    with running_cluster(SIZES) as running:
        yield FaultsEnv(running)


async def reads(client: Client, path: str, seen: "Counter[int]") -> int:
    """Read a thread until it is shown, and return its counter; nothing but an outage may be answered before."""
    async with asyncio.timeout(END_S):
        while True:
            status, found = await client.get_once(path)
            seen[status] += 1
            if status == 200:
                count = as_object(as_object(found)["metadata"]).get("n", 0)
                assert isinstance(count, int)
                return count
            assert status in AWAY, f"GET {path}: {status} {found}, although its creation was answered"


async def write(env: FaultsEnv, name: str, stop: asyncio.Event, seen: "Counter[int]") -> None:
    """Create and change threads, and read each of them right after the answer."""
    client = Client(env.cluster.url, name, env.notes)
    while not stop.is_set():
        path = f"/threads/{await client.thread()}"
        assert await reads(client, path, seen) == 0
        for number in range(1, 9):
            await client.change("PATCH", path, {"metadata": {"n": number}}, path.rpartition("/")[2])
            assert await reads(client, path, seen) == number, f"{path} is older than the answer to its change"


@pytest.mark.timeout(300)
async def test_after_a_crash_of_postgresql_no_read_is_older_than_an_answer(env: FaultsEnv) -> None:
    cluster, stop, seen = env.cluster, asyncio.Event(), Counter[int]()
    await until(cluster.settled, END_S, "all roles are there")
    writers = [asyncio.create_task(write(env, f"writer-{number}", stop, seen)) for number in range(WRITERS)]
    try:
        for crash in range(CRASHES):
            await lasting(UNDER_LOAD_S)
            pids = cluster.living("postgres")
            # The whole server, or one of its processes: then the server ends all others and recovers by itself.
            cluster.signal_pids(pids if crash % 2 else pids[-1:], signal.SIGKILL)
            async with asyncio.timeout(END_S):
                while (await env.ana.get_once("/ok?check_db=1"))[0] != 200:
                    await lasting(0.05)
            assert not [task for task in writers if task.done()]
        await lasting(UNDER_LOAD_S)
    finally:
        stop.set()
        await asyncio.gather(*writers)
    assert seen[503] > 0, f"no read came while rows were folded again: {seen}"
    print(f"reads by status: {dict(seen)}, changes: {len(env.notes.changes)}")
    await env.judged()
