"""Fetch requests: a response at once if there is something to read, else after an append (no polling).

The code uses `struct` directly, because every read passes here. A response never goes beyond the high watermark.
"""

import asyncio
import logging
import struct

from .errors import Code, Damaged, MalformedRequest
from .partitions import Partition
from .requests import Request
from .store import Store

log = logging.getLogger("agentlog_broker")

_WANTS = struct.Struct(">iiiib")  # replica, maximal wait (ms), minimal bytes, maximal bytes, isolation
_SESSION = struct.Struct(">ii")
_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_ASK_4 = struct.Struct(">iqi")  # partition, offset, maximal bytes
_ASK_5 = struct.Struct(">iqqi")  # partition, offset, start of the follower's log, maximal bytes
_ASK_9 = struct.Struct(">iiqqi")  # the same after the leader epoch
_PART_4 = struct.Struct(">ihqqii")  # partition, error, high, stable, aborted, size
_PART_5 = struct.Struct(">ihqqqii")  # with the log's start
_PART_11 = struct.Struct(">ihqqqiii")  # with the preferred replica
_ERROR_PAUSE_S = 0.25


Ask = tuple[int, Partition | None, int, int]
"""Request for one partition: its number, the partition or None, the offset, the maximal number of bytes."""


class Fetching:
    """Handler of Fetch requests."""

    def __init__(self, store: Store, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes

    def handle(self, request: Request) -> None:
        """Send the response now, or when there is something to read."""
        try:
            _Call(self._store, request, self._max_bytes).start()
        except struct.error as error:
            raise MalformedRequest(str(error)) from error


class _Call:
    """One Fetch request."""

    __slots__ = ("_asks", "_max_bytes", "_min_bytes", "_request", "_store", "_task", "_timer", "_wait_s")

    def __init__(self, store: Store, request: Request, max_bytes: int) -> None:
        self._store = store
        self._request = request
        self._max_bytes = max_bytes
        self._min_bytes = 1
        self._wait_s = 0.0
        self._asks: list[tuple[bytes, list[Ask]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Read the request; send the response, or wait for one of its partitions."""
        if not self._read():
            self._request.reply(struct.pack(">ihii", 0, Code.FETCH_SESSION_ID_NOT_FOUND, 0, 0))
            return
        if not self._ready() and self._wait_s > 0:
            self._timer = asyncio.get_running_loop().call_later(self._wait_s, self._finish)
            for partition in self._partitions():
                partition.waiters.add(self._on_change)
        else:
            self._finish()

    def _read(self) -> bool:
        """Read the request; return False if it belongs to an incremental session, which this server does not keep."""
        request, version = self._request, self._request.version
        data, pos = request.data, request.pos
        _, wait_ms, self._min_bytes, max_bytes, _ = _WANTS.unpack_from(data, pos)
        self._max_bytes = min(self._max_bytes, max_bytes)
        self._wait_s = wait_ms / 1000
        pos += 17
        if version >= 7:
            _, epoch = _SESSION.unpack_from(data, pos)
            pos += 8
            if epoch > 0:
                return False
        ask = _ASK_4 if version == 4 else _ASK_5 if version < 9 else _ASK_9
        at = 1 if version < 9 else 2
        by_name = self._store.catalog.by_wire_name
        (topics,) = _I32.unpack_from(data, pos)
        pos += 4
        for _ in range(topics):
            (size,) = _I16.unpack_from(data, pos)
            name = data[pos + 2 : pos + 2 + size]
            pos += 2 + size
            (count,) = _I32.unpack_from(data, pos)
            pos += 4
            topic = by_name.get(name)
            partitions: list[Partition] = topic.partitions if topic is not None else []
            known = len(partitions)
            asks: list[Ask] = []
            end = pos + count * ask.size
            if count < 0 or end > request.end:
                raise MalformedRequest(f"{count} partitions in {request.end - pos} bytes")
            for fields in ask.iter_unpack(data[pos:end]):
                number: int = fields[0]
                asks.append((number, partitions[number] if 0 <= number < known else None, fields[at], fields[-1]))
            self._asks.append((name, asks))
            pos = end
        return True

    def _partitions(self) -> list[Partition]:
        return [ask[1] for _, asks in self._asks for ask in asks if ask[1] is not None]

    def _ready(self) -> bool:
        """Return whether there is enough to read, or an error to report."""
        size = 0
        for _, asks in self._asks:
            for _, partition, offset, _ in asks:
                if partition is None or not partition.start <= offset <= partition.high:
                    return True
                if offset < partition.high:
                    if self._min_bytes <= 1:
                        return True
                    size += _available(partition, offset, self._min_bytes)
        return size >= self._min_bytes

    def _on_change(self) -> None:
        """Send the response if a partition now has enough to read, or was deleted."""
        if self._timer is not None and (self._ready() or any(each.gone for each in self._partitions())):
            self._finish()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            for partition in self._partitions():
                partition.waiters.discard(self._on_change)
        in_segments = [ask for _, asks in self._asks for ask in asks if _is_in_segments(ask)]
        if in_segments:
            self._task = asyncio.ensure_future(self._read_segments(in_segments))
        else:
            self._answer({})

    async def _read_segments(self, asks: list[Ask]) -> None:
        """Read from segments, in a thread, then send the response."""
        found, room = dict[Ask, bytes | None](), self._max_bytes
        for ask in asks:
            _, partition, offset, most = ask
            if room > 0 and partition is not None:
                try:
                    data = await self._store.read(partition, offset, min(most, room))
                except (Damaged, OSError) as error:
                    log.error("storage.read_failed", extra={"error": str(error)})
                    found[ask] = None
                else:
                    found[ask] = data
                    room -= len(data)
        self._answer(found)

    def _answer(self, found: dict[Ask, bytes | None]) -> None:
        version = self._request.version
        out: list[bytes] = [b"\0\0\0\0" if version < 7 else bytes(10), _I32.pack(len(self._asks))]
        room, failed = self._max_bytes, False
        for name, asks in self._asks:
            out += (_I16.pack(len(name)), name, _I32.pack(len(asks)))
            for ask in asks:
                partition = ask[1]
                if partition is not None and ask[2] == partition.high and not partition.gone:
                    out.append(_part(version, ask[0], partition, Code.NONE, 0))
                    continue
                code, data = self._records(ask, room, found)
                failed |= code == Code.KAFKA_STORAGE_ERROR
                room -= len(data)
                out.append(_part(version, ask[0], partition, code, len(data)))
                out.append(data)
        body = b"".join(out)
        if failed:  # the client asks again at once: slow it down
            asyncio.get_running_loop().call_later(_ERROR_PAUSE_S, self._request.reply, body)
        else:
            self._request.reply(body)

    def _records(self, ask: Ask, room: int, found: dict[Ask, bytes | None]) -> tuple[int, bytes]:
        """Return (error code, batches) for one partition within the room that is left."""
        _, partition, offset, most = ask
        if partition is None or partition.gone:
            return Code.UNKNOWN_TOPIC_OR_PARTITION, b""
        if not partition.start <= offset < partition.high:  # the offset may have expired during the read
            return (Code.NONE if offset == partition.high else Code.OFFSET_OUT_OF_RANGE), b""
        if ask in found:
            data = found[ask]
            return (Code.NONE, data) if data is not None else (Code.KAFKA_STORAGE_ERROR, b"")
        if room <= 0 or not Store.in_tail(partition, offset):
            return Code.NONE, b""
        try:
            data = self._store.read_tail(partition, offset, min(most, room))
        except (Damaged, OSError) as error:
            log.error("storage.read_failed", extra={"error": str(error)})
            return Code.KAFKA_STORAGE_ERROR, b""
        # Only the first partition may exceed the limit, by one batch of any size, so that each reader makes progress.
        return Code.NONE, data if len(data) <= room or room == self._max_bytes else b""


def _is_in_segments(ask: Ask) -> bool:
    partition = ask[1]
    return partition is not None and partition.start <= ask[2] < partition.cut_next and not partition.gone


def _available(partition: Partition, offset: int, enough: int) -> int:
    """Return the number of bytes from an offset on, or `enough` if they are in segments."""
    if not Store.in_tail(partition, offset):
        return enough
    return sum(partition.tail.sizes[partition.tail.find(offset) :])


def _part(version: int, number: int, partition: Partition | None, code: int, size: int) -> bytes:
    high, start = (partition.high, partition.start) if partition is not None else (-1, -1)
    if version >= 11:
        return _PART_11.pack(number, code, high, high, start, -1, -1, size)
    if version >= 5:
        return _PART_5.pack(number, code, high, high, start, -1, size)
    return _PART_4.pack(number, code, high, high, -1, size)
