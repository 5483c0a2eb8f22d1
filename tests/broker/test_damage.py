"""Damage: a torn tail is cut; any other changed bit stops the start or the read, with file and byte."""

import contextlib
import json
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from tests.broker.servers import (
    BrokerProcess,
    admin,
    launch,
    make_topic,
    producer,
    read_all,
    serving,
    until,
)

from agentlog_broker.batches import HEADER
from agentlog_broker.catalog import Catalog, pack
from agentlog_broker.disk import Disk
from agentlog_broker.errors import Damaged
from agentlog_broker.frames import (
    FILE_HEADER_BYTES,
    FRAME_HEADER_BYTES,
    JOURNAL,
    MARK,
    FileHeader,
    file_name,
    pack_file_header,
    pack_frame,
    scan,
)
from agentlog_broker.recovery import recover
from agentlog_broker.segments import Segment, SegmentIndex, Stored, extend
from agentlog_broker.settings import BrokerSettings

SMALL_FILES = ("--wal-file-bytes", "65536")
RECORDS = 100
"""Records of `write_segments`: more than one of the small files holds."""


def batch(base: int, count: int = 1, fill: bytes = b"r") -> bytes:
    """Return bytes in the form of a batch; recovery reads the header only."""
    body = fill * 20 * count
    return HEADER.pack(base, 49 + len(body), 0, 2, 0, 0, count - 1, 1000, 1000 + base, -1, -1, -1, count) + body


class Writer:
    """Builder of a write-ahead file as the server writes it, round by round."""

    def __init__(self, sequence: int = 1, previous_end: int = 0, chain: int = 0) -> None:
        self.sequence = sequence
        self.data = pack_file_header(FileHeader(sequence, previous_end, chain))
        self.chain = chain
        self.starts: list[int] = []

    def round(self, *frames: tuple[int, bytes]) -> None:
        durable = len(self.data)
        for target, payload in frames:
            self.starts.append(len(self.data))
            header, self.chain = pack_frame(self.sequence, target, durable, self.chain, payload)
            self.data += header + payload


def three_rounds() -> Writer:
    writer = Writer()
    topic = pack({"op": "topic_created", "name": "t", "uids": [1, 2], "configs": {}})
    writer.round((JOURNAL, topic))
    writer.round((1, batch(0)), (2, batch(0, 3)))
    writer.round((1, batch(1, 2)))
    return writer


def recovered(directory: Path, data: bytes) -> list[int]:
    """Recover a directory with one write-ahead file; return the ends of its partitions."""
    directory.mkdir(exist_ok=True)
    (directory / file_name(1)).write_bytes(data + bytes(200))
    catalog = Catalog(10, 1000)
    recover(directory, catalog)
    return [catalog.partitions[uid].high for uid in sorted(catalog.partitions)]


def flips(size_bytes: int, full: bool) -> Iterator[tuple[int, int]]:
    """Return every byte with each of its bits, or with one bit each unless the run is full."""
    return ((byte, bit) for byte in range(size_bytes) for bit in (range(8) if full else (byte % 8,)))


def flipped(sound: bytes, position: int, bit: int = 0) -> bytes:
    """Return a copy in which one bit is changed."""
    data = bytearray(sound)
    data[position] ^= 1 << bit
    return bytes(data)


def test_a_record_torn_at_any_byte_is_cut_and_the_rest_is_kept(tmp_path: Path) -> None:
    writer = three_rounds()
    last = writer.starts[-1]
    assert recovered(tmp_path, writer.data) == [3, 3]
    for end in range(last, len(writer.data)):
        assert recovered(tmp_path, writer.data[:end]) == [1, 3], f"torn at byte {end}"
        garbage = random.Random(end).randbytes(len(writer.data) - end)
        assert recovered(tmp_path, writer.data[:end] + garbage) == [1, 3], f"garbage from byte {end}"


def test_a_round_whose_first_frame_is_missing_is_cut_as_a_whole(tmp_path: Path) -> None:
    writer = three_rounds()
    first = writer.starts[1]  # the disk wrote the second frame of the round and not the first: nothing was acknowledged
    torn = writer.data[:first] + bytes(40) + writer.data[first + 40 : writer.starts[3]]
    assert recovered(tmp_path, torn) == [0, 0]


def test_every_flipped_bit_of_an_acknowledged_record_stops_the_start(tmp_path: Path, full: bool) -> None:
    writer = three_rounds()
    writer.round((MARK, b""))
    for position, bit in flips(writer.starts[-1], full):
        with pytest.raises(Damaged) as damaged:
            recovered(tmp_path, flipped(writer.data, position, bit))
        assert damaged.value.path.name == file_name(1)
        frame = max((start for start in writer.starts if start <= position), default=0)
        assert damaged.value.offset == frame, f"bit {bit} of byte {position}"


