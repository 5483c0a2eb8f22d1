"""Handlers for topics: metadata, creation, growth and deletion, deletion of records, offsets by time."""

import asyncio
import re
from collections.abc import Awaitable, Callable

from .catalog import Topic
from .config_rules import check_configs
from .errors import Code, Damaged, Refused, StorageFailed
from .partitions import Partition
from .records import first_at_or_after
from .requests import Request
from .settings import BrokerSettings
from .store import Store
from .wire import Reader, Writer

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_LATEST, _EARLIEST = -1, -2


class TopicAdmin:
    """Handler of Metadata, CreateTopics, DeleteTopics, CreatePartitions, DeleteRecords and ListOffsets requests."""

    def __init__(self, store: Store, settings: BrokerSettings) -> None:
        self._store = store
        self._settings = settings
        self._catalog = store.catalog
        self._lock = asyncio.Lock()  # keeps a check and the change that follows it together
        self.address = (settings.host, settings.port)

    # -- metadata

    async def metadata(self, request: Request) -> bytes:
        """Return the topics, with this server as the leader of every partition."""
        reader, version = request.reader(), request.version
        names = reader.nullable_array(reader.string)
        may_create = reader.boolean() if version >= 4 else True
        if names is None or (version == 0 and not names):
            names = list(self._catalog.topics)
        codes = [await self._exists(name, may_create) for name in names]
        out = Writer()
        if version >= 3:
            out.i32(0)
        self._write_brokers(out, version)
        out.array(list(zip(names, codes, strict=True)), lambda item: self._write_topic(out, version, *item))
        return out.done()

    async def _exists(self, name: str, may_create: bool) -> int:
        if name in self._catalog.topics:
            return Code.NONE
        if not (may_create and self._settings.auto_create_topics):
            return Code.UNKNOWN_TOPIC_OR_PARTITION
        return (await self._granted(lambda: self._create(name, -1, 1, {}, False)))[0]

    def _write_brokers(self, out: Writer, version: int) -> None:
        host, port = self.address
        out.i32(1).i32(self._settings.node_id).string(host).i32(port)
        if version >= 1:
            out.string(None)
        if version >= 2:
            out.string(self._catalog.cluster_id)
        if version >= 1:
            out.i32(self._settings.node_id)

    def _write_topic(self, out: Writer, version: int, name: str, code: int) -> None:
        topic = self._catalog.topics.get(name)
        out.i16(code).string(name)
        if version >= 1:
            out.boolean(False)
        node = [self._settings.node_id]

        def write(partition: Partition) -> None:
            out.i16(Code.NONE).i32(partition.index).i32(node[0]).i32s(node).i32s(node)
            if version >= 5:
                out.i32s([])

        out.array(topic.partitions if topic is not None and code == 0 else [], write)

    # -- changes

    async def _granted(self, change: Callable[[], Awaitable[None]]) -> tuple[int, str | None]:
        """Run a change under the lock; return its error code and message."""
        try:
            async with self._lock:
                await change()
        except Refused as refused:
            return refused.code, refused.message
        except StorageFailed as failure:
            return Code.KAFKA_STORAGE_ERROR, str(failure)
        return Code.NONE, None

    async def create_topics(self, request: Request) -> bytes:
        """Create topics with their settings."""
        reader, version = request.reader(), request.version

        def read() -> tuple[str, int, int, int, dict[str, str | None]]:
            name, partitions, replicas = reader.string(), reader.i32(), reader.i16()
            assigned = len(reader.array(lambda: (reader.i32(), reader.array(reader.i32))))
            return name, partitions, replicas, assigned, dict(reader.array(lambda: _entry(reader)))

        wanted = reader.array(read)
        reader.i32()
        dry = reader.boolean() if version >= 1 else False
        results: list[tuple[str, int, str | None]] = []
        for name, partitions, replicas, assigned, configs in wanted:
            count, copies = (assigned, 1) if assigned else (partitions, replicas)
            results.append((name, *await self._granted(lambda: self._create(name, count, copies, configs, dry))))  # noqa: B023
        return self._results(request, results, throttle_from=2, message_from=1)

    async def _create(self, name: str, count: int, replicas: int, configs: dict[str, str | None], dry: bool) -> None:
        if not _NAME.fullmatch(name) or name in (".", ".."):
            raise Refused(Code.INVALID_TOPIC, f"{name!r}: letters, digits, '.', '_' and '-', at most 249")
        if name in self._catalog.topics:
            raise Refused(Code.TOPIC_ALREADY_EXISTS, f"{name}: the topic exists")
        if replicas not in (1, -1):
            raise Refused(
                Code.INVALID_REPLICATION_FACTOR, f"{name}: {replicas} replicas wanted, this server is one node"
            )
        count = self._settings.partitions_default if count == -1 else count
        self._check_count(name, count)
        accepted = check_configs(name, configs, self._settings)
        if not dry:
            uids = self._uids(count)
            await self._store.journal({"op": "topic_created", "name": name, "uids": uids, "configs": accepted})

    def _check_count(self, name: str, count: int) -> None:
        most = self._settings.partitions_per_topic_max
        if not 1 <= count <= most:
            raise Refused(Code.INVALID_PARTITIONS, f"{name}: {count} partitions wanted, 1 to {most} possible")

    def _uids(self, count: int) -> list[int]:
        return list(range(self._catalog.next_uid, self._catalog.next_uid + count))

    async def create_partitions(self, request: Request) -> bytes:
        """Add partitions to topics."""
        reader = request.reader()

        def read() -> tuple[str, int]:
            name, count = reader.string(), reader.i32()
            reader.nullable_array(lambda: reader.array(reader.i32))
            return name, count

        wanted = reader.array(read)
        reader.i32()
        dry = reader.boolean()
        results = [(name, *await self._granted(lambda: self._grow(name, count, dry))) for name, count in wanted]  # noqa: B023
        return self._results(request, results, throttle_from=0, message_from=0)

    async def _grow(self, name: str, count: int, dry: bool) -> None:
        topic = self._topic(name)
        if self._settings.keeps_whole(name):
            raise Refused(Code.POLICY_VIOLATION, f"{name}: its number of partitions is fixed")
        self._check_count(name, count)
        if count <= len(topic.partitions):
            raise Refused(Code.INVALID_PARTITIONS, f"{name}: has {len(topic.partitions)} partitions already")
        if not dry:
            uids = self._uids(count - len(topic.partitions))
            await self._store.journal({"op": "partitions_added", "name": name, "uids": uids, "configs": {}})

    async def delete_topics(self, request: Request) -> bytes:
        """Delete topics with their records."""
        reader = request.reader()
        names = reader.array(reader.string)
        results = [(name, *await self._granted(lambda: self._delete(name))) for name in names]  # noqa: B023
        return self._results(request, results, throttle_from=1, message_from=None)

    async def _delete(self, name: str) -> None:
        if self._settings.keeps_whole(name):
            raise Refused(Code.TOPIC_DELETION_DISABLED, f"{name}: this server does not delete it")
        await self._store.delete_topic(self._topic(name))

    def _topic(self, name: str) -> Topic:
        topic = self._catalog.topics.get(name)
        if topic is None:
            raise Refused(Code.UNKNOWN_TOPIC_OR_PARTITION, f"{name}: no such topic")
        return topic

    @staticmethod
    def _results(
        request: Request, results: list[tuple[str, int, str | None]], *, throttle_from: int, message_from: int | None
    ) -> bytes:
        out = Writer()
        if request.version >= throttle_from:
            out.i32(0)

        def write(result: tuple[str, int, str | None]) -> None:
            name, code, message = result
            out.string(name).i16(code)
            if message_from is not None and request.version >= message_from:
                out.string(message)

        return out.array(results, write).done()

    async def delete_records(self, request: Request) -> bytes:
        """Move the start of partitions forward; whole segments below it are freed."""
        reader = request.reader()
        wanted = reader.array(lambda: (reader.string(), reader.array(lambda: (reader.i32(), reader.i64()))))
        out = Writer().i32(0).i32(len(wanted))
        for name, parts in wanted:
            out.string(name).i32(len(parts))
            for index, offset in parts:
                partition = self._catalog.partition(name, index)
                code, _ = await self._granted(lambda: self._move_start(name, partition, offset))  # noqa: B023
                out.i32(index).i64(partition.start if partition is not None and code == 0 else -1).i16(code)
        return out.done()

    async def _move_start(self, name: str, partition: Partition | None, offset: int) -> None:
        if self._settings.keeps_whole(name):
            raise Refused(Code.POLICY_VIOLATION, f"{name}: this server deletes none of its records")
        if partition is None:
            raise Refused(Code.UNKNOWN_TOPIC_OR_PARTITION, "no such partition")
        target = partition.high if offset == -1 else offset
        if not 0 <= target <= partition.high:
            raise Refused(Code.OFFSET_OUT_OF_RANGE, f"offset {target} wanted, the log ends at {partition.high}")
        if target > partition.start:
            await self._store.journal({"op": "start_moved", "starts": [(partition.uid, target)]})
            self._store.partition_starts_moved()

    # -- offsets by time

    async def list_offsets(self, request: Request) -> bytes:
        """Return the first or the next offset, or the first offset at or after a time."""
        reader, version = request.reader(), request.version
        reader.i32()
        if version >= 2:
            reader.i8()
        wanted = reader.array(lambda: (reader.string(), reader.array(lambda: (reader.i32(), reader.i64()))))
        out = Writer()
        if version >= 2:
            out.i32(0)
        out.i32(len(wanted))
        for name, parts in wanted:
            out.string(name).i32(len(parts))
            for index, time_ms in parts:
                code, found_ms, offset = await self._offset(self._catalog.partition(name, index), time_ms)
                out.i32(index).i16(code).i64(found_ms).i64(offset)
        return out.done()

    async def _offset(self, partition: Partition | None, time_ms: int) -> tuple[int, int, int]:
        if partition is None:
            return Code.UNKNOWN_TOPIC_OR_PARTITION, -1, -1
        if time_ms == _LATEST:
            return Code.NONE, -1, partition.high
        if time_ms == _EARLIEST:
            return Code.NONE, -1, partition.start
        if time_ms < 0:
            return Code.INVALID_REQUEST, -1, -1
        try:
            batch = await self._store.batch_at_or_after(partition, time_ms)
        except (Damaged, OSError):
            return Code.KAFKA_STORAGE_ERROR, -1, -1
        found = first_at_or_after(batch, time_ms, partition.start) if batch is not None else None
        return (Code.NONE, found[1], found[0]) if found is not None else (Code.NONE, -1, -1)


def _entry(reader: Reader) -> tuple[str, str | None]:
    return reader.string(), reader.nullable_string()
