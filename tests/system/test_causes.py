"""System test of what the log tells of each request beside its effect: who, from where, why, and with which code."""

import hashlib

import pytest
from tests.system.api import Api
from tests.system.checker.fold import facts_of
from tests.system.checker.records import Json, Record, read_topic
from tests.system.servers import RunningServer
from tests.system.test_state import APPROVE, PAY

from agentlog_facts.json_value import JsonObject, as_object
from agentlog_facts.version import VERSION

VALUES: JsonObject = {"messages": [{"role": "user", "content": "by hand"}]}
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def api(server: RunningServer) -> Api:
    """Return a client of the server."""
    return Api(server.url)


async def commits(server: RunningServer, key: str) -> list[Json]:
    """Return the commits of an aggregate, in order."""
    return [record.value for record in await read_topic(server.kafka, "agentlog.events") if record.key == key]


def with_fact(found: list[Json], kind: str) -> tuple[Json, Json]:
    """Return the last commit with a fact of this type, and the data of that fact."""
    return [(commit, data) for commit in found for name, data in facts_of(commit) if name == kind][-1]


async def test_a_request_is_told_with_its_ids_its_client_and_the_hash_of_its_address(
    api: Api, server: RunningServer
) -> None:
    given = {"X-Request-Id": "order-7", "User-Agent": "portal/1.0"}
    thread_id = str(as_object(await api.call("POST", "/threads", {}, given))["thread_id"])
    commit, _ = with_fact(await commits(server, thread_id), "ThreadCreated")
    assert commit["request"] == {"id": "order-7", "method": "POST", "route": "/threads", "client": "portal/1.0"}
    assert commit["correlation_id"] not in ("order-7", None)
    assert (commit["spec"], commit["rules"], commit["on_behalf_of"], commit["authz"]) == (2, 2, [], None)
    actor = commit["actor"]
    assert isinstance(actor, dict)
    key_id, _, hashed = str(actor["ip_hash"]).partition(".")
    assert (len(key_id), len(hashed)) == (16, 32)
    assert "127.0.0.1" not in str(commit)


async def test_a_run_is_told_with_its_code_and_the_process_that_executed_it(api: Api, server: RunningServer) -> None:
    thread_id = await api.thread()
    await api.call("POST", f"/threads/{thread_id}/runs/wait", {"assistant_id": "trivial", "input": {}})
    found = await commits(server, thread_id)
    asked, _ = with_fact(found, "RunCreated")
    claimed, claim = with_fact(found, "RunClaimed")
    assert asked["provenance"] == claimed["provenance"]
    code = asked["provenance"]
    assert isinstance(code, dict)
    assert (code["graph_id"], code["agentlog"], code["assistant_version"]) == ("trivial", VERSION, 1)
    assert len(str(code["graph_digest"])) == len(str(code["environment_digest"])) == 64
    assert {"python", "langgraph", "langchain_core", "libraries", "git_revision"} <= set(code)
    process = claim["process"]
    assert isinstance(process, dict)
    assert (process["name"], process["version"]) == ("worker", VERSION)
    assert process["host"]


async def test_a_refusal_names_its_target_and_keeps_no_plain_digest(api: Api, server: RunningServer) -> None:
    thread_id = await api.thread()
    status, _ = await api.raw("POST", f"/threads/{thread_id}/runs/{UNKNOWN}/cancel?action=interrupt", b"{}")
    assert status == 404
    commit, refused = with_fact(await commits(server, thread_id), "CommandRefused")
    assert refused["target"] == {"thread_id": thread_id, "run_id": UNKNOWN}
    digest = refused["body_digest"]
    assert isinstance(digest, dict)
    assert len(str(digest["digest"])) == 64
    assert digest["salt_id"]
    plain = hashlib.sha256(b"action=interrupt\n{}").hexdigest()
    assert plain not in str(commit)


async def test_a_state_update_is_told_as_it_was_asked(api: Api, server: RunningServer) -> None:
    thread_id = await api.thread()
    await api.call("POST", f"/threads/{thread_id}/runs/wait", {"assistant_id": "trivial", "input": {}})
    state = await api.get(f"/threads/{thread_id}/state")
    checkpoint = as_object(state["checkpoint"])["checkpoint_id"]
    update: JsonObject = {"values": VALUES, "checkpoint_id": checkpoint, "as_node": "echo"}
    await api.call("POST", f"/threads/{thread_id}/state", update)
    _, updated = with_fact(await commits(server, thread_id), "StateUpdated")
    assert updated["command"] == {**update, "checkpoint": None}


async def test_a_resume_names_the_interrupt_that_it_answers_and_what_its_client_had_seen(
    api: Api, server: RunningServer
) -> None:
    thread_id = await api.thread()
    path = f"/threads/{thread_id}/runs/wait"
    await api.call("POST", path, {"assistant_id": "agent", "input": PAY})
    state = await api.get(f"/threads/{thread_id}/state")
    tasks, found = state["tasks"], await commits(server, thread_id)
    assert isinstance(tasks, list)
    task = as_object(tasks[0])
    interrupts = task["interrupts"]
    assert isinstance(interrupts, list)
    [token] = [f"1:{record.partition}:{record.offset}" for record in await last_of(server, thread_id)]
    answer: JsonObject = {"assistant_id": "agent", "command": APPROVE}
    await api.call("POST", path, answer, {"X-Consistency-Token": token})
    _, created = with_fact(await commits(server, thread_id), "RunCreated")
    open_one: Json = {
        "interrupt_id": as_object(interrupts[0])["id"],
        "task_id": task["id"],
        "checkpoint_id": as_object(state["checkpoint"])["checkpoint_id"],
    }
    assert (created["resumes"], created["consistency_token"]) == ([open_one], token)
    writes = [data["writes"] for commit in found for kind, data in facts_of(commit) if kind == "WritesSaved"]
    asked = [write for one in writes if isinstance(one, list) for write in one if "__interrupt__" in str(write)]
    assert "base64" not in str(asked)
    assert str(as_object(interrupts[0])["id"]) in str(asked)


async def last_of(server: RunningServer, key: str) -> list[Record]:
    """Return the newest record of an aggregate."""
    return [record for record in await read_topic(server.kafka, "agentlog.events") if record.key == key][-1:]
