"""Broker in memory: it acknowledges and shows records once they are synced; unsynced records are lost with it."""

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

from tests.simulation.loop import PROCESS
from tests.simulation.network import Network, Server

from agentlog_facts.envelope import Draft, LogPosition, Recorded
from agentlog_facts.errors import Corrupt, OutcomeUnknown, Unavailable
from agentlog_facts.frame import SLOTS, FrameRecord
from agentlog_facts.ids import Key, ThreadId
from agentlog_facts.ports import RawRecord
from agentlog_facts.vocabulary import decode_commit, encode_commit, encode_facts, parse_commit

START = datetime(2026, 1, 2, tzinfo=UTC)
SYNC_S = 0.002
"""The longest time of a sync."""
PRODUCE_S = 1.5
"""The time that a producer waits for an acknowledgement."""
MOST = 20
"""The most records in one answer to a reader."""


@dataclass(frozen=True)
class Stored:
    """A record; `number` is the producer's sequence number, which identifies a repeat."""

    key: bytes
    value: bytes
    number: int
    at: datetime


@dataclass
class Broker:
    """The log. `unsynced` are records that have an offset but are not safe yet."""

    network: Network
    partitions: int
    server: Server = field(default_factory=lambda: Server("broker"))
    records: list[list[Stored]] = field(default_factory=list[list[Stored]])
    unsynced: list[tuple[int, Stored, "asyncio.Future[LogPosition]"]] = field(
        default_factory=lambda: list[tuple[int, Stored, "asyncio.Future[LogPosition]"]]()
    )
    syncing: bool = False
    crash_in_takes: int = 0
    """The broker dies after this number of further records, before their sync; 0: it does not."""
    arrived: "list[asyncio.Event]" = field(default_factory=lambda: list[asyncio.Event]())
    frames: dict[int, int] = field(default_factory=dict[int, int])
    numbers: "count[int]" = field(default_factory=count)

    def __post_init__(self) -> None:
        self.records = [[] for _ in range(self.partitions)]

    def partition_of(self, key: Key) -> int:
        return zlib.crc32(key.encode()) % self.partitions

    def take(self, partition: int, record: Stored, acked: "asyncio.Future[LogPosition]") -> None:
        """Store a record; a repeat of a stored record is acknowledged only."""
        for offset, stored in enumerate(self.records[partition]):
            if stored.number == record.number:
                _settle(acked, LogPosition(partition, offset))
                return
        self.unsynced.append((partition, record, acked))
        if not self.syncing:
            self.syncing = True
            life = self.server.life
            self.network.later(SYNC_S * self.network.chance.random(), lambda: self._sync(life))
        if self.crash_in_takes:
            self.crash_in_takes -= 1
            if self.crash_in_takes == 0:
                self.crash()

    def _sync(self, life: int) -> None:
        if life != self.server.life:
            return
        self.syncing = False
        batch, self.unsynced = self.unsynced, []
        for partition, record, acked in batch:
            self.records[partition].append(record)
            place = LogPosition(partition, len(self.records[partition]) - 1)
            self.network.note("stored", place.partition, place.offset, zlib.crc32(record.value))
            self.network.later(self.network.delay_s(), lambda acked=acked, place=place: self._ack(life, acked, place))  # type: ignore[misc]  # bound now
        for event in self.arrived:
            event.set()

    def _ack(self, life: int, acked: "asyncio.Future[LogPosition]", place: LogPosition) -> None:
        lost = life != self.server.life or self.network.happens(self.network.weather.broken)
        if not lost:
            _settle(acked, place)

    def crash(self) -> None:
        """Crash with the loss of unsynced records, and start again after a while."""
        self.network.note("broker crashes, losing", len(self.unsynced))
        self.network.effects["the broker lost records"] += bool(self.unsynced)
        self.server.up, self.server.life = False, self.server.life + 1
        self.unsynced, self.syncing = [], False
        self.network.later(2 * self.network.chance.random(), self.start)

    def start(self) -> None:
        """Start again."""
        self.server.up = True

    def commits(self) -> list[tuple[LogPosition, Draft]]:
        """Return all stored records."""
        return [
            (LogPosition(partition, offset), _decoded(stored))
            for partition, records in enumerate(self.records)
            for offset, stored in enumerate(records)
        ]


def _settle(acked: "asyncio.Future[LogPosition]", place: LogPosition) -> None:
    if not acked.done():
        acked.set_result(place)


def _decoded(stored: Stored) -> Draft:
    return decode_commit(stored.key.decode(), parse_commit(stored.value))


def _away(message: str) -> Exception:
    return Unavailable(message)


