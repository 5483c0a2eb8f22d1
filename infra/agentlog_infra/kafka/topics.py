"""Topics of the log: comparison with the required settings, creation, and changes.

A role refuses to run on a log that could lose history. `agentlog topics plan` shows the differences. `apply` creates
missing topics, changes settings that may be changed, and opens each partition of `events` with a record that names log,
generation, partition and base.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, NodeNotReadyError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Schema, String

from agentlog_facts.envelope import Actor, Cause, Draft
from agentlog_facts.errors import Misconfigured, Unavailable
from agentlog_facts.ids import Key, stream
from agentlog_facts.system import PartitionOpened
from agentlog_facts.topics import EVENTS, OUTPUTS
from agentlog_facts.vocabulary import encode_commit, encode_facts
from agentlog_infra import timeouts
from agentlog_infra.kafka.connection import Connection, connection, kafka_faults
from agentlog_infra.kafka.diagnosis import diagnose_connection
from agentlog_infra.kafka.partitions import partition_header, partition_of
from agentlog_infra.kafka.producer import DurableProducer
from agentlog_infra.kafka.reader import KafkaReader
from agentlog_infra.kafka.shutdown import close_client
from agentlog_infra.kafka.topic_settings import (
    OPENING,
    TopicChange,
    config_changes,
    shape_changes,
    unlike_default,
    wanted,
)
from agentlog_infra.settings import Settings
from agentlog_infra.system_ports import SystemIds

ALREADY_EXISTS = 36
SETTING_REFUSED = (40, 44)
"""INVALID_CONFIG and POLICY_VIOLATION: a service fixes one of the settings."""
UNABLE_TO_SHOW = (35, 42)
"""UNSUPPORTED_VERSION and INVALID_REQUEST: a server does not show the settings of topics."""

log = logging.getLogger(__name__)
_TOPIC = 2
_SET = 0
"""Type of a resource, and operation, in IncrementalAlterConfigs: it changes the named settings and no others."""
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
        ends = await reader.ends(range(settings.partitions))
    finally:
        await reader.stop()
    missing = [str(number) for number, end in sorted(ends.items()) if end == 0]
    needed = f"the first record of partition {', '.join(missing)}"
    return [TopicChange(EVENTS, OPENING, None, needed)] if missing else []


async def check(settings: Settings) -> Sequence[TopicChange]:
    """Refuse a log that could lose history; return the settings that are not shown and were accepted.

    Raises: Misconfigured naming each setting, Unavailable.
    """
    _demand_known(settings)
    changes = await plan(settings)
    unsafe = [change for change in changes if not change.safe]
    accepted = [change for change in changes if change.hidden and change.topic != OUTPUTS and change.safe]
    for change in accepted:
        log.warning("topics.accepted_without_proof", extra={"setting": str(change)})
    if unsafe:
        fixes = dict.fromkeys(change.fix for change in unsafe)
        raise Misconfigured(f"{'; '.join(map(str, unsafe))} (fix: {'; '.join(fixes)})")
    return accepted


def _demand_known(settings: Settings) -> None:
    known = {name for required in wanted(settings).values() for name in required}
    for name in settings.kafka_accept:
        if name not in known:
            raise Misconfigured(f"AGENTLOG_KAFKA_ACCEPT: expected some of {', '.join(sorted(known))}, found {name}")


async def apply(settings: Settings) -> list[TopicChange]:
    """Create and change what differs, open the partitions, return the changes. Raises: Misconfigured, Unavailable."""
    admin = await _admin(connection(settings))
    try:
        with kafka_faults("topics"):
            changes = await _differences(admin, settings)
            created = [change.topic for change in changes if change.setting == "topic"]
            await _create(admin, settings, created)
            rest = await _visible_differences(admin, settings) if created else changes
            await _alter(
                admin, settings, [change for change in rest if change.setting != "topic" and not change.obstacle]
            )
    finally:
        await close_client(admin)
    fixed = [change for change in rest if change.obstacle and not change.safe]
    if fixed:
        raise Misconfigured("; ".join(f"{change}: {change.obstacle}" for change in fixed))
    if not any(change.topic == EVENTS and change.setting == "topic" for change in changes):
        changes += await _unopened(settings)
    await _open_partitions(settings)
    return changes


async def _visible_differences(admin: AIOKafkaAdminClient, settings: Settings) -> list[TopicChange]:
    """Return the differences once all topics are visible: a new one appears a moment after its creation."""
    async with asyncio.timeout(timeouts.TOPIC_VISIBLE_S):
        while True:
            changes = await _differences(admin, settings)
            if all(change.setting != "topic" for change in changes):
                return changes
            await asyncio.sleep(timeouts.TOPIC_VISIBLE_POLL_S)  # no request waits for it


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
            if code not in UNABLE_TO_SHOW:
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
    """Create topics with the settings that differ from Kafka's defaults; bare where a service refuses one of them."""
    refused = await _try_to_create(admin, settings, {topic: unlike_default(topic, settings) for topic in topics})
    for topic, why in refused.items():
        log.warning("topics.created_bare", extra={"topic": topic, "refused": why})
    await _try_to_create(admin, settings, {topic: {} for topic in refused})


