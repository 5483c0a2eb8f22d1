"""System tests of bad input: status and detail of the contract, no traceback, and nothing on the log."""

import asyncio

import pytest
from tests.system.api import Api
from tests.system.checker.records import read_topic
from tests.system.servers import RunningServer

from agentlog_facts.json_value import JsonObject, as_object, dump, load

UNKNOWN = "019ab000-0000-7000-8000-000000000001"
DEEP = b'{"metadata":' + b'{"a":' * 5000 + b"1" + b"}" * 5001
MANY = b'{"a":[' + b"0," * 10_000 + b"0]}"
LONG = b'{"a":"' + b"x" * 1024 * 1024 + b'"}'
LARGE = "metadata is too large: at most 1048576 bytes of JSON and 10000 values are allowed"

Case = tuple[str, str, bytes | None, int, str]
CASES: list[Case] = [
    ("POST", "/threads", b"{", 422, "Invalid JSON in request body"),
    ("POST", "/threads", b"", 422, "Invalid JSON in request body"),
    ("POST", "/threads", b'{"metadata":{"a":NaN}}', 422, "Invalid JSON in request body"),
    ("POST", "/threads", b'{"metadata":{"a":"\xff"}}', 422, "Invalid JSON in request body"),
    ("POST", "/threads", DEEP, 422, ""),
    ("POST", "/threads", b"[]", 422, ""),
    ("POST", "/threads", b'{"metadata":null}', 422, ""),
    ("POST", "/threads", b'{"metadata":"x"}', 422, ""),
    ("POST", "/threads", b'{"thread_id":"x"}', 422, ""),
    ("POST", "/threads", b'{"if_exists":"zz"}', 422, ""),
    ("POST", "/threads", b'{"ttl":{"ttl":-1}}', 422, "ttl"),
    ("GET", "/threads/x", None, 422, "Invalid thread ID: must be a UUID"),
    ("GET", f"/threads/{UNKNOWN}", None, 404, f"Thread with ID {UNKNOWN} not found"),
    ("GET", f"/threads/{UNKNOWN}/state", None, 404, f"Thread with ID {UNKNOWN} not found"),
    ("GET", f"/threads/{UNKNOWN}/history", None, 404, f"Thread with ID {UNKNOWN} not found"),
    ("PATCH", f"/threads/{UNKNOWN}", b'{"metadata":{}}', 404, "Not Found"),
    ("DELETE", f"/threads/{UNKNOWN}", None, 404, f"Thread with ID {UNKNOWN} not found"),
    ("GET", f"/assistants/{UNKNOWN}", None, 404, "Not Found"),
    ("POST", f"/threads/{UNKNOWN}/runs", b'{"assistant_id":"agent"}', 404, "Thread or assistant not found."),
    ("POST", "/runs", b'{"assistant_id":"nobody"}', 422, "Invalid assistant"),
    ("POST", "/runs", f'{{"assistant_id":"{UNKNOWN}"}}'.encode(), 404, "Thread or assistant not found."),
    ("POST", "/runs", b"{}", 422, ""),
    ("POST", "/runs", b'{"assistant_id":"agent","stream_mode":"zz"}', 422, ""),
    ("POST", "/runs", b'{"assistant_id":"agent","multitask_strategy":"zz"}', 422, ""),
    ("POST", "/runs", b'{"assistant_id":"agent","after_seconds":"zz"}', 422, ""),
    ("POST", "/runs", b'{"assistant_id":"agent","webhook":"https://example.org"}', 422, "not supported yet"),
    ("POST", "/runs", b'{"assistant_id":"agent","context":{"a":1},"config":{"configurable":{"a":1}}}', 400, ""),
    (
        "POST",
        "/runs",
        b'{"assistant_id":"agent","config":{"configurable":{"checkpoint_id":5}}}',
        422,
        "Invalid checkpoint ID",
    ),
    (
        "POST",
        "/runs",
        b'{"assistant_id":"agent","config":{"configurable":{"checkpoint_map":5}}}',
        422,
        "Invalid checkpoint",
    ),
    ("GET", f"/threads/{UNKNOWN}/runs?limit=0", None, 400, "limit"),
    ("GET", f"/threads/{UNKNOWN}/runs?offset={10**23}", None, 400, "offset"),
    ("GET", f"/threads/{UNKNOWN}/history?limit={10**23}", None, 422, "limit"),
    ("POST", "/threads/search", b'{"offset":99999999999999999999999}', 422, "offset"),
    ("POST", "/assistants/search", b'{"offset":99999999999999999999999}', 422, "offset"),
    ("POST", "/threads", b'{"metadata":' + MANY + b"}", 422, LARGE),
    ("POST", "/threads", b'{"metadata":' + LONG + b"}", 422, LARGE),
    ("POST", "/threads/search", b'{"metadata":' + MANY + b"}", 422, LARGE),
    ("POST", "/threads/search", b'{"values":' + MANY + b"}", 422, "values is too large"),
    ("POST", "/assistants/count", b'{"metadata":' + MANY + b"}", 422, LARGE),
    ("POST", "/assistants/search", b'{"metadata":' + LONG + b"}", 422, LARGE),
    ("POST", "/runs", b'{"assistant_id":"agent","metadata":' + MANY + b"}", 422, LARGE),
    ("POST", "/runs/wait", b'{"assistant_id":"agent","config":{"metadata":' + MANY + b"}}", 422, LARGE),
    ("POST", "/runs/stream", b'{"assistant_id":"agent","metadata":' + LONG + b"}", 422, LARGE),
    ("POST", f"/threads/{UNKNOWN}/history", b'{"metadata":' + MANY + b"}", 422, LARGE),
    ("GET", "/ui/agent/index.js", None, 404, "not implemented by agentlog"),
    ("GET", "/nowhere", None, 404, "Not Found"),
    ("GET", "/threads/search", None, 405, "Method Not Allowed"),
    ("POST", "/mcp", b"{}", 404, "not implemented by agentlog"),
    ("POST", "/runs/crons", b"{}", 422, "Field required"),
    ("POST", "/store/items/search", b"[]", 422, ""),
]