class SimLog:
    """Implements `ports.EventLog` over the broker, as the producer of one process."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def partition_of(self, key: Key) -> int:
        return self._broker.partition_of(key)

    async def append(self, draft: Draft) -> LogPosition:
        broker, network = self._broker, self._broker.network
        if not broker.server.up or network.over:
            raise Unavailable("the broker is away")
        value = encode_commit(draft, encode_facts(draft))
        partition = broker.partition_of(draft.key)
        acked: asyncio.Future[LogPosition] = network.loop.create_future()
        numbers = [next(broker.numbers)]
        if network.happens(network.weather.doubled):
            numbers.append(next(broker.numbers))  # a producer that was replaced, but whose batch arrives all the same
        deaf = network.happens(2 * network.weather.broken)  # the producer is replaced before it gets this answer
        for number in numbers:
            heard: asyncio.Future[LogPosition] = network.loop.create_future() if deaf else acked
            self._send(partition, draft.key.encode(), value, number, heard)
        try:
            async with asyncio.timeout(PRODUCE_S):
                return await acked
        except TimeoutError as error:
            raise OutcomeUnknown("no acknowledgement") from error

    def _send(
        self, partition: int, key: bytes, value: bytes, number: int, acked: "asyncio.Future[LogPosition]"
    ) -> None:
        """Send, and repeat while there is no answer; the last repeat may arrive long after the writer gave up."""
        broker, network, process = self._broker, self._broker.network, PROCESS.get()
        sent_at = network.loop.time()

        def arrive() -> None:
            if broker.server.up and not network.cut(process, broker.server):
                stamp = START + timedelta(seconds=network.loop.time())
                broker.take(partition, Stored(key, value, number, stamp), acked)
            again()

        def again() -> None:
            if not acked.done() and network.loop.time() - sent_at < PRODUCE_S and not network.over:
                network.later(0.3 + network.delay_s(), arrive)

        network.later(network.delay_s(), arrive)

    async def read(self, place: LogPosition) -> Recorded:
        def stored() -> Stored:
            records = self._broker.records[place.partition]
            if place.offset >= len(records):
                raise Corrupt(f"no record at {place}")
            return records[place.offset]

        found = await self._broker.network.call(self._broker.server, stored, _away)
        return Recorded(place, _decoded(found), found.at)


class SimTail:
    """Implements `ports.EventTail`: the consumer of one process, which may get records again."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._positions: dict[int, int] = {}
        self._arrived = asyncio.Event()
        broker.arrived.append(self._arrived)

    def seek(self, partition: int, offset: int) -> None:
        self._positions[partition] = offset
        self._arrived.set()

    def drop(self, partition: int) -> None:
        self._positions.pop(partition, None)

    async def poll(self, max_records: int, patience: timedelta) -> Sequence[RawRecord]:
        found = await self._fetch(max_records)
        if not found:
            try:
                async with asyncio.timeout(patience.total_seconds()):
                    await self._arrived.wait()
            except TimeoutError:
                return []
            found = await self._fetch(max_records)
        return found

    async def _fetch(self, most: int) -> list[RawRecord]:
        self._arrived.clear()
        network = self._broker.network
        found = await network.call(self._broker.server, lambda: self._at_the_broker(min(most, MOST)), _away)
        for raw in found:
            if raw.place.offset == self._positions.get(raw.place.partition):
                self._positions[raw.place.partition] = raw.place.offset + 1
        return found

    def _at_the_broker(self, most: int) -> list[RawRecord]:
        network, found = self._broker.network, list[RawRecord]()
        for partition, position in self._positions.items():
            start = max(0, position - 2) if network.happens(network.weather.doubled) else position
            end = start + 1 + int(network.chance.random() * most)
            for offset, stored in enumerate(self._broker.records[partition][start:end], start):
                found.append(RawRecord(LogPosition(partition, offset), stored.key, stored.value, stored.at))
        return found

    async def ends(self) -> Mapping[int, int]:
        broker = self._broker
        return await broker.network.call(
            broker.server, lambda: {number: len(records) for number, records in enumerate(broker.records)}, _away
        )

    async def resolve(self, raw: RawRecord) -> Draft:
        return decode_commit((raw.key or b"").decode(), parse_commit(raw.value or b""))


class SimFrames:
    """Implements `ports.FrameLog`: it counts frames, which have no reader here."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def append(self, thread_id: ThreadId, record: FrameRecord) -> int:
        frames, partition = self._broker.frames, self._broker.partition_of(Key(thread_id))

        def stored() -> int:
            frames[partition] = frames.get(partition, 0) + 1
            return frames[partition] * SLOTS

        return await self._broker.network.call(self._broker.server, stored, _away)

    async def end(self, thread_id: ThreadId) -> int:
        frames, partition = self._broker.frames, self._broker.partition_of(Key(thread_id))
        return await self._broker.network.call(self._broker.server, lambda: frames.get(partition, 0) * SLOTS, _away)
