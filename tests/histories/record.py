"""Recorder of this release's history: `python -m tests.histories.record`; it refuses to overwrite an existing one.

A whole server runs a story that leaves every fact type on the log, by its API where it can; the log, rows and answers
are written down. Values over 8 KiB go to blobs here, so that a small history has both kinds.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from tests.histories.files import HERE, Stored, sums, write_records
from tests.histories.rows import rows
from tests.system.api import Api
from tests.system.checker.records import client_options
from tests.system.servers import RunningServer, running_server

from agentlog_commands.system import KAFKA, KAFKA_KEY
from agentlog_facts.assistant import AssistantRevised
from agentlog_facts.checkpoint import CheckpointsHidden
from agentlog_facts.cron import CronSlotsSkipped
from agentlog_facts.envelope import Actor, Cause, Draft, Fact
from agentlog_facts.ids import AssistantId, CronId, Key, RunId, Stream, ThreadId
from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load
from agentlog_facts.store import StoreItemDeleted, StoreItemPut, store_key
from agentlog_facts.system import KafkaSettingsAccepted
from agentlog_facts.thread import RunAlive
from agentlog_facts.thread_copy import ThreadCopyAsked, ThreadCopyGivenUp
from agentlog_facts.version import VERSION
from agentlog_facts.vocabulary import SCHEMAS, encode_commit, encode_facts, parse_commit
from agentlog_infra.kafka.partitions import partition_of
from agentlog_infra.system_ports import SystemClock, SystemIds

CONFIG = HERE / "graphs" / "langgraph.json"
PARTITIONS = 8
SMALL_RECORDS = "from agentlog_infra.kafka import event_log\n\nevent_log.RECORD_BYTES = 8 * 1024\n"
PATIENCE_S = 60.0
ATTEMPT = "SELECT attempt FROM read_v1.runs WHERE run_id = $1"
OPEN_FIRINGS = "SELECT count(*) FROM read_v1.crons WHERE firing IS NOT NULL"
FOLDED = "SELECT count(*) FROM ledger.log_index"


@dataclass
class Story:
    """The server, and the threads in the order of their chapters."""

    server: RunningServer
    threads: list[str]

    @property
    def api(self) -> Api:
        """Send a request to the server."""
        return Api(self.server.url)

    async def thread(self, metadata: JsonObject) -> str:
        """Create a thread whose answers will be recorded."""
        made = as_object(await self.api.call("POST", "/threads", {"metadata": metadata}))
        self.threads.append(str(made["thread_id"]))
        return self.threads[-1]

    async def run(self, thread_id: str, data: JsonObject | None, **more: Json) -> Json:
        """Execute a run to its end and return its values."""
        body: JsonObject = {"assistant_id": "story", "input": data, **more}
        return await self.api.call("POST", f"/threads/{thread_id}/runs/wait", body)

    async def held(self, thread_id: str, gate: str) -> str:
        """Start a run and return its id once it waits at its gate."""
        run_id = await self.api.start_run(thread_id, "story", {"hold": gate})
        async with asyncio.timeout(PATIENCE_S):
            while not await self._stands_at_gate(thread_id):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        return run_id

    async def _stands_at_gate(self, thread_id: str) -> bool:
        state = await self.api.get(f"/threads/{thread_id}/state")
        return state["next"] == ["gate"]

    def open(self, gate: str) -> None:
        """Open the run's gate."""
        (self.server.gates / gate).touch()

    async def write(self, key: str, stream: str, *facts: Fact, epoch: int | None = None) -> None:
        """Append a commit as the code would, for facts that the API of this release does not write."""
        ids = SystemIds()
        draft = Draft(
            key=Key(key),
            stream=Stream(stream),
            event_id=ids.uuid7(),
            append_id=ids.uuid7(),
            body_sha256="0" * 64,
            facts=facts,
            occurred_at=SystemClock().now(),
            cause=Cause(Actor("system", "recorder"), correlation_id=ids.uuid7()),
            demands={},
            epoch=epoch,
        )
        await self.append(key.encode(), encode_commit(draft, encode_facts(draft)))

    async def append(self, key: bytes, value: bytes, partition: int | None = None) -> None:
        """Append bytes."""
        producer = AIOKafkaProducer(**client_options(self.server.kafka))
        await producer.start()
        try:
            number = partition_of(key, PARTITIONS) if partition is None else partition
            await producer.send_and_wait("agentlog.events", value, key, number)
        finally:
            await producer.stop()