@pytest.mark.parametrize("last", ["state/%00", "history?limit=3&before=%00", "runs?status=%00"])
async def test_a_nul_in_a_url_finds_nothing_and_breaks_nothing(server: RunningServer, last: str) -> None:
    api = Api(server.url)
    thread_id = await api.thread()
    await api.call("POST", f"/threads/{thread_id}/runs/wait", {"assistant_id": "trivial", "input": {}})
    status, content = await api.raw("GET", f"/threads/{thread_id}/{last}")
    assert status == 200, content


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1][:40]} {(case[2] or b'')[:30]!r}")
async def test_bad_input_gets_a_clear_error(
    server: RunningServer, case: tuple[str, str, bytes | None, int, str]
) -> None:
    method, path, body, status, detail = case
    before = len(await read_topic(server.kafka, "agentlog.events"))
    found, content = await Api(server.url).raw(method, path, body, {"Content-Type": "application/json"})
    assert (found, b"Traceback" in content) == (status, False), content
    told = as_object(load(content))["detail"]
    assert isinstance(told, str)
    assert detail in told
    assert len(await read_topic(server.kafka, "agentlog.events")) == before


async def test_patches_cannot_collect_more_metadata_than_one_request_may_bring(server: RunningServer) -> None:
    api = Api(server.url)
    thread_id = await api.thread()

    async def patch(name: str) -> int:
        body = dump({"metadata": {name: "x" * 200_000}})
        return (await api.raw("PATCH", f"/threads/{thread_id}", body))[0]

    found = await asyncio.gather(*(patch(f"k{number}") for number in range(12)))
    kept = as_object((await api.get(f"/threads/{thread_id}"))["metadata"])
    assert (sorted(found), len(kept)) == ([200] * 5 + [422] * 7, 5)
    run: JsonObject = {"assistant_id": "trivial", "input": {}, "metadata": {"own": 1}}
    await api.call("POST", f"/threads/{thread_id}/runs/wait", run)


async def test_a_body_over_the_limit_is_refused_before_it_is_sent(server: RunningServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = b"POST /threads HTTP/1.1\r\nHost: x\r\nContent-Length: 400000000\r\n\r\n"
    writer.write(head)
    async with asyncio.timeout(20):
        answer = await reader.read()  # read to the end of the connection: head and body may arrive separately
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"Request body too large (limit: " in answer


async def test_nul_characters_are_replaced_before_they_are_stored(server: RunningServer) -> None:
    thread = as_object(await Api(server.url).call("POST", "/threads", {"metadata": {"a": "x\x00y"}}))
    assert thread["metadata"] == {"a": "x\ufffdy"}
    assert (await Api(server.url).get(f"/threads/{thread['thread_id']}"))["metadata"] == {"a": "x\ufffdy"}


async def test_json_sent_as_plain_text_is_read(server: RunningServer) -> None:
    status, _ = await Api(server.url).raw(
        "POST", "/assistants/search", b'{"metadata":{"created_by":"system"}}', {"Content-Type": "text/plain"}
    )
    assert status == 200
