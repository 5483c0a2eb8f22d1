"""Which topics there are, with which settings, and what is done when the log's are others.

A role refuses to run on a log that could lose history; `agentlog topics plan` shows the differences, `apply` creates
what is missing, changes settings that may be changed and opens each partition of `events` with a record that names
log, generation, partition and base (design: the log).
"""

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from agentlog_facts.envelope import Actor, Cause, Draft
from agentlog_facts.errors import Misconfigured, Unavailable
from agentlog_facts.ids import Key, stream
from agentlog_facts.json_value import as_object
from agentlog_facts.system import PartitionOpened
from agentlog_facts.vocabulary import decode_fact, encode_commit, encode_facts, parse_commit
from agentlog_infra.kafka_connection import BLOBS, EVENTS, OUTPUTS, Connection, connection, kafka_faults
from agentlog_infra.kafka_producer import DurableProducer
from agentlog_infra.kafka_reader import KafkaReader
from agentlog_infra.partitioner import partition_of
from agentlog_infra.settings import Settings
from agentlog_infra.system_ports import SystemIds

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
ALREADY_EXISTS = 36


@dataclass(frozen=True, slots=True)
class TopicChange:
    """One difference: `found` is None for what is missing; `safe` tells whether a role may run in spite of it."""

    topic: str
    setting: str
    found: str | None
    needed: str
    safe: bool = False

    def __str__(self) -> str:
        """Name topic, setting, value found and value needed."""
        return f"topic {self.topic}: {self.setting} is {self.found or 'missing'}, needed {self.needed}"


def wanted(settings: Settings) -> Mapping[str, Mapping[str, str]]:
    """Return the settings that each topic must have."""
    replicas = {"min.insync.replicas": str(settings.min_insync_replicas)}
    history = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
    stamped = {"message.timestamp.type": "LogAppendTime"}
    return {
        EVENTS: history | replicas | stamped,
        BLOBS: history | replicas,
        OUTPUTS: {
            "cleanup.policy": "delete",
            "retention.ms": str(settings.outputs_retention_ms),
            "max.message.bytes": str(MAX_MESSAGE_BYTES),
        }
        | replicas,
    }


async def plan(settings: Settings) -> list[TopicChange]:
    """Return how the log differs from what it should be. Raises: Unavailable."""
    admin = await _admin(connection(settings))
    try:
        with kafka_faults("topics"):
            return await _differences(admin, settings)
    finally:
        await admin.close()


async def check(settings: Settings) -> None:
    """Refuse a log that could lose history. Raises: Misconfigured naming each setting, Unavailable."""
    unsafe = [str(change) for change in await plan(settings) if not change.safe]
    if unsafe:
        raise Misconfigured("; ".join(unsafe) + " (fix: agentlog topics apply)")


async def apply(settings: Settings) -> list[TopicChange]:
    """Create and change what differs, open the partitions, return what was done. Raises: Misconfigured, Unavailable."""
    admin = await _admin(connection(settings))
    try:
        with kafka_faults("topics"):
            changes = await _differences(admin, settings)
            await _create(admin, settings, [c.topic for c in changes if c.setting == "topic"])
            await _alter(admin, settings, {c.topic for c in changes if c.setting not in ("topic", "partitions")})
    finally:
        await admin.close()
    fixed = [change for change in changes if change.setting == "partitions"]
    if fixed:
        raise Misconfigured(f"{fixed[0]}; the partitions of a keyed topic are fixed at its creation")
    await _open_partitions(settings)
    return changes


async def _admin(connected: Connection) -> AIOKafkaAdminClient:
    admin = AIOKafkaAdminClient(**connected, client_id="agentlog-topics")
    try:
        with kafka_faults("topics"):
            await admin.start()
    except Unavailable:
        await admin.close()
        raise
    return admin


