"""System tests of remembered states and histories: random operations, and after each the answers of a fresh read."""

import asyncio
import random
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.gateway.answers_env import TwoGateways, two_gateways
from tests.system.api import Api
from tests.system.rebuilds import rebuilt
from tests.system.runs_env import Gate
from tests.system.servers import RunningServer, running_server

from agentlog_facts.json_value import JsonObject, as_object, dump
from agentlog_postgres.connection import open_pool
from agentlog_projections.queries.purge import purge_deleted

CONFIG = Path(__file__).parent / "graphs" / "langgraph.json"
GRAPHS = ("steps", "asking", "breaking_inside", "line", "keyed_by_factory")


@pytest.fixture(scope="module")
def server() -> Generator[RunningServer]:
    with running_server(config=CONFIG) as running:
        yield running


@pytest.fixture(autouse=True)
def gates(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let graphs in this process find the gates."""
    monkeypatch.setenv("AGENTLOG_EXAMPLE_GATES", str(server.gates))


class Client:
    """Random operations on one thread; a refusal changes nothing."""

    def __init__(self, server: RunningServer, chance: random.Random) -> None:
        self._api = Api(server.url)
        self._server = server
        self._chance = chance
        self.thread_id = ""

    async def operate(self) -> None:
        """Do one operation and wait until it has ended."""
        ways = [self._run, self._run, self._resume, self._update, self._patch, self._take_back, self._delete_run]
        await self._chance.choice(ways if self._chance.random() < 0.9 else [self.delete])()

    async def create(self) -> None:
        """Create the thread, with the same id again after a deletion."""
        body: JsonObject = {"thread_id": self.thread_id} if self.thread_id else {}
        self.thread_id = str(as_object(await self._api.call("POST", "/threads", body))["thread_id"])

    async def delete(self) -> None:
        """Delete the thread, and mostly create it again."""
        await self._api.call("DELETE", f"/threads/{self.thread_id}")
        if self._chance.random() < 0.8:
            await self.create()

    async def _post(self, last: str, body: JsonObject) -> None:
        status, content = await self._api.raw("POST", f"/threads/{self.thread_id}/{last}", dump(body))
        assert status < 500, content

    async def _run(self) -> None:
        fail = self._chance.choice(["", "", "three"])
        body: JsonObject = {"assistant_id": self._chance.choice(GRAPHS), "input": {"name": "n", "fail_at": fail}}
        await self._post("runs/wait", body | await self._place())

    async def _resume(self) -> None:
        body: JsonObject = {"assistant_id": self._chance.choice(GRAPHS), "command": {"resume": "yes"}}
        await self._post("runs/wait", body)

    async def _update(self) -> None:
        await self._post("state", {"values": {"name": "by hand", "done": ["hand"]}, **await self._place()})

    async def _patch(self) -> None:
        body: JsonObject = {"metadata": {"graph_id": self._chance.choice(GRAPHS)}}
        await self._api.raw("PATCH", f"/threads/{self.thread_id}", dump(body))

    async def _take_back(self) -> None:
        """Start a run that waits at a gate, and cancel it with a rollback."""
        gate = Gate(self._server)
        run_id = await self._api.start_run(self.thread_id, "steps", gate.held())
        path = f"/threads/{self.thread_id}/runs/{run_id}/cancel?wait=true"
        action = self._chance.choice(["rollback", "interrupt"])
        status, content = await self._api.raw("POST", f"{path}&action={action}")
        assert status < 500, content

    async def _delete_run(self) -> None:
        found = await self._api.call("GET", f"/threads/{self.thread_id}/runs")
        runs = found if isinstance(found, list) else []
        if runs:
            run_id = as_object(self._chance.choice(runs))["run_id"]
            await self._api.raw("DELETE", f"/threads/{self.thread_id}/runs/{run_id}")

    async def _place(self) -> JsonObject:
        """Return nothing, or an earlier checkpoint to begin at."""
        found = await self._api.call("POST", f"/threads/{self.thread_id}/history", {"limit": 20})
        states = found if isinstance(found, list) else []
        if not states or self._chance.random() < 0.6:
            return {}
        return {"checkpoint": as_object(self._chance.choice(states))["checkpoint"]}


async def asked_meanwhile(gateways: TwoGateways, client: Client, stop: asyncio.Event) -> None:
    """Ask again and again, so that answers are read while rows change."""
    while not stop.is_set():
        for last in ("state", "state?subgraphs=true", "history?limit=5"):
            await gateways.remembering.get(f"/threads/{client.thread_id}/{last}")


@pytest.mark.parametrize("seed", range(2))
async def test_a_remembered_answer_equals_a_fresh_one_after_every_operation(server: RunningServer, seed: int) -> None:
    client = Client(server, random.Random(seed))
    await client.create()
    async with two_gateways(server.postgres, CONFIG) as gateways:
        for _ in range(16):
            stop = asyncio.Event()
            asking = asyncio.create_task(asked_meanwhile(gateways, client, stop))
            try:
                if (await Api(server.url).raw("GET", f"/threads/{client.thread_id}"))[0] == 404:
                    await client.create()
                await client.operate()
            finally:
                stop.set()
                await asking
            await gateways.compare(client.thread_id)
        assert gateways.answers.found > 100


async def test_answers_stay_right_across_a_rebuild_a_deletion_a_purge_and_a_new_thread_of_that_id(
    server: RunningServer,
) -> None:
    client = Client(server, random.Random(0))
    await client.create()
    pool = await open_pool(server.postgres, 1)
    api = Api(server.url)
    try:
        async with two_gateways(server.postgres, CONFIG) as gateways:
            path = f"/threads/{client.thread_id}"
            await api.call("POST", f"{path}/runs/wait", {"assistant_id": "steps", "input": {}})
            await gateways.compare(client.thread_id)
            found = gateways.answers.found
            assert found > 0
            status, said, told = await rebuilt(server)
            assert status == 0, said + told
            await gateways.remembering.get(f"{path}/state")
            assert gateways.answers.found == found, "rows of another fold have another version"
            await gateways.compare(client.thread_id)
            await api.call("DELETE", path)
            await gateways.compare(client.thread_id)
            assert (await gateways.remembering.get(f"{path}/state")).status_code == 404
            await purge_deleted(pool, timedelta())
            await gateways.compare(client.thread_id)
            await client.create()
            await gateways.compare(client.thread_id)
            assert (await gateways.remembering.get(f"{path}/state")).json()["values"] == {}
            await api.call("POST", f"{path}/runs/wait", {"assistant_id": "line", "input": {}})
            await gateways.compare(client.thread_id)
    finally:
        await pool.close()


async def test_a_state_that_a_factory_decides_is_not_remembered_and_has_a_tag_all_the_same(
    server: RunningServer,
) -> None:
    api = Api(server.url)
    thread_id = await api.thread()
    path = f"/threads/{thread_id}"
    await api.call("POST", f"{path}/runs/wait", {"assistant_id": "keyed_by_factory", "input": {}})
    async with two_gateways(server.postgres, CONFIG) as gateways:
        for last in ("state", "history?limit=9"):
            first = await gateways.remembering.get(f"{path}/{last}")
            tag = {"If-None-Match": first.headers["etag"]}
            again = await gateways.remembering.get(f"{path}/{last}", headers=tag)
            assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
        assert gateways.answers.found == 0
