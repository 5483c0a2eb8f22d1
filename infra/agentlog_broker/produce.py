"""Produce requests: batches are checked, get offsets, wait for the disk, and are acknowledged once they are on it.

The code uses `struct` directly, because every append passes here. acks 0 and 1 wait for the disk like acks all; with
acks 0 the protocol has no response.
"""

import struct
from time import time

from .batches import Batch, check, place, read_header, stamp
from .catalog import Catalog, Topic
from .errors import Code, MalformedRequest, StorageFailed
from .partitions import Partition
from .requests import Request
from .store import NewBatch, Store
from .wal import Append

_TOPICS = struct.Struct(">hii")  # acks, time-out, count
_PART = struct.Struct(">ii")  # partition, size of the records
_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_OLD = struct.Struct(">ihqq")
_NEW = struct.Struct(">ihqqq")


class Outcome:
    """Response for one partition."""

    __slots__ = ("base", "code", "index", "partition", "time_ms")

    def __init__(self, index: int) -> None:
        self.index = index
        self.partition: Partition | None = None
        self.code = Code.NONE
        self.base = -1
        self.time_ms = -1


class Producing:
    """Handler of Produce requests."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._catalog: Catalog = store.catalog

    def handle(self, request: Request) -> None:
        """Queue the batches of a request; the response follows when all of them are on disk."""
        try:
            _Call(self._store, request).start()
        except struct.error as error:
            raise MalformedRequest(str(error)) from error


class _Call:
    """One Produce request."""

    __slots__ = ("_acks", "_outcomes", "_request", "_store")

    def __init__(self, store: Store, request: Request) -> None:
        self._store = store
        self._request = request
        self._outcomes: list[tuple[bytes, list[Outcome]]] = []
        self._acks = -1

    def start(self) -> None:
        """Read the request and queue its valid batches; send the response at once if there are none."""
        batches = self._read()
        waits_for_disk = batches or any(
            out.partition is not None and out.code == 0 and out.base >= out.partition.high
            for _, outs in self._outcomes
            for out in outs
        )
        if waits_for_disk:
            # A repeat of a batch that is still queued waits for it: an append without frames keeps the order.
            self._store.append(batches, self._finish)
        else:
            self._answer()

    def _read(self) -> list[NewBatch]:
        request, batches = self._request, list[NewBatch]()
        data, pos, end = request.data, request.pos, request.end
        (size,) = _I16.unpack_from(data, pos)
        transactional = size >= 0
        pos += 2 + max(size, 0)
        self._acks, _, topics = _TOPICS.unpack_from(data, pos)
        pos += 10
        view = memoryview(data)
        for _ in range(topics):
            (size,) = _I16.unpack_from(data, pos)
            name = data[pos + 2 : pos + 2 + size]
            pos += 2 + size
            topic = self._store.catalog.by_wire_name.get(name)
            (count,) = _I32.unpack_from(data, pos)
            pos += 4
            outcomes: list[Outcome] = []
            self._outcomes.append((name, outcomes))
            for _ in range(count):
                index, size = _PART.unpack_from(data, pos)
                pos += 8
                if size < 0 or pos + size > end:
                    raise MalformedRequest(f"records of {size} bytes, {end - pos} left")
                outcome = Outcome(index)
                outcomes.append(outcome)
                if transactional:
                    outcome.code = Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
                else:
                    self._accept(topic, outcome, view[pos : pos + size], batches)
                pos += size
        return batches

    def _accept(self, topic: Topic | None, outcome: Outcome, data: memoryview, batches: list[NewBatch]) -> None:
        if topic is None or not 0 <= outcome.index < len(topic.partitions):
            outcome.code = Code.UNKNOWN_TOPIC_OR_PARTITION
            return
        partition = outcome.partition = topic.partitions[outcome.index]
        if self._store.read_only is not None:
            outcome.code = Code.KAFKA_STORAGE_ERROR
            return
        if len(data) < 61:
            outcome.code = Code.CORRUPT_MESSAGE
            return
        batch = read_header(data)
        outcome.code = check(batch, data, topic.max_message_bytes)
        if outcome.code == 0 and batch.producer_id >= 0:
            outcome.code, outcome.base = partition.producers.judge(
                batch.producer_id, batch.producer_epoch, batch.base_sequence, batch.records
            )
        if outcome.code == 0 and outcome.base < 0:
            batches.append(self._place(topic, partition, outcome, batch, data))

    @staticmethod
    def _place(topic: Topic, partition: Partition, outcome: Outcome, batch: Batch, data: memoryview) -> NewBatch:
        base = outcome.base = partition.next
        last = base + batch.last_delta
        partition.next = last + 1
        if batch.producer_id >= 0:
            partition.producers.note(batch.producer_id, batch.producer_epoch, batch.base_sequence, batch.records, base)
        if not topic.log_append_time:
            return NewBatch(partition, base, last, batch.max_ms, place(batch, data, base))
        outcome.time_ms = int(time() * 1000)
        return NewBatch(partition, base, last, outcome.time_ms, stamp(batch, data, base, outcome.time_ms))

    def _finish(self, _: Append, failure: StorageFailed | None) -> None:
        if failure is not None:
            for _name, outcomes in self._outcomes:
                for outcome in outcomes:
                    if outcome.code == 0:
                        outcome.code, outcome.base, outcome.time_ms = Code.KAFKA_STORAGE_ERROR, -1, -1
        self._answer()

    def _answer(self) -> None:
        if self._acks == 0:
            self._request.reply(None)
            return
        has_start = self._request.version >= 5
        out = [_I32.pack(len(self._outcomes))]
        for name, outcomes in self._outcomes:
            out += (_I16.pack(len(name)), name, _I32.pack(len(outcomes)))
            for each in outcomes:
                if has_start:
                    start = each.partition.start if each.partition is not None else -1
                    out.append(_NEW.pack(each.index, each.code, each.base, each.time_ms, start))
                else:
                    out.append(_OLD.pack(each.index, each.code, each.base, each.time_ms))
        out.append(b"\0\0\0\0")
        self._request.reply(b"".join(out))
