"""Full and broken disks: no append is acknowledged, and appends continue once the disk works again."""

import asyncio
import errno
import os
import subprocess
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from tests.broker import servers
from tests.broker.servers import BrokerProcess, admin, make_topic, producer, read_all, until
from tests.broker.wire_client import WireClient, make_batch

from agentlog_broker.disk import Disk
from agentlog_broker.settings import BrokerSettings

SEGMENT_WRITE = "segment write"
STORAGE_ERROR = 56


class FailingDisk(Disk):
    """Disk that fails the operations in `refuses`."""

    def __init__(self) -> None:
        self.refuses: dict[str, int] = {}

    def _check(self, operation: str) -> None:
        code = self.refuses.get(operation)
        if code is not None:
            raise OSError(code, f"refused {operation}")

    def allocate(self, fd: int, size: int) -> None:
        self._check("allocate")
        super().allocate(fd, size)

    def write(self, fd: int, data: bytes, position: int) -> None:
        self._check("write")
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".idx"):
            self._check(SEGMENT_WRITE)
        super().write(fd, data, position)

    def sync(self, fd: int) -> None:
        self._check("sync")
        super().sync(fd)

    def replace(self, path: Path, data: bytes) -> None:
        self._check("replace")
        super().replace(path, data)


class NotingDisk(Disk):
    """Disk that records each write with its position, and each sync."""

    def __init__(self) -> None:
        self.written: list[tuple[int, bytes]] = []
        self.synced_after: list[int] = []

    def write(self, fd: int, data: bytes, position: int) -> None:
        self.written.append((position, data))
        super().write(fd, data, position)

    def sync(self, fd: int) -> None:
        self.synced_after.append(len(self.written))
        super().sync(fd)


@asynccontextmanager
async def serving(directory: Path, disk: Disk, wal_file_bytes: int = 1 << 20) -> AsyncGenerator[str]:
    """Run a server in this process."""
    settings = BrokerSettings(directory, storage_retry_s=0.05, wal_file_bytes=wal_file_bytes)
    async with servers.serving(settings, disk) as (_, bootstrap):
        yield bootstrap


@asynccontextmanager
async def impatient(bootstrap: str) -> AsyncGenerator[AIOKafkaProducer]:
    """Yield a producer with a short time-out."""
    client = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", request_timeout_ms=400, retry_backoff_ms=50)
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


@pytest.mark.parametrize("operation", ["write", "sync"])
async def test_a_failing_disk_means_no_acknowledgement_and_later_offsets_without_a_gap(
    tmp_path: Path, operation: str
) -> None:
    disk = FailingDisk()
    async with serving(tmp_path, disk) as bootstrap:
        topic = await make_topic(bootstrap)
        async with impatient(bootstrap) as client, producer(bootstrap) as patient:
            assert (await client.send_and_wait(topic, b"before")).offset == 0
            disk.refuses = {operation: errno.EIO, "allocate": errno.ENOSPC}
            with pytest.raises(KafkaError):
                await client.send_and_wait(topic, b"never")
            waiting = asyncio.ensure_future(patient.send_and_wait(topic, b"waits"))
            assert [record.value for record in await read_all(bootstrap, topic)] == [b"before"]
            assert not waiting.done()
            disk.refuses = {}
            assert (await asyncio.wait_for(waiting, 5)).offset == 1
            assert (await patient.send_and_wait(topic, b"after")).offset == 2
        seen = [record.value for record in await read_all(bootstrap, topic)]
    assert seen == [b"before", b"waits", b"after"]
    async with serving(tmp_path, Disk()) as bootstrap:
        assert [record.value for record in await read_all(bootstrap, topic)] == seen


