"""System test of crons: the official clients' methods, refusals over raw HTTP, and slots that fire once."""

# The SDK types states and results as bare dicts.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
from uuid import uuid4

import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.errors import NotFoundError
from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.runs_env import UNKNOWN
from tests.system.servers import RunningServer

from agentlog_facts.json_value import JsonObject, as_object, dump, load

DAILY: JsonObject = {"assistant_id": "steps", "schedule": "0 9 * * *"}


def seen(answer: object) -> JsonObject:
    """Return an answer of the SDK as plain JSON: it calls a new cron a run."""
    return as_object(load(json.dumps(answer)))


async def test_the_async_client_has_every_method(server: RunningServer) -> None:
    mark = {"mark": uuid4().hex}
    async with get_client(url=server.url) as client:
        thread = await client.threads.create()
        made = seen(
            await client.crons.create(
                "steps", schedule="@daily", input={"name": "x"}, metadata=mark, timezone="Europe/Paris"
            )
        )
        bound = seen(
            await client.crons.create_for_thread(
                thread["thread_id"], "steps", schedule="0 0 * * * 30", metadata=mark, enabled=False
            )
        )
        found = await client.crons.search(sort_by="created_at", sort_order="asc", thread_id=thread["thread_id"])
        assert [one["cron_id"] for one in found] == [bound["cron_id"]]
        assert await client.crons.count(thread_id=thread["thread_id"]) == 1
        changed = seen(
            await client.crons.update(str(made["cron_id"]), schedule="0 10 * * *", enabled=False, metadata={"b": 2})
        )
        assert (changed["schedule"], changed["enabled"]) == ("0 10 * * *", False)
        assert changed["metadata"] == {**mark, "b": 2}
        config = as_object(as_object(changed["payload"])["config"])
        assert config["configurable"] == {"cron_id": made["cron_id"]}
        await client.crons.delete(str(made["cron_id"]))
        with pytest.raises(NotFoundError):
            await client.crons.delete(str(made["cron_id"]))
        await client.threads.delete(thread["thread_id"])
        assert await client.crons.count(thread_id=thread["thread_id"]) == 0


def test_the_sync_client_has_every_method(server: RunningServer) -> None:
    with get_sync_client(url=server.url) as client:
        thread = client.threads.create()
        made = seen(client.crons.create("steps", schedule="@daily", on_run_completed="keep"))
        bound = seen(client.crons.create_for_thread(thread["thread_id"], "steps", schedule="@weekly"))
        assert (made["on_run_completed"], bound["on_run_completed"]) == ("keep", None)
        assert client.crons.count(thread_id=thread["thread_id"]) == 1
        assert len(client.crons.search(thread_id=thread["thread_id"])) == 1
        assert client.crons.update(str(made["cron_id"]), timezone="UTC")["timezone"] == "UTC"
        client.crons.delete(str(made["cron_id"]))
        client.crons.delete(str(bound["cron_id"]))


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/runs/crons", {"assistant_id": "steps"}, 422),
        ("POST", "/runs/crons", {"schedule": "@daily"}, 422),
        ("POST", "/runs/crons", {**DAILY, "schedule": "x"}, 422),
        ("POST", "/runs/crons", {**DAILY, "timezone": "Nowhere/Here"}, 422),
        ("POST", "/runs/crons", {**DAILY, "end_time": "soon"}, 422),
        ("POST", "/runs/crons", {**DAILY, "webhook": "https://example.com"}, 422),
        ("POST", "/runs/crons", {**DAILY, "assistant_id": UNKNOWN}, 404),
        ("POST", "/runs/crons", {**DAILY, "assistant_id": "unknown"}, 404),
        ("POST", "/runs/crons", {**DAILY, "context": {"a": 1}, "config": {"configurable": {"a": 1}}}, 400),
        ("POST", f"/threads/{UNKNOWN}/runs/crons", DAILY, 404),
        ("POST", "/runs/crons/search", {"select": ["now"]}, 422),
        ("GET", f"/runs/crons/{UNKNOWN}", None, 404),
        ("GET", "/runs/crons/x", None, 422),
        ("PATCH", f"/runs/crons/{UNKNOWN}", {}, 400),
        ("PATCH", f"/runs/crons/{UNKNOWN}", {"enabled": False}, 404),
        ("DELETE", f"/runs/crons/{UNKNOWN}", None, 404),
    ],
)
async def test_refusals(server: RunningServer, method: str, path: str, body: JsonObject | None, status: int) -> None:
    found, content = await Api(server.url).raw(method, path, None if body is None else dump(body))
    assert found == status, content


async def test_each_slot_fires_once_until_the_end(server: RunningServer) -> None:
    async with get_client(url=server.url) as client:
        thread_id = (await client.threads.create())["thread_id"]
        made = seen(
            await client.crons.create_for_thread(
                thread_id, "steps", schedule="* * * * * *", input={"name": "x"}, metadata={"m": 1}
            )
        )

        async def fired() -> bool:
            return len(await client.runs.list(thread_id)) >= 3

        await until(fired)
        await client.crons.update(str(made["cron_id"]), enabled=False)
        runs = await client.runs.list(thread_id, limit=100)
        assert len({run["run_id"] for run in runs}) == len(runs)
        assert all(as_object(seen(run)["metadata"])["m"] == 1 for run in runs)
        config = as_object(as_object(seen(runs[0])["kwargs"])["config"])
        assert as_object(config["configurable"])["cron_id"] == made["cron_id"]
        await client.crons.delete(str(made["cron_id"]))
