"""Tests of topics on both brokers: a refusal names topic, setting, value found and value needed."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import RequestTimedOutError
from tests.apache_kafka.secured import SecuredKafka
from tests.broker.servers import BrokerProcess, admin

import agentlog_infra.examples
from agentlog_facts.errors import Misconfigured, Unavailable
from agentlog_facts.topics import BLOBS, EVENTS, OUTPUTS
from agentlog_infra.kafka import topics
from agentlog_infra.kafka.producer import MAX_REQUEST_BYTES
from agentlog_infra.kafka.topic_settings import TopicChange, config_changes, strimzi_manifests, wanted
from agentlog_infra.kafka.topics import apply, check, plan
from agentlog_infra.process.child import child_environment
from agentlog_infra.settings import Settings

PARTITIONS = 2
ENDS_S = 100.0
"""Time for a role to import its code, check the topics and end on a busy machine; on an idle one it takes 2 s."""
GONE_S = 20.0
APACHE = pytest.param("apache_kafka", marks=pytest.mark.needs("java", "mvn"))


@dataclass(frozen=True, slots=True)
class Log:
    """A server with agentlog's topics and their required settings."""

    bootstrap: str

    def settings(self, **changes: int) -> Settings:
        return Settings.load(
            {
                "kafka_bootstrap": self.bootstrap,
                "partitions": PARTITIONS,
                "replication_factor": 1,
                "min_insync_replicas": 1,
                **changes,
            }
        )

    async def alter(self, topic: str, **configs: str) -> str | None:
        """Set these settings of a topic and no others; return the server's objection if it has one."""
        named = {name.replace("_", "."): value for name, value in configs.items()}
        async with admin(self.bootstrap) as client:
            (answer,) = await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, named)])
        ((code, detail, *_),) = answer.resources
        return str(detail) if code else None

    async def delete(self, topic: str) -> None:
        """Delete a topic and wait until it is gone."""
        async with admin(self.bootstrap) as client, asyncio.timeout(GONE_S):
            await client.delete_topics([topic])
            while True:
                if topic not in await client.list_topics():
                    return
                await asyncio.sleep(0.05)

    async def given_to_us(self, topic: str) -> dict[str, str]:
        """Return the required settings of a topic, as arguments of `alter`."""
        return {name.replace(".", "_"): value for name, value in wanted(self.settings())[topic].items()}

    async def given(self, topic: str) -> dict[str, str | None]:
        """Return the settings in force of a topic."""
        async with admin(self.bootstrap) as client:
            (answer,) = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for entry in answer.resources[0][4]}


@pytest.fixture(params=["agentlog_broker", APACHE])
async def log(request: pytest.FixtureRequest) -> AsyncGenerator[Log]:
    """Yield a log of one kind; undo the changes of a test after it."""
    server = request.getfixturevalue("broker" if request.param == "agentlog_broker" else "secured_kafka")
    assert isinstance(server, BrokerProcess | SecuredKafka)
    found = Log(server.bootstrap)
    await apply(found.settings())
    yield found
    await apply(found.settings())


async def test_topics_made_by_us_are_accepted_and_nothing_is_left_to_do(log: Log) -> None:
    await check(log.settings())
    assert await plan(log.settings()) == []


@pytest.mark.parametrize("topic", [EVENTS, BLOBS])
@pytest.mark.parametrize(
    ("setting", "value", "needed"),
    [
        ("cleanup.policy", "compact", "delete"),
        ("cleanup.policy", "compact,delete", "delete"),
        ("retention.ms", "604800000", "-1"),
        ("retention.bytes", "1000000", "-1"),
        ("unclean.leader.election.enable", "true", "false"),
    ],
)
async def test_a_topic_that_could_lose_history_is_refused_until_it_is_changed(
    log: Log, topic: str, setting: str, value: str, needed: str
) -> None:
    objection = await log.alter(topic, **{setting.replace(".", "_"): value})
    if objection is not None:  # the embedded broker refuses the setting
        assert setting in objection
        return
    with pytest.raises(Misconfigured) as refused:
        await check(log.settings())
    assert f"topic {topic}: {setting} is {value}, needed {needed}" in str(refused.value)
    assert "agentlog topics apply" in str(refused.value)
    await apply(log.settings())
    await check(log.settings())


async def test_records_stamped_by_their_senders_are_refused(log: Log) -> None:
    assert await log.alter(EVENTS, message_timestamp_type="CreateTime", retention_ms="-1") is None
    with pytest.raises(Misconfigured, match=r"message\.timestamp\.type is CreateTime, needed LogAppendTime"):
        await check(log.settings())


