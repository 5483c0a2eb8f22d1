"""All records of a topic, as the broker holds them."""

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias, TypedDict, Union

from aiokafka import AIOKafkaConsumer, TopicPartition

Value: TypeAlias = Union["dict[str, Value]", "list[Value]", str, int, float, bool, None]
Json: TypeAlias = dict[str, "Value"]
STOP_S = 5.0
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Record:
    """A record with its parsed value; `value` is empty where the bytes are no JSON object.

    `appended_at`: when the log took it, by its own clock; `NEVER` for a record that no log has.
    """

    partition: int
    offset: int
    key: str
    value: Json
    headers: dict[str, str] = field(default_factory=dict[str, str])
    appended_at: datetime = NEVER


class ClientOptions(TypedDict, total=False):
    """Options of a Kafka client: its address and its login."""

    bootstrap_servers: str
    security_protocol: str
    sasl_mechanism: str
    sasl_plain_username: str
    sasl_plain_password: str


def client_options(address: str) -> ClientOptions:
    """Return the options of a Kafka client for `host:port`, or `user:password@host:port` of a log with logins."""
    login, _, bootstrap = address.rpartition("@")
    user, _, password = login.partition(":")
    if not login:
        return {"bootstrap_servers": bootstrap}
    return {
        "bootstrap_servers": bootstrap,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": user,
        "sasl_plain_password": password,
    }


async def read_topic(address: str, topic: str) -> list[Record]:
    """Return every record from the first to the end as it is now, partition by partition."""
    consumer = AIOKafkaConsumer(
        topic, **client_options(address), enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        assert partitions, f"no partitions of {topic}"
        consumer.unsubscribe()
        consumer.assign(partitions)
        starts = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[Record] = []
        for at in partitions:
            found += await _read(consumer, at, starts[at], ends[at])
        return found
    finally:
        await _let_go(consumer)


async def _let_go(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer. aiokafka (0.14) may lose the cancel of its fetching, and would then wait for it for ever."""
    try:
        async with asyncio.timeout(STOP_S):
            await consumer.stop()
    except TimeoutError:
        await consumer._client.close()  # pyright: ignore[reportPrivateUsage]  # the rest of `stop`


async def _read(consumer: AIOKafkaConsumer, at: TopicPartition, start: int, end: int) -> list[Record]:
    consumer.assign([at])
    consumer.seek(at, start)
    found: list[Record] = []
    while start < end:
        for raw in (await consumer.getmany(at, timeout_ms=5000)).get(at, []):
            if raw.offset < end:
                headers = {name: (data or b"").decode(errors="replace") for name, data in raw.headers}
                key = (raw.key or b"").decode(errors="replace")
                appended_at = datetime.fromtimestamp(raw.timestamp / 1000, UTC)
                found.append(Record(at.partition, raw.offset, key, _parsed(raw.value), headers, appended_at))
            start = raw.offset + 1
    return found


def _parsed(value: bytes | None) -> Json:
    try:
        parsed: Value = json.loads(value or b"")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