def test_a_flipped_bit_in_a_file_that_has_a_successor_stops_the_start(tmp_path: Path) -> None:
    first = three_rounds()
    second = Writer(2, len(first.data), first.chain)
    (tmp_path / file_name(2)).write_bytes(second.data + bytes(100))
    assert recovered(tmp_path, first.data) == [3, 3]
    with pytest.raises(Damaged, match=r"wal-0000000001.log: damaged at byte \d+"):
        recovered(tmp_path, flipped(first.data, -1))


def test_leftovers_of_a_failed_write_never_come_back(tmp_path: Path) -> None:
    kept = three_rounds()
    failed = three_rounds()
    failed.round((1, batch(3, fill=b"f")), (1, batch(4, fill=b"f")))
    kept.round((1, batch(3, fill=b"k")))  # written over the first half of it after the restart
    data = kept.data + failed.data[len(kept.data) :]
    assert recovered(tmp_path, data) == [4, 3]


def test_a_missing_file_stops_the_start(tmp_path: Path) -> None:
    first = three_rounds()
    (tmp_path / file_name(3)).write_bytes(Writer(3, 0, 0).data + bytes(100))
    with pytest.raises(Damaged, match=r"wal-0000000002.log: .*missing"):
        recovered(tmp_path, first.data)


def test_frames_say_which_partition_they_belong_to(tmp_path: Path) -> None:
    path = tmp_path / file_name(1)
    frames = list(scan(path, memoryview(three_rounds().data), None))
    assert [frame.target for frame in frames] == [JOURNAL, 1, 2, 1]
    assert frames[0].position == FILE_HEADER_BYTES + FRAME_HEADER_BYTES


def test_every_flipped_bit_of_a_segment_is_found_by_its_reader(tmp_path: Path, full: bool) -> None:
    batches = [batch(0), batch(1, 2), batch(3)]
    stored = [Stored(0, 0, 1000, memoryview(batches[0])), Stored(1, 2, 1001, memoryview(batches[1]))]
    segment = extend(Segment(tmp_path, 7, 0, 0, 0, 0, 0), stored, Disk())
    segment = extend(segment, [Stored(3, 3, 1003, memoryview(batches[2]))], Disk())
    assert SegmentIndex(segment).read(0, 1 << 20) == b"".join(batches)
    assert_right_or_refused(segment, batches)
    SegmentIndex(segment).verify()
    for path in (segment.log_path, segment.index_path):
        sound = path.read_bytes()
        for position, bit in flips(len(sound), full):
            path.write_bytes(flipped(sound, position, bit))
            with pytest.raises(Damaged):
                SegmentIndex(segment).verify()
            assert_right_or_refused(segment, batches)
        path.write_bytes(sound)


def assert_right_or_refused(segment: Segment, batches: list[bytes]) -> None:
    """Read every offset and time: the result is the right batch, or none at all."""
    for offset, holder in enumerate([0, 1, 1, 2]):
        with contextlib.suppress(Damaged):
            index = SegmentIndex(segment)
            assert index.read(index.find(offset), 1) == batches[holder]
    for time_ms, holder in ((1, 0), (1000, 0), (1001, 1), (1003, 2)):
        with contextlib.suppress(Damaged):
            index = SegmentIndex(segment)
            number = index.at_or_after(time_ms)
            assert number is not None
            assert index.read(number, 1) == batches[holder]


async def test_every_flipped_bit_of_the_manifest_stops_the_start(
    start_broker: Callable[..., BrokerProcess], full: bool
) -> None:
    broker = start_broker(*SMALL_FILES)
    async with producer(broker.bootstrap) as client:
        topic = await write_segments(broker, client)
    assert broker.stop() == 0
    path = broker.data_dir / "manifest.json"
    sound = path.read_bytes()
    for position, bit in flips(len(sound), full):
        path.write_bytes(flipped(sound, position, bit))
        with pytest.raises(Damaged, match=r"manifest\.json"):
            recover(broker.data_dir, Catalog(10, 1000))
    path.write_bytes(sound)
    broker.start()
    assert len(await read_all(broker.bootstrap, topic)) == RECORDS


async def test_a_damaged_log_is_refused_by_the_server_with_file_and_byte(
    start_broker: Callable[..., BrokerProcess],
) -> None:
    broker = start_broker()
    topic = await make_topic(broker.bootstrap)
    async with producer(broker.bootstrap) as client:
        for _ in range(5):
            await client.send_and_wait(topic, b"precious" * 10)
    broker.kill()
    flip(broker.data_dir / file_name(1), b"precious")
    refused: subprocess.Popen[str] = launch(broker.data_dir)
    _, errors = refused.communicate(timeout=10)
    assert refused.returncode == 1
    assert "wal-0000000001.log: damaged at byte" in errors
    assert "Traceback" not in errors


