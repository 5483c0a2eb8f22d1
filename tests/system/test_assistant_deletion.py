"""Deletion of assistants over HTTP, and their use by runs."""

from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.checker.records import client_options
from tests.system.runs_env import UNKNOWN, Gate, done_of, refused, run_status
from tests.system.servers import RunningServer, wait_until
from tests.system.test_assistants import ask, made, path

from agentlog_facts.assistant import AssistantDeletionAsked
from agentlog_facts.envelope import Actor, Cause, Draft
from agentlog_facts.ids import AssistantId, Key, ThreadId, stream
from agentlog_facts.json_value import JsonObject, as_object
from agentlog_facts.vocabulary import encode_commit, encode_facts
from agentlog_infra.kafka.partitions import partition_of
from agentlog_infra.system_ports import SystemClock, SystemIds


@pytest.fixture
def api(server: RunningServer) -> Api:
    return Api(server.url)


async def test_an_unknown_assistant_cannot_be_deleted(api: Api) -> None:
    assert await refused(api, "DELETE", f"/assistants/{UNKNOWN}") == (404, f"Assistant with ID {UNKNOWN} not found")
    assert await refused(api, "DELETE", "/assistants/steps") == (422, "Invalid assistant ID: must be a UUID")


async def test_a_deleted_assistant_is_gone_with_its_versions_until_its_id_is_created_again(
    server: RunningServer, api: Api
) -> None:
    assistant = await made(api)
    at = path(assistant)
    stale = (await ask(server, "GET", at)).tag
    await api.call("PATCH", at, {})
    assert (await ask(server, "DELETE", at, headers={"If-Match": stale})).status == 412
    key = {"Idempotency-Key": uuid4().hex}
    first = await ask(server, "DELETE", at, headers=key)
    assert (first.status, first.body, "x-consistency-token" in first.headers) == (204, None, True)
    assert (await ask(server, "DELETE", at, headers=key)).status == 204
    assert await refused(api, "DELETE", at) == (404, f"Assistant with ID {assistant['assistant_id']} not found")
    assert await refused(api, "GET", at) == (404, "Not Found")
    assert (await refused(api, "PATCH", at, {}))[0] == 404
    assert (await refused(api, "POST", at + "/versions", {}))[0] == 404
    body: JsonObject = {"assistant_id": assistant["assistant_id"], "input": {}}
    assert await refused(api, "POST", "/runs", body) == (404, "Thread or assistant not found.")
    again = await made(api, assistant_id=assistant["assistant_id"], name="again")
    assert (again["version"], again["name"]) == (1, "again")


async def test_a_run_uses_the_current_version_and_keeps_it(api: Api) -> None:
    assistant = await made(api, context={"model": "small"}, config={"tags": ["a"]}, metadata={"team": 1})
    assistant_id = assistant["assistant_id"]
    thread_id = await api.thread()
    run_id = await api.start_run(thread_id, str(assistant_id), {}, {"metadata": {"run": 2}})
    await api.call("PATCH", path(assistant), {"context": {"model": "large"}})
    await api.join(thread_id, run_id)
    run = await api.get(f"/threads/{thread_id}/runs/{run_id}")
    kwargs = as_object(run["kwargs"])
    config = as_object(kwargs["config"])
    configurable = as_object(config["configurable"])
    assert (run["assistant_id"], configurable["assistant_id"], configurable["graph_id"]) == (
        assistant_id,
        assistant_id,
        "steps",
    )
    assert (configurable["model"], kwargs["context"], config["tags"]) == ("small", {"model": "small"}, ["a"])
    assert (as_object(run["metadata"])["team"], as_object(run["metadata"])["run"]) == (1, 2)
    thread = await api.get(f"/threads/{thread_id}")
    assert as_object(thread["metadata"])["assistant_id"] == assistant_id
    assert as_object(as_object(thread["config"])["configurable"]) == {"model": "small"}
    stateless: JsonObject = {"assistant_id": assistant_id, "input": {}}
    assert done_of(await api.call("POST", "/runs/wait", stateless)) == done_of(thread["values"])