async def _differences(admin: AIOKafkaAdminClient, settings: Settings) -> list[TopicChange]:
    topics = wanted(settings)
    present = set(await admin.list_topics())  # asking for a topic that is not there would create it on some brokers
    described = await admin.describe_topics([topic for topic in topics if topic in present])
    counts = {topic["topic"]: len(topic["partitions"]) for topic in described if not topic["error_code"]}
    changes = [
        TopicChange(topic, "topic", None, f"{settings.partitions} partitions")
        for topic in topics
        if topic not in counts
    ]
    for topic, count in counts.items():
        if count != settings.partitions:
            changes.append(TopicChange(topic, "partitions", str(count), str(settings.partitions)))
    if counts:
        changes += await _config_differences(admin, {topic: topics[topic] for topic in counts})
    return changes


async def _config_differences(admin: AIOKafkaAdminClient, topics: Mapping[str, Mapping[str, str]]) -> list[TopicChange]:
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
    changes: list[TopicChange] = []
    for response in await admin.describe_configs(asked):
        for resource in response.resources:
            topic, entries = str(resource[3]), resource[4]
            found = {str(entry[0]): entry[1] for entry in entries}
            for setting, needed in topics[topic].items():
                if found.get(setting) != needed:
                    value = found.get(setting)
                    safe = setting == "max.message.bytes" or topic == OUTPUTS
                    changes.append(TopicChange(topic, setting, None if value is None else str(value), needed, safe))
    return changes


async def _create(admin: AIOKafkaAdminClient, settings: Settings, topics: list[str]) -> None:
    if not topics:
        return
    configs = wanted(settings)
    new = [
        NewTopic(topic, settings.partitions, settings.replication_factor, topic_configs=configs[topic])
        for topic in topics
    ]
    response = await admin.create_topics(new)
    for topic, code, *detail in response.topic_errors:
        if code not in (0, ALREADY_EXISTS):  # somebody else created it meanwhile: fine
            raise Misconfigured(f"topic {topic}: {for_code(code).__name__} {detail}")


async def _alter(admin: AIOKafkaAdminClient, settings: Settings, topics: set[str]) -> None:
    if topics:
        configs = wanted(settings)
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, configs[topic]) for topic in sorted(topics)]
        )


async def _open_partitions(settings: Settings) -> None:
    """Write the opening record of every partition that has none; partition 0 decides the log's id."""
    producer = DurableProducer(connection(settings), "agentlog-topics")
    reader = KafkaReader(connection(settings), EVENTS, "agentlog-topics")
    await producer.start()
    try:
        log_id = SystemIds().uuid7()
        for partition in range(settings.partitions):
            if await reader.end(partition) == 0:
                await producer.send(EVENTS, *_opening(log_id, partition, settings.partitions), partition)
            if partition == 0:
                log_id = await _log_id(reader)
    finally:
        await reader.stop()
        await producer.stop()


async def _log_id(reader: KafkaReader) -> str:
    async with aclosing(reader.read(0, 0, 1)) as records:
        async for record in records:
            facts = parse_commit(record.value or b"").get("facts")
            fact = decode_fact(as_object(facts[0], "fact")) if isinstance(facts, list) and facts else None
            if isinstance(fact, PartitionOpened):
                return fact.log_id
    raise Misconfigured(f"topic {EVENTS}: partition 0 does not begin with PartitionOpened, so it is no log of agentlog")


def _opening(log_id: str, partition: int, partitions: int) -> tuple[bytes, bytes]:
    key = next(
        key
        for n in range(1_000_000)
        if partition_of((key := f"partition-{partition}-{n}").encode(), partitions) == partition
    )
    name = stream("partition", str(partition))
    draft = Draft(
        key=Key(key),
        stream=name,
        event_id=SystemIds().uuid7(),
        append_id=SystemIds().uuid7(),
        body_sha256="",
        facts=(PartitionOpened(log_id, 1, partition, partitions, 0),),
        occurred_at=datetime.now(UTC),
        cause=Cause(Actor("system", "agentlog"), correlation_id=log_id),
        demands={name: "absent"},
    )
    return key.encode(), encode_commit(draft, encode_facts(draft))
