"""Composition root of `projection list|stuck|park|retry|runs`: partitions, quarantined aggregates and their retry, and
the runs that wait.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial

from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import AgentlogError, BlobMissing, Unavailable, UnknownSchema
from agentlog_facts.ports import EventRecords
from agentlog_infra.kafka.event_log import KafkaLog, open_event_log
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import joined
from agentlog_postgres.connection import Pool, close, connect_projector, open_pool
from agentlog_processors.jobs.migrate import DIFFERENCE, OK, USAGE, failed
from agentlog_projections.models.registry import read_models
from agentlog_projections.projector.isolated_fold import park, retry
from agentlog_projections.projector.quarantine import DETERMINISTIC, LEDGER
from agentlog_projections.projector.repeated_faults import takes_writes
from agentlog_projections.queries.health import Parked, health, parked, stuck
from agentlog_projections.queries.run_health import run_health
from agentlog_projections.sql.caught_up import DIVERGED

NOT_FOUND = 5
NAME = "agentlog-projection"


def main(words: Sequence[str]) -> None:
    """Run `list`, `stuck`, `runs`, `park PARTITION`, or `retry [MODEL [KEY]]` (an empty word means any); print JSON.

    Exit status 3: a partition makes no progress or an aggregate is (still) quarantined; 5: there is nothing to retry or
    to park.
    """
    match list(words):
        case ["list"]:
            work = _list
        case ["stuck"]:
            work = _stuck
        case ["runs"]:
            work = _runs
        case ["park", number] if number.isdecimal():
            work = partial(_park, partition=int(number))
        case ["retry", *names] if len(names) <= 2:
            work = partial(_retry, names=names)
        case _:
            sys.stderr.write("usage: projection list | stuck | runs | park PARTITION | retry [MODEL [KEY]]\n")
            sys.exit(USAGE)
    try:
        sys.exit(asyncio.run(work(joined(Settings.load()))))
    except AgentlogError as error:
        sys.exit(failed(error))


async def _list(settings: Settings) -> int:
    async with AsyncExitStack() as stack:
        pool, log = await _open(settings, stack)
        try:
            found = await health(pool, log)
        except Unavailable as error:  # the rows alone tell less, but tell
            sys.stderr.write(f"the log does not answer, so the lag is unknown: {error}\n")
            found = await health(pool)
        waiting = await parked(pool)
    document = asdict(found) | {"quarantine": [asdict(one) for one in waiting]}
    sys.stdout.write(json.dumps(document) + "\n")
    return DIFFERENCE if found.stopped or found.stalled or waiting else OK


async def _runs(settings: Settings) -> int:
    pool = await open_pool(settings.database_uri or "", 1)
    try:
        found = await run_health(pool)
    finally:
        await pool.close()
    waiting = [
        {"graph_id": one.graph_id, "runs": one.runs, "longest_secs": one.longest.total_seconds()}
        for one in found.waiting
    ]
    sys.stdout.write(json.dumps({"suspects": found.suspects, "waiting": waiting}) + "\n")
    return OK


async def _stuck(settings: Settings) -> int:
    async with AsyncExitStack() as stack:
        found = await stuck(*await _open(settings, stack))
    sys.stdout.write(json.dumps([asdict(one) for one in found]) + "\n")
    return DIFFERENCE if found else OK


async def _park(settings: Settings, partition: int) -> int:
    """Park the aggregate of the record at which a partition stands. Raises: Unavailable, Conflict."""
    async with AsyncExitStack() as stack:
        pool, log = await _open(settings, stack)
        one = next((one for one in await stuck(pool, log) if one.partition == partition), None)
        if one is None or one.error.startswith(DIVERGED):
            sys.stderr.write(f"partition {partition} does not stand at a record of this log\n")
            return NOT_FOUND
        connection_ = await connect_projector(settings.database_uri or "", NAME)
        try:
            await park(
                connection_, LogPosition(one.partition, one.offset), one.key, f"parked by an operator: {one.error}"
            )
        finally:
            await close(connection_)
    sys.stdout.write(json.dumps(asdict(one)) + "\n")
    return OK


async def _open(settings: Settings, stack: AsyncExitStack) -> tuple[Pool, KafkaLog]:
    """Connect to rows and log until `stack` closes. Raises: Unavailable."""
    pool = await open_pool(settings.database_uri or "", 2)
    stack.push_async_callback(pool.close)
    return pool, await open_event_log(settings, pool, NAME, stack, appends=False)


async def _retry(settings: Settings, names: Sequence[str]) -> int:
    """Retry every quarantined aggregate that matches, each in its own transaction. Raises: Unavailable."""
    model, key = (*names, "", "")[:2]
    async with AsyncExitStack() as stack:
        pool, log = await _open(settings, stack)
        chosen = [one for one in await parked(pool) if model in ("", one.model) and key in ("", one.key)]
        if not chosen:
            sys.stderr.write("nothing is quarantined under these names\n")
            return NOT_FOUND
        errors = [await _retry_one(settings, log, one) for one in chosen]
    return OK if not any(errors) else DIFFERENCE


async def _retry_one(settings: Settings, log: KafkaLog, one: Parked) -> str | None:
    """Apply the waiting commits of an aggregate, print and return the error, or None. Raises: Unavailable."""
    error = await retry_aggregate(settings.database_uri or "", log, one)
    line = {"model": one.model, "key": one.key, "commits": one.commits, "error": error}
    sys.stdout.write(json.dumps(line) + "\n")
    return error


async def retry_aggregate(database_uri: str, log: EventRecords, one: Parked) -> str | None:
    """Apply the waiting commits of an aggregate; return the error if they fail again.

    Raises: Unavailable if the log or PostgreSQL is away. A fault that only looks like an outage is an error of the
    aggregate: it also occurs while the log answers and PostgreSQL takes other writes.
    """
    models, _ = read_models()
    if one.model not in {LEDGER, *(model.name for model in models)}:
        return f"this release has no read model {one.model}"
    connection_ = await connect_projector(database_uri, NAME)
    try:
        await retry(connection_, log, models, one.model, one.key)
    except (BlobMissing, UnknownSchema, *DETERMINISTIC) as error:
        return f"{type(error).__name__}: {error}"
    except Unavailable as error:
        await log.ends()
        if not await takes_writes(database_uri, 0):
            raise
        return f"{type(error).__name__}: {error}"
    finally:
        await close(connection_)
    return None
