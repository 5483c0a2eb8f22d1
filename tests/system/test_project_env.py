"""System test of a project's environment: it reaches the gateway's settings, and user code sees its own variables."""

import json
import os
from pathlib import Path

import aiohttp
from tests.stack_fixtures import open_folder
from tests.system.api import Api
from tests.system.checker.judgement import judged_well
from tests.system.servers import RunningServer

from agentlog_facts.json_value import as_object

GRAPH = """
import os
from typing import TypedDict
from langgraph.graph import StateGraph


class State(TypedDict, total=False):
    seen: dict[str, str]


def look(state: State) -> State:
    return {"seen": dict(os.environ)}


graph = StateGraph(State).add_node("look", look).set_entry_point("look")
"""


async def test_the_environment_of_a_project_reaches_the_server_and_the_server_s_own_never_reaches_the_project() -> None:
    folder = open_folder()
    (folder / "mine.py").write_text(GRAPH)
    (folder / ".env").write_text(
        "CORS_ALLOW_ORIGINS=https://only.example\nHTTP_MAX_REQUEST_BODY_BYTES=1000\nDATABASE_URI=postgresql:///mine\n"
    )
    config: dict[str, object] = {"dependencies": ["."], "graphs": {"mine": "./mine.py:graph"}, "env": ".env"}
    (folder / "langgraph.json").write_text(json.dumps(config))
    server = RunningServer(folder, config=folder / "langgraph.json")
    server.start()
    try:
        api = Api(server.url)
        assert (await api.raw("POST", "/threads", b'{"metadata":{"a":"' + b"x" * 1000 + b'"}}'))[0] == 413
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{server.url}/ok", headers={"Origin": "https://other.example"}) as answer:
                assert "access-control-allow-origin" not in answer.headers
        values = as_object(await api.call("POST", "/runs/wait", {"assistant_id": "mine", "input": {}}))
        seen = as_object(values["seen"])
        assert seen["DATABASE_URI"] == "postgresql:///mine"
        assert "REDIS_URI" not in seen or seen["REDIS_URI"] == os.environ.get("REDIS_URI")
        data = str(Path(server.folder / "data"))
        places = {name for name, value in seen.items() if "postgres" in str(value) and data in str(value)}
        assert places == set()
        await judged_well(server.kafka, server.postgres)
    finally:
        assert server.stop() == 0