async def _try_to_create(
    admin: AIOKafkaAdminClient, settings: Settings, topics: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Create topics; return those whose settings are refused, with the refusal. Raises: Misconfigured, Unavailable."""
    if not topics:
        return {}
    new = [
        NewTopic(topic, settings.partitions, settings.replication_factor, topic_configs=configs)
        for topic, configs in topics.items()
    ]
    refused: dict[str, str] = {}
    for topic, code, *more in (await admin.create_topics(new)).topic_errors:
        detail = " ".join(map(str, more))
        if code in SETTING_REFUSED and topics[topic]:
            refused[topic] = f"{for_code(code).__name__} {detail}"
        elif code != ALREADY_EXISTS:  # another process created it meanwhile
            _demand_success(topic, code, detail, "it cannot be created")
    return refused


async def _alter(admin: AIOKafkaAdminClient, settings: Settings, changes: Sequence[TopicChange]) -> None:
    """Set what differs, and nothing that holds already: services refuse settings that they fix, also to their value."""
    new: dict[str, dict[str, str]] = {}
    for change in changes:
        new.setdefault(change.topic, {})[change.setting] = change.needed
    if not new:
        return
    try:
        results = await _alter_incrementally(admin, new)
    except IncompatibleBrokerVersion:
        results = await _replace_configs(admin, new)
    for topic, code, detail in results:
        _demand_success(topic, code, detail, "its settings may not be changed")


class _AlterResponse(Response):
    """Response of IncrementalAlterConfigs, which aiokafka (0.14) lacks. Source: Kafka protocol, KIP-339, version 0."""

    API_KEY = 44
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "resources",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
            ),
        ),
    )
    resources: list[tuple[int, str | None, int, str]]


class _AlterStruct(RequestStruct):
    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = _AlterResponse
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                (
                    "configs",
                    Array(("name", String("utf-8")), ("operation", Int8), ("value", String("utf-8"))),
                ),
            ),
        ),
        ("validate_only", Boolean),
    )


class _AlterRequest(Request[_AlterStruct]):
    API_KEY = 44

    def __init__(self, topics: Mapping[str, Mapping[str, str]]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_AlterStruct]) -> _AlterStruct:
        resources = [
            (_TOPIC, topic, [(name, _SET, value) for name, value in configs.items()])
            for topic, configs in self._topics.items()
        ]
        return request_struct_class(resources, False)


async def _alter_incrementally(
    admin: AIOKafkaAdminClient, topics: Mapping[str, Mapping[str, str]]
) -> list[tuple[str, int, str | None]]:
    """Set these settings of topics; return topic, error code and text of each.

    Raises: IncompatibleBrokerVersion if the server does not know the request, other KafkaErrors of the client.
    """
    node = admin._client.get_random_node()
    if node is None or not await admin._client.ready(node):
        raise NodeNotReadyError("no server for IncrementalAlterConfigs")
    response = await admin._client.send(node, _AlterRequest(topics))
    if not isinstance(response, _AlterResponse):
        raise TypeError(f"expected the response of IncrementalAlterConfigs, found {type(response).__name__}")
    return [(topic, code, detail) for code, detail, _, topic in response.resources]


async def _replace_configs(
    admin: AIOKafkaAdminClient, new: Mapping[str, Mapping[str, str]]
) -> list[tuple[str, int, str | None]]:
    """Replace all settings of topics, for servers without another request; it repeats those of an operator."""
    resources: list[ConfigResource] = []
    for topic, entries in (await _configs(admin, sorted(new))).items():
        given = {name: entry.value or "" for name, entry in entries.items() if entry.source == SET_ON_TOPIC}
        resources.append(ConfigResource(ConfigResourceType.TOPIC, topic, {**given, **new[topic]}))
    return [
        (topic, code, detail)
        for response in await admin.alter_configs(resources)
        for code, detail, _, topic in response.resources
    ]


async def _open_partitions(settings: Settings) -> None:
    """Write the opening record of every partition that has none; the record of partition 0 defines the log's id."""
    producer = DurableProducer(connection(settings), "agentlog-topics")
    reader = KafkaReader(connection(settings), EVENTS, "agentlog-topics")
    await producer.start()
    try:
        log_id = SystemIds().uuid7()
        ends = await reader.ends(range(settings.partitions))
        for partition, end in sorted(ends.items()):
            if end == 0:
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
