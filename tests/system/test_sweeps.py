"""System test of a server whose langgraph.json gives every thread a short life."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.servers import EXAMPLES, RunningServer, running_server

from agentlog_facts.json_value import JsonObject, as_object


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningServer]:
    """Yield a server that deletes threads four seconds after their last update."""
    folder: Path = tmp_path_factory.mktemp("short lives")
    graphs = {name: f"{EXAMPLES.parent}/example_{name}.py:graph" for name in ("steps", "trivial")}
    ttl = {"strategy": "delete", "default_ttl": 4 / 60, "sweep_interval_minutes": 0.01}
    config = folder / "langgraph.json"
    config.write_text(
        json.dumps({"dependencies": [str(EXAMPLES.parent)], "graphs": graphs, "checkpointer": {"ttl": ttl}})
    )
    folder.chmod(0o755)
    with running_server(config=config) as running:
        yield running


async def test_threads_end_by_their_own_ttl_or_by_the_default_also_those_that_a_run_made(server: RunningServer) -> None:
    api = Api(server.url)
    keep: JsonObject = {"ttl": {"ttl": 0.02, "strategy": "keep_latest"}}
    kept = as_object(await api.call("POST", "/threads", keep))["thread_id"]
    run: JsonObject = {"assistant_id": "steps", "input": {"name": "x"}}
    await api.call("POST", f"/threads/{kept}/runs/wait", run)
    long: JsonObject = {"ttl": {"ttl": 60}, "metadata": {"long": True}}
    await api.call("POST", "/threads", long)
    await api.call("POST", "/threads", {"metadata": {"short": True}})
    await api.call("POST", "/runs/wait", {**run, "on_completion": "keep"})

    async def count() -> int:
        return int(str(await api.call("POST", "/threads/count", {})))

    async def is_swept() -> bool:
        history = await api.call("GET", f"/threads/{kept}/history?limit=100")
        return isinstance(history, list) and len(history) == 1 and await count() == 2

    await until(is_swept, within_secs=30)
    left = await api.get(f"/threads/{kept}?include=ttl")
    assert as_object(left["ttl"])["expires_at"] is None
    assert as_object(left["values"])["done"] == ["one", "two", "three", "four", "five"]
    assert await api.call("POST", "/threads/count", {"metadata": {"long": True}}) == 1
