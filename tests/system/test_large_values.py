"""System tests of large values: a 5 MB message and a 20 MB state survive a run, a restart and a rebuild unchanged."""

import asyncio
import hashlib
import subprocess
import sys

import pytest
from tests.system.api import Api
from tests.system.checker.judgement import judged_well
from tests.system.servers import RunningServer, running_server

from agentlog_facts.json_value import Json, JsonObject, as_object, dump
from agentlog_infra.process.child import child_environment

MEGABYTE = 1_000_000
MESSAGE = "".join(hashlib.sha256(str(n).encode()).hexdigest() for n in range(5 * MEGABYTE // 64))


async def message_of(api: Api, thread_id: str) -> tuple[int, str]:
    """Return the number of messages of the thread, and the text of the first."""
    values = as_object((await api.get(f"/threads/{thread_id}/state"))["values"])
    messages = values["messages"]
    assert isinstance(messages, list)
    return len(messages), str(as_object(messages[0])["content"])


async def padding_of(api: Api, thread_id: str) -> Json:
    """Return the text that the steps added to the state."""
    return as_object((await api.get(f"/threads/{thread_id}/state"))["values"])["padding"]


async def both_are_whole(api: Api, chat: str, steps: str) -> None:
    count, text = await message_of(api, chat)
    assert (count, text == MESSAGE) == (2, True)
    padding = await padding_of(api, steps)
    assert padding == [letter * (4 * MEGABYTE) for letter in "ottff"]
    values = as_object((await api.get(f"/threads/{steps}"))["values"])
    assert values["padding"] == padding


def rebuild(server: RunningServer) -> None:
    words = ["rebuild", "--data-dir", str(server.folder / "data")]
    done = subprocess.run(
        [sys.executable, "-m", "agentlog_infra.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=child_environment({"PATH": "/usr/bin:/bin"}),
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(240)
async def test_a_5_mb_message_and_a_20_mb_state_survive_everything() -> None:
    with running_server() as server:
        api = Api(server.url)
        chat, steps = await api.thread(), await api.thread()
        message: JsonObject = {"messages": [{"role": "user", "content": MESSAGE}]}
        await api.call("POST", f"/threads/{chat}/runs/wait", {"assistant_id": "trivial", "input": message})
        grown: JsonObject = {"assistant_id": "steps", "input": {"grow_bytes": 4 * MEGABYTE}}
        answer = as_object(await api.call("POST", f"/threads/{steps}/runs/wait", grown))
        assert len(dump(answer)) > 20 * MEGABYTE
        await both_are_whole(api, chat, steps)
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        await both_are_whole(api, chat, steps)
        await asyncio.to_thread(rebuild, server)
        await both_are_whole(api, chat, steps)
        _, found = await judged_well(server.kafka, server.postgres)
        assert list(found.runs.values()) == ["success", "success"]
