"""System tests of a log from a newer release: unknown facts are not folded, reported, and folded after the upgrade."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from tests.system.api import Api
from tests.system.checker.judgement import judged_well
from tests.system.checker.records import client_options
from tests.system.rebuilds import rebuilt
from tests.system.servers import RunningServer, running_server

from agentlog_facts.json_value import JsonObject, as_object, dump, load, load_object
from agentlog_infra.kafka.partitions import partition_of
from agentlog_infra.process.child import child_environment

EVENTS = "agentlog.events"
PARTITIONS = 8
NEWER = 99
NEWER_RELEASE = f"""
from agentlog_facts import vocabulary

vocabulary.SCHEMAS["ThreadMetadataPatched"] = {NEWER}
vocabulary.UPCASTERS.update({{("ThreadMetadataPatched", number): dict for number in range(1, {NEWER})}})
"""
"""The additional schemas of the next release, imported before every other module of a process."""
SOON_S = 30.0


async def last_record(kafka: str, key: str) -> "ConsumerRecord[bytes, bytes]":
    """Return the newest record of an aggregate."""
    consumer = AIOKafkaConsumer(**client_options(kafka), enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(EVENTS, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[ConsumerRecord[bytes, bytes]] = []
        while any([await consumer.position(at) < ends[at] for at in partitions]):
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                found += [record for record in records if record.key == key.encode()]
        return max(found, key=lambda record: record.offset)
    finally:
        await consumer.stop()


async def write_as_a_newer_release(kafka: str, thread_id: str, metadata: JsonObject) -> tuple[int, int]:
    """Patch a thread by a record whose fact has a future schema; return its position."""
    patched = await last_record(kafka, thread_id)
    record = load_object(patched.value or b"")
    record["event_id"], record["append_id"] = str(uuid4()), str(uuid4())
    facts = record["facts"]
    assert isinstance(facts, list)
    [fact] = [as_object(one) for one in facts]
    assert fact["type"] == "ThreadMetadataPatched"
    data = as_object(fact["data"])
    record["facts"] = [{**fact, "schema": NEWER, "data": {**data, "metadata": metadata}}]
    producer = AIOKafkaProducer(**client_options(kafka))
    await producer.start()
    try:
        sent = await producer.send_and_wait(EVENTS, dump(record), patched.key, patched.partition)
    finally:
        await producer.stop()
    return sent.partition, sent.offset


def id_on(partition: int) -> str:
    """Return an id of a new thread on this partition."""
    while True:
        thread_id = str(uuid4())
        if partition_of(thread_id.encode(), PARTITIONS) == partition:
            return thread_id


def agentlog(server: RunningServer, *words: str) -> tuple[int, str]:
    """Run a command against the server; return exit status and output."""
    done = subprocess.run(
        [sys.executable, "-m", "agentlog_infra.cli.main", *words, "--data-dir", str(server.folder / "data")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=child_environment({"PATH": "/usr/bin:/bin"}),
    )
    return done.returncode, done.stdout + done.stderr


async def ready(server: RunningServer) -> tuple[int, JsonObject]:
    status, content = await Api(server.url).raw("GET", "/ready")
    return status, as_object(load(content))


async def until_ready(server: RunningServer, holds: Callable[[JsonObject], bool]) -> JsonObject:
    """Poll /ready until it has this status."""
    async with asyncio.timeout(SOON_S):
        while not holds(found := (await ready(server))[1]):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    return found


def stopped(found: JsonObject) -> JsonObject:
    """Return the stopped partitions in an answer of /ready; none if it has none."""
    return as_object(as_object(found["partitions"])["stopped"]) if found["partitions"] else {}


async def position(server: RunningServer, partition: int) -> int:
    connection = await asyncpg.connect(server.postgres)
    try:
        found: int = await connection.fetchval(
            "SELECT next_offset FROM ledger.positions WHERE partition = $1", partition
        )
        return found
    finally:
        await connection.close()


async def until_folded(server: RunningServer, partition: int, offset: int) -> None:
    async with asyncio.timeout(SOON_S):
        while await position(server, partition) < offset:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


def newer_release(folder: Path) -> dict[str, str]:
    """Return the environment in which every process of a server is of the newer release."""
    (folder / "newer").mkdir()
    (folder / "newer" / "sitecustomize.py").write_text(NEWER_RELEASE)
    return {"PYTHONPATH": str(folder / "newer")}


@pytest.mark.timeout(240)
async def test_an_unknown_schema_stops_its_partition_says_so_and_goes_on_after_the_upgrade() -> None:
    with running_server() as server:
        api = Api(server.url)
        theirs = await api.thread()
        await api.call("PATCH", f"/threads/{theirs}", {"metadata": {"written": "by this release"}})
        partition, offset = await write_as_a_newer_release(server.kafka, theirs, {"written": "by the next"})
        found = await until_ready(server, lambda found: bool(stopped(found)))
        why = str(stopped(found)[str(partition)])
        assert "ThreadMetadataPatched schema 99" in why
        assert (found["ready"], list(stopped(found))) == (True, [str(partition)])
        assert "projector.partition_stopped" in server.log()
        status, _ = await api.raw("PATCH", f"/threads/{theirs}", b'{"metadata":{"more":1}}')
        assert status == 503
        status, _ = await api.raw("POST", "/threads", dump({"thread_id": id_on(partition)}))
        assert status == 503
        await another_partition_goes_on(server, partition)
        status, said = agentlog(server, "projection", "list")
        assert (status, said.splitlines()) == (
            3,
            [
                f"partition {partition} is stopped: {why}",
                "1 records behind the log",
                "`agentlog projection stuck` names the records; `agentlog projection park PARTITION` passes over one",
            ],
        )
        status, said = agentlog(server, "projection", "list", "--json")
        listed = dict(as_object(load(said.encode())))
        positions = as_object(listed.pop("positions"))
        assert (len(positions), positions[str(partition)]) == (PARTITIONS, offset)
        assert listed == {
            "present": PARTITIONS - 1,
            "building": [],
            "stopped": {str(partition): why},
            "stalled": {},
            "behind": {str(partition): 1},
            "parked": {},
            "quarantine": [],
        }
        status, said = agentlog(server, "doctor", "--json")
        assert (status, why in said) == (1, True)
        status, said, told = await rebuilt(server)  # it stops where the live rows do, and folds nothing wrong
        assert (status, "the same: " in said) == (0, True), said + told
        found = await until_ready(server, lambda found: bool(stopped(found)))
        assert await position(server, partition) == offset

        assert await asyncio.to_thread(server.stop) == 0
        server.environment = newer_release(server.folder)
        await asyncio.to_thread(server.start)
        await until_folded(server, partition, offset + 1)
        assert stopped((await ready(server))[1]) == {}
        thread = await api.get(f"/threads/{theirs}")
        assert as_object(thread["metadata"])["written"] == "by the next"
        await api.call("PATCH", f"/threads/{theirs}", {"metadata": {"more": 1}})
        assert await position(server, partition) >= offset + 2
        await judged_well(server.kafka, server.postgres)


async def another_partition_goes_on(server: RunningServer, partition: int) -> None:
    """Check that a run of a thread on another partition succeeds."""
    api = Api(server.url)
    async with asyncio.timeout(SOON_S):
        while True:
            status, content = await api.raw("POST", "/threads", b"{}")
            if status == 200:
                break
    thread_id = str(as_object(load(content))["thread_id"])
    assert partition_of(thread_id.encode(), PARTITIONS) != partition
    done = await api.call("POST", f"/threads/{thread_id}/runs/wait", {"assistant_id": "steps", "input": {}})
    assert as_object(done)["done"] == ["one", "two", "three", "four", "five"]


POISON = "ALTER TABLE read_v1.threads ADD CONSTRAINT poison CHECK ((metadata->>'poison') IS NULL)"
CURE = "ALTER TABLE read_v1.threads DROP CONSTRAINT poison"


async def execute(server: RunningServer, sql: str) -> None:
    connection = await asyncpg.connect(server.postgres)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@pytest.mark.timeout(240)
async def test_what_a_read_model_cannot_hold_is_parked_said_and_folded_when_tried_again(server: RunningServer) -> None:
    api = Api(server.url)
    thread_id, other = await api.thread(), await api.thread()
    await execute(server, POISON)
    try:
        await api.call("PATCH", f"/threads/{thread_id}", {"metadata": {"poison": 1}})
        found = await until_ready(server, lambda found: bool(found["quarantined"]))
        assert (found["ready"], found["quarantined"]) == (True, {"threads": 1})
        status, content = await api.raw("PATCH", f"/threads/{thread_id}", b'{"metadata":{"more":1}}')
        assert (status, b"in quarantine" in content) == (503, True)
        await api.call("PATCH", f"/threads/{other}", {"metadata": {"more": 1}})
        status, said = await asyncio.to_thread(agentlog, server, "projection", "list", "--json")
        [parked] = json.loads(said)["quarantine"]
        assert (status, parked["key"], "poison" in parked["error"]) == (3, thread_id, True)
        status, said = await asyncio.to_thread(agentlog, server, "projection", "retry", "--model", "threads")
        assert (status, "failed again: CheckViolationError" in said) == (3, True), said
    finally:
        await execute(server, CURE)
    status, said = await asyncio.to_thread(agentlog, server, "projection", "retry", "--key", thread_id)
    assert (status, said) == (0, f"threads {thread_id}: applied 1 commits\n")
    assert as_object((await api.get(f"/threads/{thread_id}"))["metadata"])["poison"] == 1
    async with asyncio.timeout(SOON_S):
        patch = b'{"metadata":{"more":1}}'
        while (await api.raw("PATCH", f"/threads/{thread_id}", patch))[0] != 200:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    assert (await ready(server))[1]["quarantined"] == {}
    status, _ = await asyncio.to_thread(agentlog, server, "projection", "retry", "--key", thread_id)
    assert status == 5