async def test_a_bit_that_flips_under_a_running_server_is_never_served(
    start_broker: Callable[..., BrokerProcess],
) -> None:
    broker = start_broker()
    topic = await make_topic(broker.bootstrap)
    async with producer(broker.bootstrap) as client:
        for number in range(5):
            await client.send_and_wait(topic, b"%d precious" % number)
        flip(broker.data_dir / file_name(1), b"2 precious")
        with pytest.raises(AssertionError, match="records read"):
            await read_all(broker.bootstrap, topic)
        await client.send_and_wait(topic, b"others go on")


async def test_a_damaged_segment_is_never_served(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker(*SMALL_FILES)
    async with producer(broker.bootstrap) as client:
        topic = await write_segments(broker, client)
        assert len(await read_all(broker.bootstrap, topic)) == RECORDS
        path = segments(broker)[0]
        flip(path, b"007007")
        with pytest.raises(AssertionError, match="records read"):
            await read_all(broker.bootstrap, topic)
        await client.send_and_wait(topic, b"others go on")
    broker.stop()
    status, _, errors = check(broker.data_dir)
    assert status == 1
    assert f"{path}: damaged at byte" in errors


async def test_a_sound_directory_passes_the_check(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker(*SMALL_FILES)
    async with producer(broker.bootstrap) as client:
        await write_segments(broker, client)
    assert "in use by process" in check(broker.data_dir)[2]
    broker.kill()
    status, found, _ = check(broker.data_dir)
    assert status == 0
    assert json.loads(found)["records"] == RECORDS


async def write_segments(broker: BrokerProcess, client: AIOKafkaProducer) -> str:
    """Write RECORDS to a new topic; return its name when the server has cut a file into segments."""
    topic = await make_topic(broker.bootstrap)
    for number in range(RECORDS):
        await client.send_and_wait(topic, b"%03d" % number * 400)
    await until(lambda: bool(segments(broker)), "a file is cut")
    return topic


def segments(broker: BrokerProcess) -> list[Path]:
    """Return the files that hold the records of segments."""
    return list(broker.data_dir.glob("segments/*/*.log"))


def flip(path: Path, at: bytes) -> None:
    """Change a bit of a text in a file, which a server may have open."""
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(data.find(at))
        file.write(bytes([at[0] ^ 1]))


def check(data_dir: Path) -> tuple[int, str, str]:
    """Run `--verify` on a directory; return status, output and errors."""
    process = launch(data_dir, "--verify")
    output, errors = process.communicate(timeout=20)
    return process.returncode, output, errors


async def test_a_damaged_file_is_named_again_and_again_and_everything_else_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = BrokerSettings(tmp_path, wal_file_bytes=1 << 16, storage_retry_s=0.02)
    async with serving(settings) as (server, bootstrap):
        topic = await make_topic(bootstrap)
        async with producer(bootstrap) as client:
            await client.send_and_wait(topic, b"precious")
            flip(tmp_path / file_name(1), b"precious")
            for _ in range(60):
                await client.send_and_wait(topic, b"x" * 2000)
            await until(lambda: len(complaints(caplog, "damaged at byte")) >= 2, "the chore that failed is tried again")
            await client.send_and_wait(topic, b"others go on")
        assert not server.store.failed.is_set()
    assert all(file_name(1) in error for error in complaints(caplog, "damaged at byte"))


def complaints(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    """Return the logged errors of failed chores that contain these words."""
    errors = [str(vars(record).get("error")) for record in caplog.records if record.msg == "storage.chore_failed"]
    return [error for error in errors if words in error]


async def test_a_reader_that_is_overtaken_by_retention_is_told_so(tmp_path: Path) -> None:
    async with serving(BrokerSettings(tmp_path, wal_file_bytes=1 << 16, segment_bytes=20_000)) as (server, bootstrap):
        topic = await make_topic(bootstrap)
        async with producer(bootstrap) as client, admin(bootstrap) as operator:
            for _ in range(100):
                await client.send_and_wait(topic, b"x" * 2000)
            partition = server.store.catalog.topics[topic].partitions[0]
            await until(lambda: len(partition.segments) > 2, "files are cut into segments")
            behind = partition.segments[0].next
            await operator.delete_records({TopicPartition(topic, 0): RecordsToDelete(behind)})
            await until(lambda: partition.segments[0].base >= behind, "the first segment is gone")
        # as a fetch that checked the start before it moved, and reads after that
        assert await server.store.read(partition, 0, 1 << 20) == b""
        with pytest.raises(Damaged):
            SegmentIndex(partition.segments[0]).find(behind - 1)


def test_records_without_any_file_that_names_them_stop_the_start(tmp_path: Path) -> None:
    left = tmp_path / "segments" / "1" / "00000000000000000000.log"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"records")
    with pytest.raises(Damaged, match=r"manifest\.json: .*missing"):
        recover(tmp_path, Catalog(10, 1000))
    assert left.exists()
