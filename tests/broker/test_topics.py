"""Requests about topics, and settings that are honoured or refused with a reason."""

import asyncio
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidPartitionsError, PolicyViolationError
from tests.broker.servers import admin, make_topic, producer, read_all, reader, serving, unique

from agentlog_broker.settings import BrokerSettings


async def test_a_topic_is_created_once_described_and_deleted(kafka: str) -> None:
    topic = await make_topic(kafka, partitions=3)
    async with admin(kafka) as client:
        assert (await client.create_topics([NewTopic(topic, 3, 1)])).topic_errors[0][1] == 36
        (described,) = await client.describe_topics([topic])
        assert [part["leader"] for part in described["partitions"]] == [1, 1, 1]
        assert topic in await client.list_topics()
        await client.delete_topics([topic])
        assert topic not in await client.list_topics()


async def test_a_topic_made_again_is_empty(kafka: str) -> None:
    topic = await make_topic(kafka)
    async with producer(kafka) as client:
        await client.send_and_wait(topic, b"old")
    async with admin(kafka) as client:
        await client.delete_topics([topic])
        await client.create_topics([NewTopic(topic, 1, 1)])
    assert await read_all(kafka, topic) == []


async def test_partitions_can_be_added_and_not_removed(kafka: str) -> None:
    topic = await make_topic(kafka, partitions=2)
    async with admin(kafka) as client:
        assert (await client.create_partitions({topic: NewPartitions(5)})).topic_errors[0][1] == 0
        with pytest.raises(InvalidPartitionsError, match="has 5 partition"):
            await client.create_partitions({topic: NewPartitions(4)})
        (described,) = await client.describe_topics([topic])
    assert len(described["partitions"]) == 5


@pytest.mark.parametrize(
    ("name", "partitions", "replicas", "configs", "code", "words"),
    [
        ("a/b", 1, 1, {}, 17, "a/b"),
        ("t", 0, 1, {}, 37, "partitions"),
        ("t", 1, 3, {}, 38, "replica"),
        ("t", 1, 1, {"retention.msx": "1"}, 40, "retention.msx"),
        ("t", 1, 1, {"retention.ms": "soon"}, 40, "retention.ms"),
    ],
)
async def test_a_topic_that_cannot_be_is_refused_with_its_reason(
    kafka: str, name: str, partitions: int, replicas: int, configs: dict[str, str], code: int, words: str
) -> None:
    async with admin(kafka) as client:
        answer = await client.create_topics([NewTopic(unique(name), partitions, replicas, topic_configs=configs)])
    assert answer.topic_errors[0][1] == code
    assert words in str(answer.topic_errors[0][2]).lower()


async def _configs(kafka: str, topic: str) -> dict[str, str | None]:
    async with admin(kafka) as client:
        (answer,) = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    return {entry[0]: entry[1] for entry in answer.resources[0][4]}


async def test_settings_are_stored_and_unset_ones_show_their_defaults(kafka: str) -> None:
    topic = await make_topic(kafka, retention_ms="3600000", message_timestamp_type="LogAppendTime")
    found = await _configs(kafka, topic)
    assert found["retention.ms"] == "3600000"
    assert found["message.timestamp.type"] == "LogAppendTime"
    assert found["cleanup.policy"] == "delete"
    assert found["min.insync.replicas"] == "1"
    assert {"max.message.bytes", "retention.bytes", "segment.bytes", "unclean.leader.election.enable"} <= set(found)


async def test_settings_can_be_changed_and_wrong_ones_change_nothing(kafka: str) -> None:
    topic = await make_topic(kafka, retention_bytes="1000000")
    async with admin(kafka) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "1000000"})])
        (refused,) = await client.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "never"})]
        )
    assert refused.resources[0][0] == 40
    found = await _configs(kafka, topic)
    assert (found["retention.ms"], found["retention.bytes"]) == ("1000000", "-1")