@pytest.mark.parametrize("operation", ["write", "sync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
async def test_while_the_disk_fails_every_append_is_answered_with_error_56_and_reads_go_on(
    tmp_path: Path, operation: str, code: int
) -> None:
    disk = FailingDisk()
    async with serving(tmp_path, disk) as bootstrap:
        topic = await make_topic(bootstrap)
        async with producer(bootstrap) as patient:
            client = await WireClient.connect(bootstrap)
            assert (await client.produce(topic, make_batch([b"before"]))).code == 0
            disk.refuses = {operation: code, "allocate": code}
            for number in range(5):
                assert (await client.produce(topic, make_batch([b"never %d" % number]))).code == STORAGE_ERROR
                assert [record.value for record in await read_all(bootstrap, topic)] == [b"before"]
            disk.refuses = {}
            assert (await asyncio.wait_for(patient.send_and_wait(topic, b"after"), 10)).offset == 1
            await client.close()
    async with serving(tmp_path, Disk()) as bootstrap:
        assert [record.value for record in await read_all(bootstrap, topic)] == [b"before", b"after"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """Yield a file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def fill(client: AIOKafkaProducer, topic: str, acked: list[int]) -> None:
    """Append records of 2 kB until one is refused; add the offsets of the others to `acked`."""
    for number in range(1000):
        acked.append((await client.send_and_wait(topic, b"%04d" % number * 500)).offset)


@pytest.mark.slow
@pytest.mark.needs("mount", "umount")
async def test_a_file_system_that_is_really_full_loses_nothing_and_goes_on_when_there_is_room(
    small_disk: Path,
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(500_000))
    broker = BrokerProcess(
        small_disk / "data", "--wal-file-bytes", "65536", "--segment-bytes", "65536", "--storage-retry-s", "0.05"
    ).start()
    try:
        topic = await make_topic(broker.bootstrap)
        acked: list[int] = []
        async with impatient(broker.bootstrap) as client, producer(broker.bootstrap) as patient:
            with pytest.raises(KafkaError):
                await fill(client, topic, acked)
            assert len(acked) > 20
            waiting = asyncio.ensure_future(patient.send_and_wait(topic, b"room"))
            assert [record.offset for record in await read_all(broker.bootstrap, topic)] == acked
            assert not waiting.done()
            ballast.unlink()
            again = await asyncio.wait_for(waiting, 10)
        assert again.offset >= len(acked)
        broker.kill()
        broker.start()
        values = [record.value for record in await read_all(broker.bootstrap, topic)]
        assert values[: len(acked)] == [b"%04d" % number * 500 for number in range(len(acked))]
        assert values[-1] == b"room"
        print(f"{len(acked)} acknowledged before the disk was full, {len(values)} there after the restart")
    finally:
        broker.kill()


async def test_a_full_disk_refuses_changes_of_topics_too(tmp_path: Path) -> None:
    disk = FailingDisk()
    async with serving(tmp_path, disk) as bootstrap:
        topic = await make_topic(bootstrap)
        disk.refuses = {"write": errno.ENOSPC, "allocate": errno.ENOSPC}
        async with admin(bootstrap) as client:
            answer = await client.delete_topics([topic])
            assert answer.topic_error_codes[0][1] == 56
            disk.refuses = {}
            assert topic in await client.list_topics()


async def test_no_space_for_the_next_file_stops_appends_until_there_is(tmp_path: Path) -> None:
    disk = FailingDisk()
    async with serving(tmp_path, disk, wal_file_bytes=1 << 16) as bootstrap:
        topic = await make_topic(bootstrap)
        async with producer(bootstrap) as client:
            disk.refuses = {"allocate": errno.ENOSPC}
            sent = [await client.send_and_wait(topic, b"%d" % number * 4000) for number in range(10)]
            waits = [asyncio.ensure_future(client.send_and_wait(topic, b"x" * 9000)) for _ in range(5)]
            _, pending = await asyncio.wait(waits, timeout=0.5)
            assert pending, "the file cannot have had room for all"
            disk.refuses = {}
            sent += await asyncio.wait_for(asyncio.gather(*waits), 5)
        assert sorted(each.offset for each in sent) == list(range(15))
        assert len(await read_all(bootstrap, topic)) == 15


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds the file of a write in /proc")
async def test_a_cut_that_fails_gives_its_space_back_and_is_done_later(tmp_path: Path) -> None:
    disk = FailingDisk()

    def names(pattern: str) -> list[str]:
        return [path.name for path in tmp_path.glob(pattern)]

    async with serving(tmp_path, disk, wal_file_bytes=1 << 16) as bootstrap:
        topic = await make_topic(bootstrap)
        disk.refuses = {SEGMENT_WRITE: errno.ENOSPC}
        async with producer(bootstrap) as client:
            for number in range(40):
                assert (await client.send_and_wait(topic, b"%02d" % number * 2000)).offset == number
        await until(lambda: names("segments/*/*") == [], "nothing is left of the failed cut")
        assert len(names("wal-*.log")) >= 3
        disk.refuses = {}
        await until(lambda: len(names("wal-*.log")) == 1, "all full files are cut")
        records = await read_all(bootstrap, topic)
    assert [record.value for record in records] == [b"%02d" % number * 2000 for number in range(40)]


async def test_a_manifest_that_could_not_be_written_is_written_later_and_frees_the_files(tmp_path: Path) -> None:
    disk = FailingDisk()
    async with serving(tmp_path, disk, wal_file_bytes=1 << 16) as bootstrap:
        topic = await make_topic(bootstrap)
        disk.refuses = {"replace": errno.ENOSPC}
        async with producer(bootstrap) as client:
            for number in range(20):
                await client.send_and_wait(topic, b"%02d" % number * 2000)
        await until(lambda: list(tmp_path.glob("segments/*/*.idx")) != [], "a file was cut")
        assert (tmp_path / "wal-0000000001.log").exists()
        disk.refuses = {}
        await until(lambda: not (tmp_path / "wal-0000000001.log").exists(), "what was cut is freed")
        assert len(await read_all(bootstrap, topic)) == 20


async def test_a_start_writes_again_what_nothing_proves_to_be_on_disk(
    tmp_path: Path, start_broker: Callable[..., BrokerProcess]
) -> None:
    broker = start_broker()
    topic = await make_topic(broker.bootstrap)
    async with producer(broker.bootstrap) as client:
        for number in range(3):
            await client.send_and_wait(topic, b"value %d" % number)
    broker.kill()
    disk = NotingDisk()
    async with serving(broker.data_dir, disk) as bootstrap:
        assert disk.synced_after[0] == 1, "a failed sync leaves pages that only look clean: write them, then sync"
        position, written = disk.written[0]
        stored = (broker.data_dir / "wal-0000000001.log").read_bytes()
        assert stored[position : position + len(written)] == written
        assert b"value 2" in written or b"value 2" in stored[:position]
        assert [record.value for record in await read_all(bootstrap, topic)] == [b"value 0", b"value 1", b"value 2"]
