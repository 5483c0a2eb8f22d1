"""System tests on Apache Kafka, over TLS and with a login: the main job and a worker's death, with all roles apart."""

import asyncio
import io
import shutil
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
from tests.apache_kafka.secured import PASSWORD, USER, SecuredKafka
from tests.certificates import Certificates
from tests.stack_fixtures import open_folder
from tests.system.apart import Apart, embedded_rows, roles_apart
from tests.system.api import Api
from tests.system.checker.judgement import judged_well
from tests.system.servers import wait_until

from agentlog_infra.cli.demo_script import run_demo

pytestmark = pytest.mark.needs("java", "mvn")

RUNS = 20
END_S = 90.0
STEPS = ["one", "two", "three", "four", "five"]
SHAPE = {"AGENTLOG_PARTITIONS": "4", "AGENTLOG_REPLICATION_FACTOR": "1", "AGENTLOG_MIN_INSYNC_REPLICAS": "1"}
SOON = {
    "AGENTLOG_LEASE_TTL_SECS": "3",
    "N_JOBS_PER_WORKER": str(RUNS),
}


@pytest.fixture
def folder() -> Generator[Path]:
    """Yield a folder that the database's account may enter."""
    made = open_folder()
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def kafka(folder: Path) -> Generator[SecuredKafka]:
    """Yield Apache Kafka; agentlog knows only the listener with TLS and login."""
    (folder / "kafka").mkdir()
    server = SecuredKafka(folder / "kafka", Certificates.make(folder))
    server.start()
    yield server
    server.stop()


def login(kafka: SecuredKafka, folder: Path) -> dict[str, str]:
    """Return the settings of a login over TLS."""
    return {
        "AGENTLOG_KAFKA_BOOTSTRAP": kafka.door("LOGIN"),
        "AGENTLOG_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "AGENTLOG_KAFKA_SSL_CAFILE": str(folder / "ca.pem"),
        "AGENTLOG_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "AGENTLOG_KAFKA_SASL_USERNAME": USER,
        "AGENTLOG_KAFKA_SASL_PASSWORD": PASSWORD,
    }


@pytest.mark.timeout(300)
async def test_roles_apart_do_the_main_job_and_outlive_a_worker_on_apache_kafka(
    kafka: SecuredKafka, folder: Path
) -> None:
    with embedded_rows(folder, kafka.door("LOGIN")) as rows:
        with roles_apart(folder, login(kafka, folder) | rows | SHAPE | SOON) as apart:
            await the_main_job(apart)
            runs = await runs_that_outlive_a_worker(apart)
            _, found = await judged_well(kafka.bootstrap, rows["DATABASE_URI"])
        said = apart.server.log()
    assert {run: found.runs[run] for run in runs} == dict.fromkeys(runs, "success")
    assert max(found.attempts[run] for run in runs) >= 2, "the kill hit nothing"
    assert PASSWORD not in said


async def the_main_job(apart: Apart) -> None:
    """Check a thread, a streamed run, an approval, its resume, the history and the facts on the log."""
    out = io.StringIO()

    async def facts(thread_id: str) -> AsyncIterator[str]:
        for line in (await asyncio.to_thread(apart.run, "events", "--thread", thread_id)).splitlines():
            yield line

    status = await run_demo(apart.server.url, out, facts)
    assert status == 0, out.getvalue()


async def runs_that_outlive_a_worker(apart: Apart) -> list[str]:
    """Kill a worker that has runs in flight; all of them succeed. Return the runs."""
    api, server = Api(apart.server.url), apart.server
    threads = [await api.thread() for _ in range(RUNS)]
    runs = {await api.start_run(thread, "steps", {"sleep_ms": 300}): thread for thread in threads}

    def in_flight() -> bool:
        began = {line["run_id"] for line in server.steps() if (line["step"], line["edge"]) == ("two", "start")}
        return len(began) >= RUNS // 2

    await asyncio.to_thread(wait_until, in_flight, END_S, "half of the runs are in flight")
    apart.kill_pid(next(int(line["pid"]) for line in server.steps() if line["step"] == "two"))
    async with asyncio.timeout(END_S):
        values = await asyncio.gather(*(api.join(thread, run) for run, thread in runs.items()))
    assert [value["done"] for value in values] == [STEPS] * RUNS
    return list(runs)
