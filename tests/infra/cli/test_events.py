"""Tests of `agentlog events`: the stored commits, each with the verdict of the ledger."""

import asyncpg
from tests.stack_fixtures import RunningStack

from agentlog_infra.cli.event_reader import EventReader
from agentlog_infra.kafka.topics import apply
from agentlog_infra.postgres.migrate import upgrade
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import embedded_login
from agentlog_infra.system_ports import SystemIds


async def fresh(stack: RunningStack) -> Settings:
    """Return settings with the topics of a log and an empty database of their own."""
    database = stack.postgres.replace("/postgres?", f"/events_{SystemIds().uuid7()}?")
    settings = Settings.load({"database_uri": database, "redis_uri": stack.redis})
    settings = settings.model_copy(
        update={**embedded_login(stack.data_dir / "broker.secret"), "kafka_bootstrap": stack.kafka}
    )
    await apply(settings)
    await upgrade(database, [])
    return settings


async def test_each_record_is_shown_as_stored_and_without_a_verdict_until_it_is_projected(stack: RunningStack) -> None:
    settings = await fresh(stack)
    async with EventReader(settings) as log:
        first = [commit async for commit in log.read() if commit.offset == 0]
    assert sorted(commit.partition for commit in first) == list(range(8))
    assert {commit.verdict for commit in first} == {"pending"}
    assert all(commit.commit and commit.commit["stream"] == f"partition-{commit.partition}" for commit in first)
    assert "PartitionOpened" in first[0].as_line()
    assert "system:agentlog" in first[0].as_line()


async def test_the_verdict_of_the_ledger_stands_beside_its_commit(stack: RunningStack) -> None:
    settings = await fresh(stack)
    async with EventReader(settings) as log:
        (before,) = [commit async for commit in log.read() if (commit.partition, commit.offset) == (3, 0)]
        await put_verdict(settings, 3, 0, before.key)
        (after,) = [commit async for commit in log.read() if (commit.partition, commit.offset) == (3, 0)]
        of_key = [commit async for commit in log.read(thread_id=before.key)]
        of_nobody = [commit async for commit in log.read(thread_id="nobody")]
    assert (after.verdict, after.version) == ("accepted", 0)
    assert [commit.key for commit in of_key] == [before.key]
    assert of_nobody == []


async def put_verdict(settings: Settings, partition: int, offset: int, key: str) -> None:
    connection = await asyncpg.connect(settings.database_uri or "")
    await connection.execute(
        """INSERT INTO ledger.log_index (partition, "offset", key, event_id, append_id, body_sha256, stream, version,
               types, recorded_at, verdict, detail)
           VALUES ($1, $2, $3, 'e', 'a', '', 'partition-3', 0, '{PartitionOpened}', now(), 'accepted', '{}')""",
        partition,
        offset,
        key,
    )
    await connection.close()