async def test_a_deletion_cancels_its_runs_and_on_request_takes_its_threads(server: RunningServer, api: Api) -> None:
    assistant = await made(api)
    assistant_id = str(assistant["assistant_id"])
    used, other, by_hand = await api.thread(), await api.thread(), await api.thread()
    await api.call("PATCH", f"/threads/{by_hand}", {"metadata": {"assistant": assistant_id}})
    await api.join(used, await api.start_run(used, assistant_id, {}))
    gate = Gate(server)
    held = await api.start_run(other, assistant_id, gate.held())
    wait_until(lambda: gate.began(server), 20, "the run to start")
    await api.call("DELETE", path(assistant))
    assert await run_status(api, other, held) == "interrupted"
    gate.open()
    for thread_id in (used, other, by_hand):
        assert (await api.get(f"/threads/{thread_id}"))["thread_id"] == thread_id


async def test_threads_that_ran_the_assistant_last_go_with_it(server: RunningServer, api: Api) -> None:
    assistant = await made(api)
    assistant_id = str(assistant["assistant_id"])
    used, moved, kept = await api.thread(), await api.thread(), await api.thread()
    for thread_id in (used, moved):
        await api.join(thread_id, await api.start_run(thread_id, assistant_id, {}))
    for thread_id in (moved, kept):
        await api.join(thread_id, await api.start_run(thread_id, "steps", {}))
    gate = Gate(server)
    busy = await api.thread()
    await api.start_run(busy, assistant_id, gate.held())
    wait_until(lambda: gate.began(server), 20, "the run to start")
    done = await ask(server, "DELETE", path(assistant) + "?delete_threads=true")
    assert done.status == 204
    gate.open()
    for thread_id in (used, busy):
        assert (await refused(api, "GET", f"/threads/{thread_id}"))[0] == 404
    for thread_id in (moved, kept):
        assert (await api.get(f"/threads/{thread_id}"))["thread_id"] == thread_id
    assert await refused(api, "GET", path(assistant)) == (404, "Not Found")


async def test_an_open_deletion_takes_no_run_and_no_change_and_a_second_one_joins_it(
    server: RunningServer, api: Api
) -> None:
    assistant = await made(api)
    assistant_id, thread_id = AssistantId(str(assistant["assistant_id"])), await api.thread()
    await leave_deletion(server, AssistantDeletionAsked(assistant_id, (ThreadId(thread_id),), {}))
    at = path(assistant)
    await until(lambda: is_refused(api, at), within_secs=20)
    busy = f"Assistant {assistant_id}: the assistant is being deleted"
    assert await refused(api, "PATCH", at, {}) == (409, busy)
    assert await refused(api, "POST", f"{at}/latest", {"version": 1}) == (409, busy)
    body: JsonObject = {"assistant_id": assistant_id, "input": {}}
    assert await refused(api, "POST", "/runs", body) == (404, "Thread or assistant not found.")
    again: JsonObject = {"graph_id": "steps", "assistant_id": assistant_id}
    assert await refused(api, "POST", "/assistants", again) == (409, f"Assistant {assistant_id} already exists")
    assert as_object(await api.call("GET", at))["version"] == 1
    assert (await ask(server, "DELETE", at)).status == 204
    for gone in (at, f"/threads/{thread_id}"):
        assert (await refused(api, "GET", gone))[0] == 404


async def is_refused(api: Api, at: str) -> bool:
    status, _ = await api.raw("POST", f"{at}/latest", b'{"version":99}')
    return status == 409


async def leave_deletion(server: RunningServer, asked: AssistantDeletionAsked) -> None:
    """Append the acceptance of a deletion, as by a gateway that died after it."""
    ids = SystemIds()
    draft = Draft(
        key=Key(asked.assistant_id),
        stream=stream("assistant", asked.assistant_id),
        event_id=ids.uuid7(),
        append_id=ids.uuid7(),
        body_sha256="0" * 64,
        facts=(asked,),
        occurred_at=SystemClock().now(),
        cause=Cause(Actor("system", "test"), correlation_id=ids.uuid7()),
    )
    producer = AIOKafkaProducer(**client_options(server.kafka))
    await producer.start()
    try:
        key = draft.key.encode()
        value = encode_commit(draft, encode_facts(draft))
        await producer.send_and_wait("agentlog.events", value, key, partition_of(key, 8))
    finally:
        await producer.stop()
