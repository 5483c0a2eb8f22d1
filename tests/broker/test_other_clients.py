"""Clients other than aiokafka: librdkafka (confluent-kafka) and Faust."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.broker.servers import make_topic, read_all, unique

confluent: Any = import_module("confluent_kafka")
confluent_admin: Any = import_module("confluent_kafka.admin")


def _run_through(kafka: str, topic: str, group: str) -> list[bytes]:
    admin = confluent_admin.AdminClient({"bootstrap.servers": kafka})
    for made in admin.create_topics([confluent_admin.NewTopic(topic, 3, 1)]).values():
        made.result(10)
    failures: list[object] = []

    def note(failure: object, _: object) -> None:
        if failure is not None:
            failures.append(failure)

    producer = confluent.Producer({"bootstrap.servers": kafka, "enable.idempotence": True, "acks": "all"})
    for number in range(200):
        producer.produce(topic, b"%d" % number, key=b"%d" % (number % 7), on_delivery=note)
    assert producer.flush(10) == 0
    assert failures == []
    consumer = confluent.Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    found: list[bytes] = []
    end = time.monotonic() + 15
    while len(found) < 200 and time.monotonic() < end:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            found.append(message.value())
    consumer.commit(asynchronous=False)
    places = consumer.committed([confluent.TopicPartition(topic, number) for number in range(3)])
    assert sum(place.offset for place in places if place.offset > 0) == 200
    consumer.close()
    return found


async def test_librdkafka_creates_writes_reads_and_commits(kafka: str) -> None:
    topic, group = unique("t"), unique("g")
    found = await asyncio.to_thread(_run_through, kafka, topic, group)
    assert sorted(found) == sorted(b"%d" % number for number in range(200))


async def test_librdkafka_changes_single_settings(kafka: str) -> None:
    topic = await make_topic(kafka, retention_bytes="1000000")

    def change() -> dict[str, str]:
        admin = confluent_admin.AdminClient({"bootstrap.servers": kafka})
        kind = confluent_admin.ResourceType.TOPIC
        entry = confluent_admin.ConfigEntry(
            "retention.ms", "1000000", incremental_operation=confluent_admin.AlterConfigOpType.SET
        )
        resource = confluent_admin.ConfigResource(kind, topic, incremental_configs=[entry])
        for changed in admin.incremental_alter_configs([resource]).values():
            changed.result(10)
        (described,) = admin.describe_configs([confluent_admin.ConfigResource(kind, topic)]).values()
        return {name: entry.value for name, entry in described.result(10).items()}

    found = await asyncio.to_thread(change)
    assert (found["retention.ms"], found["retention.bytes"]) == ("1000000", "1000000")


_FAUST = """
import asyncio, sys, faust
app = faust.App(sys.argv[2], broker="kafka://" + sys.argv[1], web_enabled=False, topic_disable_leader=True)
topic = app.topic(sys.argv[2], partitions=4, internal=True, value_type=bytes, value_serializer="raw")
seen = asyncio.Queue()

@app.agent(topic)
async def agent(stream):
    async for value in stream:
        await seen.put(value)

async def main():
    await app.start()
    for number in range(100):
        await topic.send(key=b"%d" % number, value=b"%d" % number)
    found = [await asyncio.wait_for(seen.get(), 20) for _ in range(100)]
    print(len(set(found)))
    await app.stop()

asyncio.run(main())
"""


async def test_a_faust_agent_sees_every_event(kafka: str, tmp_path: Path) -> None:
    name = await make_topic(kafka, "app", partitions=4)
    app = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _FAUST, kafka, name),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,  # Faust makes a folder for its tables where it is started
    )
    output, errors = await asyncio.wait_for(app.communicate(), 40)
    assert (app.returncode, output.decode().strip()) == (0, "100"), errors.decode()


_FAUST_TABLE = """
import asyncio, sys, faust
_, broker, name, sends = sys.argv
app = faust.App(name, broker="kafka://" + broker, web_enabled=False, topic_disable_leader=True, topic_partitions=4,
                broker_session_timeout=3, broker_heartbeat_interval=1)
topic = app.topic(name, partitions=4, internal=True, value_type=bytes, value_serializer="raw")
last = app.Table("last", default=str, partitions=4)

@last.on_recover
async def recovered():
    print(len(last), flush=True)

@app.agent(topic, concurrency=1)
async def agent(stream):
    async for key, value in stream.items():
        last[key.decode()] = value.decode()

async def main():
    await app.start()
    for number in range(int(sends)):
        await topic.send(key=b"%d" % (number % 10), value=b"%d" % number)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_faust_table_comes_back_from_its_changelog_after_a_kill(kafka: str, tmp_path: Path) -> None:
    name = await make_topic(kafka, "table", partitions=4)
    async with faust_table(kafka, name, 40, tmp_path / "first") as recovered:
        assert await recovered() == 0
        changelog = f"{name}-last-changelog"
        async with asyncio.timeout(40):
            while len({record.key for record in await read_all(kafka, changelog, 4)}) < 10:
                pass  # each look takes a while
    async with faust_table(kafka, name, 0, tmp_path / "second") as recovered:  # a folder of its own: no local copy
        assert await recovered() == 10


@asynccontextmanager
async def faust_table(kafka: str, name: str, sends: int, folder: Path) -> AsyncGenerator[Callable[[], Awaitable[int]]]:
    """Run the application, yield a function that returns the number of keys in its recovered table, then kill it."""
    await asyncio.to_thread(folder.mkdir)
    error_file = folder / "stderr"
    with error_file.open("wb") as errors:
        app = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _FAUST_TABLE, kafka, name, str(sends)),
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
        )

    async def recovered() -> int:
        assert app.stdout is not None
        try:
            return int(await asyncio.wait_for(app.stdout.readline(), 40))
        except (TimeoutError, ValueError) as error:
            raise AssertionError(error_file.read_text()[-3000:]) from error

    try:
        yield recovered
    finally:
        app.kill()
        await app.wait()
