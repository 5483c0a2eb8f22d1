"""Topics of the log: comparison with the required settings, creation, and changes.

A role refuses to run on a log that could lose history. `agentlog topics plan` shows the differences. `apply` creates
missing topics, changes settings that may be changed, and opens each partition of `events` with a record that names log,
generation, partition and base.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from agentlog_facts.envelope import Actor, Cause, Draft
from agentlog_facts.errors import Misconfigured, Unavailable
from agentlog_facts.ids import Key, stream
from agentlog_facts.system import PartitionOpened
from agentlog_facts.vocabulary import encode_commit, encode_facts
from agentlog_infra.kafka.connection import EVENTS, Connection, connection, kafka_faults
from agentlog_infra.kafka.diagnosis import diagnose_connection
from agentlog_infra.kafka.partitions import partition_header, partition_of
from agentlog_infra.kafka.producer import DurableProducer
from agentlog_infra.kafka.reader import KafkaReader
from agentlog_infra.kafka.shutdown import close_client
from agentlog_infra.kafka.topic_settings import OPENING, TopicChange, config_changes, shape_changes, wanted
from agentlog_infra.settings import Settings
from agentlog_infra.system_ports import SystemIds

ALREADY_EXISTS = 36
SET_ON_TOPIC = 1
"""Source of a setting of the topic itself (Kafka protocol, DescribeConfigs)."""


async def plan(settings: Settings) -> list[TopicChange]:
    """Return the differences between the log and the required settings. Raises: Unavailable."""
    admin = await _admin(connection(settings))
    try:
        with kafka_faults("topics"):
            changes = await _differences(admin, settings)
    finally:
        await close_client(admin)
    is_there = all(change.topic != EVENTS or change.setting not in ("topic", "partitions") for change in changes)
    return changes + (await _unopened(settings) if is_there else [])


async def _unopened(settings: Settings) -> list[TopicChange]:
    """Return the partitions without a first record: `apply` was ended before it had opened all of them."""
    reader = KafkaReader(connection(settings), EVENTS, "agentlog-topics")
    try:
        ends = await asyncio.gather(*(reader.end(number) for number in range(settings.partitions)))
    finally:
        await reader.stop()
    missing = [str(number) for number, end in enumerate(ends) if end == 0]
    needed = f"the first record of partition {', '.join(missing)}"
    return [TopicChange(EVENTS, OPENING, None, needed)] if missing else []


async def check(settings: Settings) -> None:
    """Refuse a log that could lose history. Raises: Misconfigured naming each setting, Unavailable."""
    unsafe = [change for change in await plan(settings) if not change.safe]
    if unsafe:
        fixes = dict.fromkeys(change.fix for change in unsafe)
        raise Misconfigured(f"{'; '.join(map(str, unsafe))} (fix: {'; '.join(fixes)})")


async def apply(settings: Settings) -> list[TopicChange]:
    """Create and change what differs, open the partitions, return the changes. Raises: Misconfigured, Unavailable."""
    admin = await _admin(connection(settings))
    try:
        with kafka_faults("topics"):
            changes = await _differences(admin, settings)
            await _create(admin, settings, [change.topic for change in changes if change.setting == "topic"])
            await _alter(admin, settings, {c.topic for c in changes if c.setting != "topic" and not c.obstacle})
    finally:
        await close_client(admin)
    fixed = [change for change in changes if change.obstacle]
    if fixed:
        raise Misconfigured("; ".join(f"{change}: {change.obstacle}" for change in fixed))
    if not any(change.topic == EVENTS and change.setting == "topic" for change in changes):
        changes += await _unopened(settings)
    await _open_partitions(settings)
    return changes


async def _admin(connected: Connection) -> AIOKafkaAdminClient:
    """Connect. Raises: Unavailable, Misconfigured naming the setting that the server refuses."""
    admin = AIOKafkaAdminClient(**connected, client_id="agentlog-topics")
    try:
        with kafka_faults("topics"):
            await admin.start()
    except Unavailable:
        await close_client(admin)
        await diagnose_connection(connected)
        raise
    return admin


async def _differences(admin: AIOKafkaAdminClient, settings: Settings) -> list[TopicChange]:
    topics = wanted(settings)
    present = set(await admin.list_topics())  # some brokers create a missing topic when it is described
    described = await admin.describe_topics([topic for topic in topics if topic in present])
    there = {topic["topic"]: topic["partitions"] for topic in described if not topic["error_code"]}
    needed = f"{settings.partitions} partitions"
    changes = [TopicChange(topic, "topic", None, needed) for topic in topics if topic not in there]
    for topic, partitions in there.items():
        replicas = min(len(partition["replicas"]) for partition in partitions)
        changes += shape_changes(topic, len(partitions), replicas, settings)
    for topic, entries in (await _configs(admin, there)).items():
        changes += config_changes(topic, {name: entry.value for name, entry in entries.items()}, settings)
    return changes


@dataclass(frozen=True, slots=True)
class _Setting:
    value: str | None
    source: int


async def _configs(admin: AIOKafkaAdminClient, topics: Iterable[str]) -> dict[str, dict[str, _Setting]]:
    """Return the settings in force. Raises: Misconfigured if we are not allowed to read them."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
    found: dict[str, dict[str, _Setting]] = {}
    for response in await admin.describe_configs(resources) if resources else []:
        for code, detail, _, topic, entries in response.resources:
            _demand_success(topic, code, detail, "its settings may not be read")
            found[topic] = {str(entry[0]): _Setting(entry[1], int(entry[3])) for entry in entries}
    return found


def _demand_success(topic: str, code: int, detail: object, what: str) -> None:
    """Check the result of a request. Raises: Unavailable if a retry may help, else Misconfigured."""
    if code:
        error = for_code(code)
        message = f"topic {topic}: {what}: {error.__name__} {detail or ''}".rstrip()
        raise Unavailable(message) if error.retriable else Misconfigured(message)


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
        if code != ALREADY_EXISTS:  # another process created it meanwhile
            _demand_success(topic, code, " ".join(map(str, detail)), "it cannot be created")


async def _alter(admin: AIOKafkaAdminClient, settings: Settings, topics: set[str]) -> None:
    """Apply the needed settings. The request replaces all settings of a topic, so it repeats those of an operator."""
    if not topics:
        return
    resources: list[ConfigResource] = []
    for topic, entries in (await _configs(admin, sorted(topics))).items():
        given = {name: entry.value or "" for name, entry in entries.items() if entry.source == SET_ON_TOPIC}
        changes = config_changes(topic, {name: entry.value for name, entry in entries.items()}, settings)
        new = {change.setting: change.needed for change in changes}
        resources.append(ConfigResource(ConfigResourceType.TOPIC, topic, given | new))
    for response in await admin.alter_configs(resources):
        for code, detail, _, topic in response.resources:
            _demand_success(topic, code, detail, "its settings may not be changed")


async def _open_partitions(settings: Settings) -> None:
    """Write the opening record of every partition that has none; the record of partition 0 defines the log's id."""
    producer = DurableProducer(connection(settings), "agentlog-topics")
    reader = KafkaReader(connection(settings), EVENTS, "agentlog-topics")
    await producer.start()
    try:
        log_id = SystemIds().uuid7()
        for partition in range(settings.partitions):
            if await reader.end(partition) == 0:
                await producer.send(EVENTS, *_opening(log_id, partition, settings.partitions), partition)
            if partition == 0:
                log_id = (await partition_header(reader, 0)).log_id
    finally:
        await reader.stop()
        await producer.stop()


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