@pytest.mark.parametrize(
    ("attribute", "setting"),
    [("replication_factor", "replication.factor"), ("min_insync_replicas", "min.insync.replicas")],
)
async def test_fewer_copies_than_declared_are_refused_and_more_are_not(log: Log, attribute: str, setting: str) -> None:
    with pytest.raises(Misconfigured, match=f"topic {EVENTS}: {setting} is 1, needed at least 2"):
        await check(log.settings(**{attribute: 2}))
    await check(log.settings())


async def test_another_number_of_partitions_is_refused_and_never_changed(log: Log) -> None:
    with pytest.raises(Misconfigured, match=f"topic {EVENTS}: partitions is 2, needed 3") as refused:
        await check(log.settings(partitions=3))
    assert "AGENTLOG_PARTITIONS" in str(refused.value)
    for attribute in ("partitions", "replication_factor"):
        with pytest.raises(Misconfigured, match=r"fixed at its creation|kafka-reassign"):
            await apply(log.settings(**{attribute: 3}))
    await check(log.settings())


async def test_what_an_operator_set_besides_is_kept_when_a_setting_is_changed(log: Log) -> None:
    assert await log.alter(EVENTS, retention_ms="1000", segment_ms="3600000") is None
    await apply(log.settings())
    given = await log.given(EVENTS)
    assert (given["retention.ms"], given["segment.ms"]) == ("-1", "3600000")


async def test_stream_frames_may_expire_sooner_and_are_said_to(log: Log) -> None:
    assert await log.alter(OUTPUTS, retention_ms="3600000") is None
    await check(log.settings())
    assert f"topic {OUTPUTS}: retention.ms is 3600000, needed 604800000" in map(str, await plan(log.settings()))


@pytest.mark.parametrize("topic", [EVENTS, BLOBS])
async def test_a_topic_that_is_too_small_for_a_record_is_refused_and_a_larger_one_is_not(log: Log, topic: str) -> None:
    assert await log.alter(topic, max_message_bytes="2000", retention_ms="-1") is None
    message = rf"topic {topic}: max\.message\.bytes is 2000, needed at least {MAX_REQUEST_BYTES}"
    with pytest.raises(Misconfigured, match=message):
        await check(log.settings())
    await apply(log.settings())
    await check(log.settings())
    await log.alter(topic, **(await log.given_to_us(topic)) | {"max_message_bytes": str(2 * MAX_REQUEST_BYTES)})
    await check(log.settings())