async def values_and_states(story: Story) -> None:
    thread_id = await story.thread({"chapter": "values"})
    await story.api.call("PATCH", f"/threads/{thread_id}", {"metadata": {"patched": True, "none": None}})
    await story.run(thread_id, {"word": "small"})
    values: JsonObject = {"values": {"items": ["by hand"]}, "as_node": "first"}
    await story.api.call("POST", f"/threads/{thread_id}/state", values)
    await story.run(thread_id, {"size": 9_000})


async def asked_and_told(story: Story) -> None:
    thread_id = await story.thread({"chapter": "interrupt"})
    await story.run(thread_id, {"ask": True})
    await story.run(thread_id, None, command={"resume": "yes"})
    waiting = await story.thread({"chapter": "open question"})
    await story.run(waiting, {"ask": True})


async def rolled_back(story: Story) -> None:
    thread_id = await story.thread({"chapter": "rollback"})
    await story.run(thread_id, {"word": "before"})
    run_id = await story.held(thread_id, "never")
    await story.api.call("POST", f"/threads/{thread_id}/runs/{run_id}/cancel?action=rollback&wait=true")


async def interrupted_and_deleted(story: Story) -> None:
    thread_id = await story.thread({"chapter": "cancel"})
    run_id = await story.held(thread_id, "never")
    await story.api.call("POST", f"/threads/{thread_id}/runs/{run_id}/cancel?action=interrupt&wait=true")
    await story.run(thread_id, {"word": "again", "hold": ""})  # the state still has the gate
    await story.api.call("DELETE", f"/threads/{thread_id}/runs/{run_id}")


async def worker_killed(story: Story) -> None:
    thread_id = await story.thread({"chapter": "killed"})
    run_id = await story.held(thread_id, "opened")
    epoch = await value(story, "SELECT epoch FROM read_v1.runs WHERE run_id = $1", run_id)
    await story.write(thread_id, f"thread-{thread_id}", RunAlive(RunId(run_id)), epoch=epoch)
    story.server.kill_role("worker")
    async with asyncio.timeout(PATIENCE_S):
        while await value(story, ATTEMPT, run_id) < 2:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    await story.write(thread_id, f"thread-{thread_id}", RunAlive(RunId(run_id)), epoch=epoch)  # void: stale epoch
    story.open("opened")
    await story.api.join(thread_id, run_id)


async def deleted(story: Story) -> None:
    thread_id = await story.thread({"chapter": "deleted"})
    await story.run(thread_id, {})
    await story.api.call("DELETE", f"/threads/{thread_id}")
    status, _ = await story.api.raw("PATCH", f"/threads/{thread_id}", b'{"metadata":{"too":"late"}}')
    assert status == 404
    await story.api.call("POST", "/runs/wait", {"assistant_id": "story", "input": {"word": "stateless"}})


async def by_hand(story: Story) -> None:
    thread_id = await story.thread({"chapter": "by hand"})
    await story.run(thread_id, {})
    history = await story.api.call("GET", f"/threads/{thread_id}/history?limit=100")
    assert isinstance(history, list)
    oldest = as_object(as_object(history[-1])["checkpoint"])["checkpoint_id"]
    hidden: JsonObject = {"ns": "", "checkpoint_id": oldest}
    await story.write(thread_id, f"thread-{thread_id}", CheckpointsHidden(ThreadId(thread_id), (hidden,), "prune"))
    [assistant] = [as_object(one) for one in as_list(await story.api.call("POST", "/assistants/search", {}))]
    assistant_id = AssistantId(str(assistant["assistant_id"]))
    revised = AssistantRevised(assistant_id, 2, "story", {}, {}, {"created_by": "system"}, "story", "told again")
    await story.write(assistant_id, f"assistant-{assistant_id}", revised)
    hidden_settings = ("agentlog.events unclean.leader.election.enable=false",)
    await story.write(KAFKA_KEY, KAFKA, KafkaSettingsAccepted(hidden_settings, "gateway-1"))


