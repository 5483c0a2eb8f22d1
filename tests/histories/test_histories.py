"""Tests of all recorded histories: this release folds each log to the recorded rows and answers."""

import json
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from httpx2 import ASGITransport, AsyncClient
from tests.fakes.memory_log import MemoryLog
from tests.gateway.answers_env import two_gateways
from tests.gateway.web_env import dependencies
from tests.histories.files import HERE, read_records, sums, versions
from tests.histories.record import CONFIG, PARTITIONS, schemas_of
from tests.histories.recorded_log import RecordedLog
from tests.histories.rows import rows
from tests.projections.projector_env import TABLES, ask, database_uri
from tests.stack_fixtures import RunningStack

from agentlog_facts.json_value import Json, load
from agentlog_facts.version import VERSION
from agentlog_facts.vocabulary import SCHEMAS
from agentlog_gateway.application import build_app
from agentlog_gateway.http.cors import Cors
from agentlog_infra.kafka.partitions import partition_of
from agentlog_infra.postgres.migrate import upgrade
from agentlog_infra.system_ports import SystemClock
from agentlog_postgres.connection import connect_projector, open_pool
from agentlog_projections.models.registry import read_models
from agentlog_projections.projector.announcer import NullAnnouncer
from agentlog_projections.projector.session import FoldPorts, FoldSettings, ProjectorSession

_FOLDED = """
SELECT i.partition, i."offset", t.thread_id FROM ledger.log_index i JOIN read_v1.threads t ON t.thread_id = i.key
"""


ADDED = frozenset({"cancel_reason"})
"""Fields of answers that later releases have added."""


def as_recorded(shown: Json, recorded: Json) -> Json:
    """Return an answer without the added fields that the recorded answer lacks."""
    if isinstance(shown, list) and isinstance(recorded, list):
        return [as_recorded(one, other) for one, other in zip(shown, recorded, strict=True)]
    if isinstance(shown, dict) and isinstance(recorded, dict):
        return {name: one for name, one in shown.items() if name in recorded or name not in ADDED}
    return shown


@pytest.fixture(params=versions())
def history(request: pytest.FixtureRequest) -> Path:
    """Return the folder of each recorded release."""
    return HERE / str(request.param)


@asynccontextmanager
async def empty_database(stack: RunningStack) -> AsyncGenerator[str]:
    """Yield the URI of an empty database; drop it at the end."""
    name = f"history_{uuid4().hex}"
    uri = database_uri(stack.postgres, name)
    await upgrade(uri, TABLES)
    yield uri
    await ask(stack.postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(stack: RunningStack) -> AsyncGenerator[str]:
    """Yield the URI of an empty database."""
    async with empty_database(stack) as uri:
        yield uri


async def fold(history: Path, uri: str, most: int) -> None:
    """Fold the whole log, with at most this number of records per poll."""
    log = RecordedLog(history)
    outside = FoldPorts(log, lambda key: partition_of(key.encode(), PARTITIONS), SystemClock(), NullAnnouncer())
    models, runs = read_models()
    connection = await connect_projector(uri)
    try:
        folding = ProjectorSession(connection, FoldSettings(uri, "history", max_records=most), outside, models, runs)
        await folding.begin()
        while folding.behind:
            await folding.cycle()
        await folding.end()
        assert {one.stopped for one in folding.partitions.values()} == {None}
    finally:
        await connection.close()


def recorded_rows(history: Path) -> dict[str, list[str]]:
    """Return table -> recorded rows."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line in (history / "rows.jsonl").read_text().splitlines():
        one = json.loads(line)
        found[one["table"]].append(json.dumps(one["row"], sort_keys=True, ensure_ascii=False))
    return {table: sorted(lines) for table, lines in found.items()}


def like(recorded: list[str], now: list[str]) -> list[str]:
    """Return current rows with the recorded columns only; a later release may have more."""
    columns = set(json.loads(recorded[0]))
    kept = [{name: value for name, value in json.loads(row).items() if name in columns} for row in now]
    return sorted(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in kept)


def test_the_history_of_this_release_holds_every_fact_as_it_writes_it_and_values_in_blobs() -> None:
    events = read_records(HERE / VERSION / "events.jsonl")
    assert schemas_of(events, blobs=False) == set(SCHEMAS.items())
    assert {"CheckpointSaved", "RunFinished"} <= {name for name, _ in schemas_of(events, blobs=True)}


def test_a_history_is_never_changed(history: Path) -> None:
    assert (history / "SHA256SUMS").read_text() == sums(history)


@pytest.mark.parametrize("most", [1000, 1])
async def test_a_recorded_log_folds_to_the_recorded_rows(history: Path, database: str, most: int) -> None:
    await fold(history, database, most)
    recorded, now = recorded_rows(history), await rows(database)
    verdicts = {json.loads(row)["verdict"] for row in recorded["log_index"]}
    assert verdicts == {"accepted", "duplicate", "void"}
    for table, expected in recorded.items():
        assert like(expected, now[table]) == expected, table


async def test_two_folds_of_a_log_give_equal_rows_also_in_columns_that_no_history_has(stack: RunningStack) -> None:
    found: list[dict[str, list[str]]] = []
    for most in (1000, 1):
        async with empty_database(stack) as uri:
            await fold(HERE / VERSION, uri, most)
            found.append(await rows(uri))
    assert found[0] == found[1]


async def test_a_recorded_log_gives_the_recorded_answers(history: Path, database: str) -> None:
    await fold(history, database, 1000)
    pool = await open_pool(database, 4)
    try:
        wired = dependencies(MemoryLog(), pool, CONFIG)
        app = build_app(lambda: wired, Cors(allow_origins=["*"]))
        async with AsyncClient(transport=ASGITransport(app), base_url="http://history") as client:
            for line in (history / "answers.jsonl").read_text().splitlines():
                asked = json.loads(line)
                answer = await client.request(asked["method"], asked["path"], json=asked["body"])
                shown = as_recorded(load(answer.content), asked["answer"])
                assert (answer.status_code, shown) == (asked["status"], asked["answer"]), asked["path"]
    finally:
        await pool.close()


async def test_answers_remembered_while_a_log_is_folded_equal_those_that_are_read_again(
    history: Path, database: str
) -> None:
    log = RecordedLog(history)
    outside = FoldPorts(log, lambda key: partition_of(key.encode(), PARTITIONS), SystemClock(), NullAnnouncer())
    models, runs = read_models()
    connection = await connect_projector(database)
    told: set[tuple[int, int]] = set()
    try:
        folding = ProjectorSession(connection, FoldSettings(database, "history", max_records=1), outside, models, runs)
        await folding.begin()
        async with two_gateways(database, CONFIG) as gateways:
            while folding.behind:
                await connection.execute(
                    "UPDATE ledger.positions SET present = true"
                )  # each record is the last one yet
                await folding.cycle()
                for row in await connection.fetch(_FOLDED):
                    place = (row["partition"], row["offset"])
                    if place not in told:
                        told.add(place)
                        await gateways.compare(row["thread_id"], checkpoints=False)
            threads = {row["thread_id"] for row in await connection.fetch(_FOLDED)}
            for thread_id in threads:
                await gateways.compare(thread_id)
            assert gateways.answers.found > 100
        await folding.end()
    finally:
        await connection.close()