async def test_topics_that_were_made_and_not_opened_are_told_and_opened(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def died(_: Settings) -> None: ...

    await log.delete(EVENTS)
    monkeypatch.setattr("agentlog_infra.kafka.topics._open_partitions", died)
    await apply(log.settings())
    monkeypatch.undo()
    message = f"topic {EVENTS}: opening is missing, needed the first record of partition 0, 1"
    assert [str(change) for change in await plan(log.settings())] == [message]
    with pytest.raises(Misconfigured, match="agentlog topics apply"):
        await check(log.settings())
    assert [str(change) for change in await apply(log.settings())] == [message]
    assert await plan(log.settings()) == []


async def test_a_server_that_has_no_time_to_make_a_topic_is_unavailable_and_not_misconfigured(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_: AIOKafkaAdminClient) -> list[str]:
        return []

    async def slow(_: AIOKafkaAdminClient, topics: list[NewTopic]) -> SimpleNamespace:
        return SimpleNamespace(topic_errors=[(EVENTS, RequestTimedOutError.errno, "busy")])

    monkeypatch.setattr(AIOKafkaAdminClient, "list_topics", nothing)
    monkeypatch.setattr(AIOKafkaAdminClient, "create_topics", slow)
    with pytest.raises(Unavailable, match="it cannot be created: RequestTimedOutError busy"):
        await apply(log.settings())


@pytest.mark.timeout(240)
async def test_no_role_starts_on_a_topic_that_forgets(log: Log, tmp_path: Path) -> None:
    assert await log.alter(EVENTS, retention_ms="604800000") is None
    processes = {roles: serve(roles, log.bootstrap, tmp_path) for roles in ("gateway", "projector,worker,housekeeper")}
    for roles, process in processes.items():
        _, output = process.communicate(timeout=ENDS_S)
        assert process.returncode == 2, f"{roles}: {output}"
        assert f"topic {EVENTS}: retention.ms is 604800000, needed -1" in output, roles
        assert "Traceback" not in output


def serve(role: str, bootstrap: str, folder: Path, **environment: str) -> "subprocess.Popen[str]":
    """Start a role that has a log, but neither database nor Redis."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AGENTLOG_", "DATABASE", "REDIS"))
    }
    mine = {
        "AGENTLOG_KAFKA_BOOTSTRAP": bootstrap,
        "AGENTLOG_PARTITIONS": str(PARTITIONS),
        "AGENTLOG_REPLICATION_FACTOR": "1",
        "AGENTLOG_MIN_INSYNC_REPLICAS": "1",
        "AGENTLOG_CONFIG": str(Path(agentlog_infra.examples.__file__).parent / "langgraph.json"),
        "AGENTLOG_PORT": "0",
        "DATABASE_URI": "postgresql://nobody@127.0.0.1:1/none",
        "REDIS_URI": "redis://127.0.0.1:1/0",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "agentlog_infra.cli.main", "serve", role],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=child_environment(kept | mine | environment),
    )


HIDES = "unclean.leader.election.enable"


def differences(settings: Settings, hidden: str = HIDES, **wrong: str) -> list[TopicChange]:
    """Compare a topic that hides one setting, and has others as required or wrong."""
    shown: dict[str, str | None] = {**wanted(settings)[EVENTS], **wrong}
    del shown[hidden]
    return config_changes(EVENTS, shown, settings)


def test_a_setting_that_is_not_shown_is_neither_good_nor_wrong() -> None:
    [hidden] = differences(Settings.load())
    assert (hidden.hidden, hidden.safe, hidden.shown) == (True, False, "not shown")
    assert f"topic {EVENTS}: {HIDES} is not shown, needed false" == str(hidden)
    assert hidden.fix.endswith(f"AGENTLOG_KAFKA_ACCEPT={HIDES}")
    [accepted] = differences(Settings.load({"kafka_accept": (HIDES,)}))
    assert (accepted.hidden, accepted.safe) == (True, True)


def test_a_wrong_setting_is_never_accepted() -> None:
    settings = Settings.load({"kafka_accept": (HIDES, "cleanup.policy")})
    wrong = [change for change in differences(settings, **{"cleanup.policy": "compact"}) if not change.hidden]
    assert [(change.setting, change.safe) for change in wrong] == [("cleanup.policy", False)]


async def test_a_hidden_setting_stops_the_start_unless_it_is_named_and_then_is_said_loudly(
    log: Log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shown = topics._configs  # pyright: ignore[reportPrivateUsage]  # the seam this test needs

    async def hiding(client: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, object]]:
        found = await shown(client, names)
        return {topic: {name: one for name, one in all_.items() if name != HIDES} for topic, all_ in found.items()}

    monkeypatch.setattr(topics, "_configs", hiding)
    with pytest.raises(Misconfigured, match=f"{HIDES} is not shown, needed false") as refused:
        await check(log.settings())
    assert f"AGENTLOG_KAFKA_ACCEPT={HIDES}" in str(refused.value)
    accepting = log.settings().model_copy(update={"kafka_accept": (HIDES,)})
    accepted = await check(accepting)
    assert [change.requirement for change in accepted] == [
        f"agentlog.{topic} {HIDES}=false" for topic in ("events", "blobs")
    ]
    lines = [record for record in caplog.records if record.message == "topics.accepted_without_proof"]
    assert len(lines) == 2, "one for events, one for blobs"
    await apply(accepting)
    unknown = log.settings().model_copy(update={"kafka_accept": ("min.insync",)})
    with pytest.raises(Misconfigured, match="AGENTLOG_KAFKA_ACCEPT: expected some of"):
        await check(unknown)


async def test_only_settings_that_differ_are_sent(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Mapping[str, Mapping[str, str]]] = []
    altering = topics._alter_incrementally  # pyright: ignore[reportPrivateUsage]  # the seam this test needs

    async def noted(
        client: AIOKafkaAdminClient, new: Mapping[str, Mapping[str, str]]
    ) -> list[tuple[str, int, str | None]]:
        sent.append(new)
        return await altering(client, new)

    monkeypatch.setattr(topics, "_alter_incrementally", noted)
    assert await log.alter(EVENTS, retention_ms="1000", message_timestamp_type="LogAppendTime") is None
    await apply(log.settings())
    await check(log.settings())
    assert [new.get(EVENTS) for new in sent] == [{"retention.ms": "-1"}]


async def test_topics_are_created_where_a_service_refuses_a_setting(
    log: Log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(topic: str, settings: Settings) -> Mapping[str, str]:
        return {"unknown.setting": "1"}

    await log.delete(BLOBS)
    monkeypatch.setattr(topics, "unlike_default", refused)
    await apply(log.settings())
    await check(log.settings())
    assert "topics.created_bare" in caplog.text


def test_manifests_for_strimzi_hold_every_required_setting() -> None:
    manifests = strimzi_manifests(Settings.load({"kafka_bootstrap": "k:9092"})).split("\n---\n")
    assert [text.split("name: ")[1].split("\n")[0] for text in manifests] == [EVENTS, BLOBS, OUTPUTS]
    assert '    retention.ms: "-1"\n' in manifests[0]
    assert "  partitions: 64\n  replicas: 3\n" in manifests[0]