async def remembered(story: Story) -> None:
    """Put items, small and as a blob, and delete them, as runs do; then two in one commit, as clients will."""
    thread_id = await story.thread({"chapter": "remembered"})
    await story.run(thread_id, {"remember": "ana", "size": 9_000})
    await story.run(thread_id, {"remember": "ana", "word": "again"})
    space = ("users", "bob")
    key = store_key(space)
    await story.write(
        key, f"store-{key}", StoreItemPut(space, "tea", {"kind": "black"}), StoreItemPut(space, "mug", {})
    )
    await story.write(key, f"store-{key}", StoreItemDeleted(space, "mug"), StoreItemDeleted(space, "spoon"))


async def assistants(story: Story) -> None:
    """Create, patch and select a version of an assistant; delete one with its thread, and one while its run waits."""
    made: JsonObject = {"graph_id": "story", "context": {"word": "own"}, "metadata": {"chapter": "assistants"}}
    kept = as_object(await story.api.call("POST", "/assistants", made))
    at = f"/assistants/{kept['assistant_id']}"
    await story.api.call("PATCH", at, {"name": "second", "metadata": {"long": "x" * 9_000}})
    await story.api.call("POST", f"{at}/latest", {"version": 1})
    gone = as_object(await story.api.call("POST", "/assistants", made))
    thread_id = await story.thread({"chapter": "assistants"})
    await story.run(thread_id, {"word": "kept"})
    lost = as_object(await story.api.call("POST", "/threads", {}))
    run: JsonObject = {"assistant_id": gone["assistant_id"], "input": {"word": "lost"}}
    await story.api.call("POST", f"/threads/{lost['thread_id']}/runs/wait", run)
    later: JsonObject = {**run, "after_seconds": 3600}
    await story.api.call("POST", f"/threads/{thread_id}/runs", later)
    await story.api.call("DELETE", f"/assistants/{gone['assistant_id']}?delete_threads=true")


async def short_lived(story: Story) -> None:
    """Create a thread with a time to live, prune it, and change its time."""
    lives: JsonObject = {"ttl": 6000, "strategy": "keep_latest"}
    made = as_object(await story.api.call("POST", "/threads", {"ttl": lives, "metadata": {"chapter": "short lived"}}))
    thread_id = str(made["thread_id"])
    story.threads.append(thread_id)
    await story.run(thread_id, {"word": "pruned"})
    await story.run(thread_id, {"word": "kept"})
    await story.api.call("POST", "/threads/prune", {"thread_ids": [thread_id], "strategy": "keep_latest"})
    await story.api.call("PATCH", f"/threads/{thread_id}", {"ttl": {"ttl": 9000, "strategy": "delete"}})


async def copied(story: Story) -> None:
    """Copy a thread, go on with the copy, and leave another copy that was given up."""
    source = await story.thread({"graph_id": "story", "chapter": "copied"})
    update: JsonObject = {"values": {"word": "copied"}, "as_node": "__start__"}
    await story.api.call("POST", f"/threads/{source}/state", update)
    made = as_object(await story.api.call("POST", f"/threads/{source}/copy"))
    thread_id = str(made["thread_id"])
    story.threads.append(thread_id)
    await story.run(thread_id, {"word": "copied"})
    late, at = ThreadId(str(uuid4())), SystemClock().now()
    asked = ThreadCopyAsked(late, ThreadId(source), at, {"thread": 0, "meta": None}, 1, {}, None, {}, (), {})
    await story.write(late, f"copy-{late}", asked)
    await story.write(late, f"copy-{late}", ThreadCopyGivenUp(late, "late"))


