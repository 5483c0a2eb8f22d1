"""Clients other than aiokafka: librdkafka (confluent-kafka) and Faust."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.broker.servers import make_topic, unique

confluent: Any = pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed")
confluent_admin: Any = pytest.importorskip("confluent_kafka.admin", reason="confluent-kafka is not installed")


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
topic = app.topic(sys.argv[2] + "-in", partitions=4, internal=True, value_type=bytes, value_serializer="raw")
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
    app = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _FAUST, kafka, unique("app")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,  # Faust makes a folder for its tables where it is started
    )
    output, errors = await asyncio.wait_for(app.communicate(), 40)
    assert (app.returncode, output.decode().strip()) == (0, "100"), errors.decode()
