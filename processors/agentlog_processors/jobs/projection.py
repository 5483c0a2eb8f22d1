"""Composition root of `projection list|retry|runs`: the quarantined aggregates of read models and their retry, and the
runs that wait.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict

from agentlog_facts.errors import AgentlogError
from agentlog_infra.kafka.event_log import KafkaLog, open_event_log
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import joined
from agentlog_postgres.connection import close, connect_projector, open_pool
from agentlog_processors.jobs.migrate import DIFFERENCE, OK, USAGE, failed
from agentlog_projections.models.registry import read_models
from agentlog_projections.projector.isolated_fold import retry
from agentlog_projections.projector.quarantine import DETERMINISTIC, LEDGER
from agentlog_projections.queries.health import Parked, health, parked
from agentlog_projections.queries.run_health import run_health

NOT_FOUND = 5
NAME = "agentlog-projection"


def main(words: Sequence[str]) -> None:
    """Run `list`, `runs`, or `retry [MODEL [KEY]]` where an empty word means any; print JSON on stdout.

    Exit status 3: a partition is stopped or an aggregate is (still) quarantined; 5: there is nothing to retry.
    """
    if list(words) not in (["list"], ["runs"]) and not (words and words[0] == "retry" and len(words) <= 3):
        sys.stderr.write("usage: python -m agentlog_processors projection list | runs | retry [MODEL [KEY]]\n")
        sys.exit(USAGE)
    try:
        settings = joined(Settings.load())
        jobs = {"list": _list, "runs": _runs, "retry": _retry}
        sys.exit(asyncio.run(jobs[words[0]](settings, *words[1:])))
    except AgentlogError as error:
        sys.exit(failed(error))


async def _list(settings: Settings) -> int:
    pool = await open_pool(settings.database_uri or "", 1)
    try:
        found, waiting = await health(pool), await parked(pool)
    finally:
        await pool.close()
    document = asdict(found) | {"quarantine": [asdict(one) for one in waiting]}
    sys.stdout.write(json.dumps(document) + "\n")
    return DIFFERENCE if found.stopped or waiting else OK


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


async def _retry(settings: Settings, model: str = "", key: str = "") -> int:
    """Retry every quarantined aggregate that matches, each in its own transaction. Raises: Unavailable."""
    async with AsyncExitStack() as stack:
        pool = await open_pool(settings.database_uri or "", 2)
        stack.push_async_callback(pool.close)
        chosen = [one for one in await parked(pool) if model in ("", one.model) and key in ("", one.key)]
        if not chosen:
            sys.stderr.write("nothing is quarantined under these names\n")
            return NOT_FOUND
        log = await open_event_log(settings, pool, NAME, stack, appends=False)
        outcomes = [await _retry_one(settings, log, one) for one in chosen]
    for one, error in zip(chosen, outcomes, strict=True):
        line = {"model": one.model, "key": one.key, "commits": one.commits, "error": error}
        sys.stdout.write(json.dumps(line) + "\n")
    return OK if not any(outcomes) else DIFFERENCE


async def _retry_one(settings: Settings, log: KafkaLog, one: Parked) -> str | None:
    """Apply the waiting commits of an aggregate; return the error, or None. Raises: Unavailable."""
    models, _ = read_models()
    if one.model not in {LEDGER, *(model.name for model in models)}:
        return f"this release has no read model {one.model}"
    connection_ = await connect_projector(settings.database_uri or "", NAME)
    try:
        await retry(connection_, log, models, one.model, one.key)
    except DETERMINISTIC as error:
        return f"{type(error).__name__}: {error}"
    finally:
        await close(connection_)
    return None
