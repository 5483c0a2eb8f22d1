"""Reader of the commits on the log, each with its verdict."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

import asyncpg
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from agentlog_facts.errors import Corrupt, Unavailable
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.topics import EVENTS
from agentlog_facts.vocabulary import parse_commit
from agentlog_infra import timeouts
from agentlog_infra.kafka.connection import connection, kafka_faults
from agentlog_infra.kafka.event_log import append_time
from agentlog_infra.kafka.partitions import partition_of
from agentlog_infra.kafka.shutdown import close_client
from agentlog_infra.settings import Settings
from agentlog_postgres.connection import Connection, connect, translated

_BATCH = 500
_VERDICT_LOOKS = 20
_VERDICTS = """\
SELECT "offset", version, verdict, detail::text AS detail FROM ledger.log_index
WHERE partition = $1 AND "offset" = ANY($2::bigint[])"""

Record = ConsumerRecord[bytes, bytes]


@dataclass(frozen=True, slots=True)
class StoredCommit:
    """A record of `agentlog.events` as stored, with its verdict.

    `commit` is None where the bytes are no JSON object; `verdict` is "pending" while the record is not projected.
    """

    partition: int
    offset: int
    recorded_at: datetime
    key: str
    commit: JsonObject | None
    verdict: str
    version: int | None
    detail: str | None

    def as_json(self) -> dict[str, object]:
        """Return the document that `agentlog events --json` prints; its fields are a contract."""
        return {
            "partition": self.partition,
            "offset": self.offset,
            "recorded_at": self.recorded_at.isoformat(),
            "key": self.key,
            "verdict": self.verdict,
            "version": self.version,
            "detail": self.detail,
            "commit": self.commit,
        }

    def as_line(self) -> str:
        """Return time, stream, version, types, actor and verdict as one line for people."""
        commit = self.commit or {}
        version = "-" if self.version is None else str(self.version)
        cells = (_text(commit.get("occurred_at")), _text(commit.get("stream")).ljust(46), version.rjust(5))
        return "  ".join((*cells, _types(commit).ljust(30), _actor(commit)[:18].ljust(18), self.verdict))


def _text(value: Json) -> str:
    return value if isinstance(value, str) else "-"


def _types(commit: JsonObject) -> str:
    facts = commit.get("facts")
    if not isinstance(facts, list):
        return "unreadable"
    return "+".join(_text(fact.get("type")) for fact in facts if isinstance(fact, dict)) or "-"


def _actor(commit: JsonObject) -> str:
    actor = commit.get("actor")
    return f"{_text(actor.get('kind'))}:{_text(actor.get('sub'))}" if isinstance(actor, dict) else "-"


class EventReader:
    """Reads the log from its start; in order within a partition, so within a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None
        self._database: Connection | None = None

    async def __aenter__(self) -> Self:
        """Connect to PostgreSQL; readers of the log connect when used. Raises: Unavailable."""
        if self._settings.database_uri is None:
            raise Unavailable("DATABASE_URI: expected the address of PostgreSQL, found nothing")
        self._database = await connect(self._settings.database_uri, "agentlog events")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        if self._database is not None:
            await self._database.close()

    async def lines_of_thread(self, thread_id: str) -> AsyncIterator[str]:
        """Yield one printable line for each commit of a thread on the log."""
        async for commit in self.read(thread_id=thread_id):
            yield commit.as_line()

    async def read(self, *, thread_id: str | None = None, follow: bool = False) -> AsyncIterator[StoredCommit]:
        """Yield commits of one thread or of all; with `follow` for ever, else up to the current end.

        Raises: Unavailable.
        """
        consumer = AIOKafkaConsumer(
            **connection(self._settings),
            client_id="agentlog-events",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        with kafka_faults(EVENTS):
            await consumer.start()
        try:
            async for commit in self._commits(consumer, thread_id, follow=follow):
                yield commit
        finally:
            await close_client(consumer)

    async def _commits(
        self, consumer: AIOKafkaConsumer, thread_id: str | None, *, follow: bool
    ) -> AsyncIterator[StoredCommit]:
        with kafka_faults(EVENTS):
            wanted = await self._partitions(thread_id)
            consumer.assign(wanted)
            ends = await consumer.end_offsets(wanted)
            for at in wanted:
                consumer.seek(at, (await consumer.beginning_offsets([at]))[at])
        left = {at for at in wanted if ends[at] > 0}
        while left or follow:
            with kafka_faults(EVENTS):
                found = await consumer.getmany(timeout_ms=timeouts.EVENTS_COMMAND_POLL_MS, max_records=_BATCH)
            for at, records in found.items():
                mine = [r for r in records if thread_id is None or r.key == thread_id.encode()]
                if not follow:
                    mine = [record for record in mine if record.offset < ends[at]]
                for commit in await self._with_verdicts(at.partition, mine, wait=follow):
                    yield commit
                if records and records[-1].offset >= ends[at] - 1:
                    left.discard(at)

    async def _partitions(self, thread_id: str | None) -> list[TopicPartition]:
        count = self._settings.partitions
        numbers = range(count) if thread_id is None else (partition_of(thread_id.encode(), count),)
        return [TopicPartition(EVENTS, number) for number in numbers]

    async def _with_verdicts(self, partition: int, records: Sequence[Record], *, wait: bool) -> list[StoredCommit]:
        verdicts = await self._verdicts(partition, [record.offset for record in records])
        looks = 0
        while wait and len(verdicts) < len(records) and looks < _VERDICT_LOOKS:
            looks += 1  # the projector follows the log with a short delay
            await asyncio.sleep(timeouts.EVENTS_COMMAND_VERDICT_POLL_S)
            verdicts = await self._verdicts(partition, [record.offset for record in records])
        return [_commit(record, verdicts.get(record.offset)) for record in records]

    async def _verdicts(self, partition: int, offsets: list[int]) -> Mapping[int, asyncpg.Record]:
        if not offsets or self._database is None:
            return {}
        try:
            with translated("verdicts"):
                rows = await self._database.fetch(_VERDICTS, partition, offsets)
        except Unavailable as error:
            if isinstance(error.__cause__, asyncpg.UndefinedTableError):
                return {}  # not migrated yet: nothing is projected
            raise
        return {row["offset"]: row for row in rows}


def _commit(record: Record, row: asyncpg.Record | None) -> StoredCommit:
    try:
        commit = parse_commit(record.value or b"")
    except Corrupt:
        commit = None
    return StoredCommit(
        record.partition,
        record.offset,
        append_time(record),
        (record.key or b"").decode(errors="replace"),
        commit,
        row["verdict"] if row else "pending",
        row["version"] if row else None,
        row["detail"] if row else None,
    )
