"""Tests of the benchmark: every row, a failure as a row, and the bytes on the log."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.stack_fixtures import RunningStack

from agentlog_infra.kafka.connection import connection
from agentlog_infra.kafka.producer import Compression, DurableProducer
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import embedded_login
from bench.__main__ import parsed
from bench.comparison import HEAD, row
from bench.figures import Figures, quantile, spread
from bench.log_reads import read_log
from bench.rounds import measure
from bench.server import Server
from bench.works import Case, Round, cases, threads

ROOT = Path(__file__).parents[2]
ROOMS = ("commands", "projections", "processors", "gateway", "infra")
LOG_CASES = 6
BATCH_HEADER_BYTES = 61
RECORD_BYTES = 1012  # key of 3, value of 1000, and seven fields of one or two bytes; Kafka documentation, "Record"


def test_a_line_has_median_and_range_of_its_rounds() -> None:
    line = Figures("work", 8, "much")
    for all_s in (1.0, 2.0, 4.0):
        line.add(Round(took_s=[0.001, 0.002, 0.003, 0.004], all_s=all_s, notes={"lost": 0}), cpu_s=0.008)
    assert line.row() == "| work (8) | 2 (1-4) | 3 (3-3) | 4 (4-4) | 4 (4-4) | 2 (2-2) | lost 0 (0-0) | much |"


def test_what_nobody_measured_is_a_dash() -> None:
    line = Figures("work", 1, "much")
    line.add(Round(all_s=2.0, count=100), cpu_s=None)
    assert line.row() == "| work (1) | 50 | - | - | - | - |  | much |"
    assert spread([]) == "-"


def test_the_last_percent_is_not_past_the_end() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert quantile([float(n) for n in range(1000)], 0.99) == 990.0


async def test_a_server_that_cannot_do_a_case_gets_a_line_that_says_so() -> None:
    case = Case("POST /threads", threads, 1, 1, "much")
    line = Figures.of(case)
    await measure(Server("http://127.0.0.1:1"), case, line)
    assert line.per_s == []
    assert "FAILED: ClientConnectorError" in line.row()


def test_a_comparison_shows_the_ratio_of_the_median_rates_or_why_there_is_none() -> None:
    ours, official = Figures("work", 2, "5"), Figures("work", 2, "5")
    for line, seconds in ((ours, (1.0, 2.0, 4.0)), (official, (8.0, 4.0, 1.0))):
        for all_s in seconds:
            line.add(Round(all_s=all_s, count=8), cpu_s=None)
    assert row(ours, official) == "| work (2) | 4 (2-8) | 2 (1-8) | 2.00 | - | - | 5 |"
    assert HEAD.splitlines()[0].count("|") == row(ours, official).count("|")
    assert row(ours, Figures("work", 2, "5", failed="no")).endswith("| - | - | - | - | 5 | FAILED: no |")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--beside-official", "--growth"), "--growth"),
        (("--beside-official", "--cpu"), "--cpu"),
        (("--beside-official", "--url", "http://127.0.0.1:1"), "--url"),
        (("--beside-official", "--url", "http://127.0.0.1:1", "--pid", "1"), "--url, --pid"),
        (("--pid", "1"), "--pid needs --url"),
    ],
)
def test_options_without_an_effect_are_refused(
    words: Sequence[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        parsed(words)
    assert refused.value.code == 2
    assert named in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("compression", [None, "zstd"])
async def test_stored_bytes_are_those_of_the_batches_on_the_log(
    stack: RunningStack, compression: Compression | None
) -> None:
    login = embedded_login(stack.data_dir / "broker.secret")
    settings = Settings.load({**login, "kafka_bootstrap": stack.kafka, "partitions": 1})
    topic = f"bench-{compression}"
    admin = AIOKafkaAdminClient(**connection(settings))
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    producer = DurableProducer(connection(settings), "test", compression=compression)
    await producer.start()
    for _ in range(5):
        await producer.send(topic, b"key", 1000 * b"x", 0)
    await producer.stop()
    async with read_log(settings, topic) as log:
        assert await log.ends() == {0: 5}
        assert await log.stored_bytes(0, 5, 5) == 0
        found = await log.stored_bytes(0, 2, 5)
    plain = 3 * (BATCH_HEADER_BYTES + RECORD_BYTES)
    assert found == plain if compression is None else 3 * BATCH_HEADER_BYTES < found < plain / 5


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_every_row_is_measured_on_a_server_of_its_own() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("AGENTLOG_")}
    env["PYTHONPATH"] = os.pathsep.join(str(ROOT / room) for room in ROOMS)
    words = ("-m", "bench", "--scale", "0.01", "--rounds", "1", "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, complaints = await process.communicate()
    assert process.returncode == 0, output.decode() + complaints.decode()[-3000:]
    table = json.loads(output)
    assert len(table) == len(cases(1.0)) + LOG_CASES
    assert [line["name"] for line in table if len(line["per_s"]) != 1 or len(line["cpu_ms"]) != 1] == []
    rows = {line["name"]: line for line in table}
    assert rows["ack to visible"]["p99_ms"][0] > 0
    assert rows["rebuild"]["notes"]["commits"][0] >= 100
    assert rows["rebuild"]["notes"]["facts/s"][0] > rows["rebuild"]["per_s"][0]
    chat = rows["chat of 200 turns, 500-word answers"]["notes"]
    assert 0 < chat["stored/raw"][0] < chat["uncompressed/raw"][0]