async def not_counted(story: Story) -> None:
    """Append records without effect: a repeat, a violated demand, bytes, a record on the wrong partition."""
    key = story.threads[0].encode()
    records = [one for one in await topic(story.server.kafka, "agentlog.events") if one.key == key]
    created = records[0].value or b""
    await story.append(key, created)
    again = parse_commit(created)
    again["event_id"], again["append_id"] = str(uuid4()), str(uuid4())
    await story.append(key, dump(again))
    await story.append(key, b"\xff not a commit")
    await story.append(key, b"{}")
    again["event_id"], again["append_id"] = str(uuid4()), str(uuid4())
    await story.append(key, dump(again), (partition_of(key, PARTITIONS) + 1) % PARTITIONS)


async def crons(story: Story) -> None:
    """Let a cron fire and delete it; change another one that stays, and skip slots of it."""
    mark: JsonObject = {"chapter": "crons"}
    often: JsonObject = {
        "assistant_id": "story",
        "schedule": "* * * * * *",
        "input": {"word": "often"},
        "metadata": mark,
        "on_run_completed": "keep",
    }
    made = as_object(await story.api.call("POST", "/runs/crons", often))
    async with asyncio.timeout(PATIENCE_S):
        while await story.api.call("POST", "/threads/count", {"metadata": mark}) == 0:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
        await story.api.call("PATCH", f"/runs/crons/{made['cron_id']}", {"enabled": False})
        while await value(story, OPEN_FIRINGS):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
        busy: JsonObject = {"metadata": mark, "status": "busy"}
        while await story.api.call("POST", "/threads/count", busy) != 0:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    await story.api.call("DELETE", f"/runs/crons/{made['cron_id']}")
    daily: JsonObject = {**often, "schedule": "@daily", "enabled": False}
    cron_id = CronId(str(as_object(await story.api.call("POST", "/runs/crons", daily))["cron_id"]))
    await story.api.call("PATCH", f"/runs/crons/{cron_id}", {"timezone": "Europe/Paris"})
    now = SystemClock().now()
    skipped = CronSlotsSkipped(cron_id, now, now + timedelta(days=2), now + timedelta(days=2))
    await story.write(cron_id, f"cron-{cron_id}", skipped)


CHAPTERS: tuple[Callable[[Story], Awaitable[None]], ...] = (
    values_and_states,
    asked_and_told,
    rolled_back,
    interrupted_and_deleted,
    worker_killed,
    deleted,
    by_hand,
    remembered,
    assistants,
    short_lived,
    copied,
    crons,
    not_counted,
)


def as_list(found: Json) -> list[Json]:
    assert isinstance(found, list)
    return found


async def value(story: Story, sql: str, *arguments: object) -> int:
    connection = await asyncpg.connect(story.server.postgres)
    try:
        found: int = await connection.fetchval(sql, *arguments)
        return found
    finally:
        await connection.close()


async def topic(kafka: str, name: str) -> list[Stored]:
    """Return all records of a topic, by partition."""
    consumer = AIOKafkaConsumer(**client_options(kafka), enable_auto_commit=False)
    try:
        await consumer.start()
        found: list[Stored] = []
        for at in [TopicPartition(name, number) for number in range(PARTITIONS)]:
            consumer.assign([at])
            await consumer.seek_to_beginning(at)
            end = (await consumer.end_offsets([at]))[at]
            while await consumer.position(at) < end:
                for raw in (await consumer.getmany(at, timeout_ms=1000)).get(at, []):
                    headers = tuple((name, data or b"") for name, data in raw.headers)
                    found.append(Stored(at.partition, raw.offset, raw.timestamp, raw.key, raw.value, headers))
        return found
    finally:
        await consumer.stop()


async def folded(story: Story, events: list[Stored]) -> None:
    """Wait until every record is folded into the rows."""
    async with asyncio.timeout(PATIENCE_S):
        while await value(story, FOLDED) < len(events):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