async def test_deleted_records_are_gone_and_offsets_go_on(kafka: str) -> None:
    topic = await make_topic(kafka)
    part = TopicPartition(topic, 0)
    async with producer(kafka) as client:
        for number in range(10):
            await client.send_and_wait(topic, b"%d" % number)
        async with admin(kafka) as operator:
            assert await operator.delete_records({part: RecordsToDelete(6)}) == {part: 6}
        assert (await client.send_and_wait(topic, b"10")).offset == 10
    assert [record.offset for record in await read_all(kafka, topic)] == [6, 7, 8, 9, 10]


async def test_a_reader_of_a_deleted_topic_is_not_left_waiting(kafka: str) -> None:
    topic = await make_topic(kafka)
    async with reader(kafka, TopicPartition(topic, 0), wait_ms=60_000) as consumer, producer(kafka) as client:
        await client.send_and_wait(topic, b"x")
        assert (await consumer.getone()).value == b"x"
        async with admin(kafka) as operator:
            await asyncio.wait_for(operator.delete_topics([topic]), 5)
            await operator.create_topics([NewTopic(topic, 1, 1)])
        await client.send_and_wait(topic, b"y")
        consumer.seek(TopicPartition(topic, 0), 0)
        assert (await asyncio.wait_for(consumer.getone(), 10)).value == b"y"


FORGETTING = (
    {"retention.ms": "1"},
    {"retention.bytes": "1"},
    {"cleanup.policy": "compact"},
    {"cleanup.policy": "compact,delete"},
)


async def test_protected_topics_stay_whole_whatever_a_client_wants(tmp_path: Path) -> None:
    settings = BrokerSettings(
        tmp_path, undeletable_topics=frozenset({"brief"}), endless_topics=frozenset({"kept", "refused"})
    )
    async with serving(settings) as (_, kafka), admin(kafka) as client:
        await client.create_topics([NewTopic(name, 1, 1) for name in ("kept", "brief", "other")])
        async with producer(kafka) as writer:
            for name in ("kept", "brief"):
                await writer.send_and_wait(name, b"first", partition=0)
        answer = await client.delete_topics(["kept", "brief", "other"])
        assert dict(answer.topic_error_codes) == {"kept": 73, "brief": 73, "other": 0}
        for name in ("kept", "brief"):
            with pytest.raises(PolicyViolationError):
                await client.delete_records({TopicPartition(name, 0): RecordsToDelete(-1)})
            with pytest.raises(PolicyViolationError):
                await client.create_partitions({name: NewPartitions(2)})
        for changed in FORGETTING:
            created = await client.create_topics([NewTopic("refused", 1, 1, topic_configs=changed)])
            assert created.topic_errors[0][1] == 44, changed  # it was created, and lost records
            resource = ConfigResource(ConfigResourceType.TOPIC, "kept", configs=changed)
            (response,) = await client.alter_configs([resource])
            assert response.resources[0][0] == 44
        brief = ConfigResource(ConfigResourceType.TOPIC, "brief", configs={"retention.ms": "600000"})
        (response,) = await client.alter_configs([brief])
        assert response.resources[0][0] == 0
        assert [len(await read_all(kafka, name)) for name in ("kept", "brief")] == [1, 1]


async def test_a_finite_default_makes_no_endless_topic(tmp_path: Path) -> None:
    settings = BrokerSettings(
        tmp_path, retention_ms=60_000, auto_create_topics=True, endless_topics=frozenset({"kept", "asked"})
    )
    async with serving(settings) as (_, kafka), admin(kafka) as client:
        created = await client.create_topics([NewTopic("kept", 1, 1)])
        assert created.topic_errors[0][1] == 44
        await client.describe_topics(["asked"])  # a request of metadata may create a topic
        assert not {"kept", "asked"} & set(await client.list_topics())
        created = await client.create_topics([NewTopic("kept", 1, 1, topic_configs={"retention.ms": "-1"})])
        assert created.topic_errors[0][1] == 0