def questions(threads: list[str], runs: list[tuple[str, str]]) -> list[tuple[str, str, JsonObject | None]]:
    """Return the requests whose answers are recorded."""
    asked: list[tuple[str, str, JsonObject | None]] = []
    for thread in threads:
        at = f"/threads/{thread}"
        asked += [("GET", at, None), ("GET", f"{at}/state", None), ("GET", f"{at}/state?subgraphs=true", None)]
        asked += [("GET", f"{at}/history?limit=100", None), ("GET", f"{at}/runs?limit=100", None)]
    asked += [("GET", f"/threads/{thread}/runs/{run}", None) for thread, run in runs]
    for status in ("idle", "interrupted", "error"):
        asked.append(("POST", "/threads/search", {"status": status, "limit": 100, "sort_by": "thread_id"}))
    asked.append(("POST", "/threads/search", {"metadata": {"patched": True}}))
    asked.append(("POST", "/runs/crons/search", {"sort_by": "cron_id"}))
    return [*asked, ("POST", "/assistants/search", {"sort_by": "assistant_id"}), ("POST", "/assistants/count", {})]


async def answers(api: Api, asked: list[tuple[str, str, JsonObject | None]]) -> list[JsonObject]:
    """Send the requests and return the answers."""
    found: list[JsonObject] = []
    for method, path, body in asked:
        status, content = await api.raw(method, path, None if body is None else dump(body))
        found.append({"method": method, "path": path, "body": body, "status": status, "answer": load(content)})
    return found


def schemas_of(events: list[Stored], blobs: bool) -> set[tuple[str, Json]]:
    """Return type and schema of the facts on a log, of all records or only of those with blobs."""
    found: set[tuple[str, Json]] = set()
    for one in events:
        if one.value and one.value.startswith(b'{"spec"') and (b'"blobs":[{' in one.value or not blobs):
            facts = [as_object(fact) for fact in as_list(parse_commit(one.value)["facts"])]
            found |= {(str(fact["type"]), fact["schema"]) for fact in facts}
    return found


async def record(folder: Path) -> None:
    """Run the story and record it. Raises: AssertionError when a fact type or schema is missing."""
    with small_records() as environment, running_server(environment, CONFIG) as server:
        story = Story(server, [])
        for chapter in CHAPTERS:
            await chapter(story)
        events = await topic(server.kafka, "agentlog.events")
        await folded(story, events)
        missing = set(SCHEMAS.items()) - schemas_of(events, blobs=False)
        assert not missing, f"the story has no {missing}"
        assert schemas_of(events, blobs=True), "the story has no blob"
        table = await rows(server.postgres)
        runs = [(row["thread_id"], row["run_id"]) for row in map(json.loads, table["runs"]) if not row["deleted"]]
        told = await answers(story.api, questions(story.threads, sorted(runs)))
        blobs = await topic(server.kafka, "agentlog.blobs")
    write_down(folder, events, blobs, table, told)


def write_down(
    folder: Path, events: list[Stored], blobs: list[Stored], table: dict[str, list[str]], told: list[JsonObject]
) -> None:
    """Write the four files."""
    folder.mkdir()
    write_records(folder / "events.jsonl", events)
    write_records(folder / "blobs.jsonl", blobs)
    lines = [json.dumps({"table": name, "row": json.loads(row)}) for name, of in table.items() for row in of]
    (folder / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (folder / "answers.jsonl").write_text("".join(f"{dump(one).decode()}\n" for one in told))
    (folder / "SHA256SUMS").write_text(sums(folder))
    print(f"{folder}: {len(events)} records, {len(lines)} rows, {len(told)} answers")


@contextmanager
def small_records() -> Generator[dict[str, str]]:
    """Return the environment of a server that moves small values to blobs."""
    with TemporaryDirectory() as place:
        (Path(place) / "sitecustomize.py").write_text(SMALL_RECORDS)
        yield {"PYTHONPATH": place}


def main() -> None:
    """Record this release."""
    folder = HERE / VERSION
    if folder.exists():
        sys.exit(f"{folder} is there: a history is never changed; the next release gets a folder of its own")
    asyncio.run(record(folder))


if __name__ == "__main__":
    main()
