"""The composition root of `rebuild`: all rows folded anew from the first record, while everything else keeps running.

Where there are live rows it happens beside them (`rebuild_beside`). Where there are none, or when it is asked for, the
fold goes into the live tables: a running projector is fenced off and takes over again at the end, gateways answer 503
until the rows are there, and if this process is interrupted, whoever folds next goes on where it stopped.
"""

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta

import uvloop

from agentlog_facts.errors import AgentlogError, Diverged, Unavailable
from agentlog_infra import logs
from agentlog_infra.addresses import joined
from agentlog_infra.kafka_blobs import KafkaBlobs
from agentlog_infra.kafka_connection import BLOBS, connection
from agentlog_infra.kafka_producer import DurableProducer
from agentlog_infra.kafka_reader import KafkaReader
from agentlog_infra.kafka_tail import KafkaTail
from agentlog_infra.migrate import drop, make_database, upgrade, whole
from agentlog_infra.partitioner import partition_of
from agentlog_infra.settings import Settings
from agentlog_infra.system_ports import SystemClock, SystemIds
from agentlog_processors.migrate import DIFFERENCE, OK, USAGE, failed, tables
from agentlog_processors.rebuild_beside import (
    TRIES,
    Cancelled,
    Differs,
    Tools,
    Wish,
    cancel,
    heard,
    rebuild_beside,
)
from agentlog_processors.rebuild_progress import Progress
from agentlog_projections import beside, database
from agentlog_projections.announce import Silent
from agentlog_projections.database import TRANSIENT, Connection, connect, translated
from agentlog_projections.fold import Fold, FoldSettings, Outside
from agentlog_projections.partitions import fence_off
from agentlog_projections.read_models import read_models
from agentlog_projections.runner import tune_memory

INTERRUPTED = 130
FETCH_WAIT_MS = 50
"""How long the log may keep a question that it has no records for: the switch waits for such a one."""
_WISHES: dict[str, Wish] = {"switch": "switch", "accept-differences": "accept", "check": "check"}
_WORDS = (*_WISHES, "in-place", "cancel")


def main(words: Sequence[str]) -> None:
    """Do what the one word says; the exit status is 3 when rows differ and nobody said that this is all right."""
    if len(words) != 1 or words[0] not in _WORDS:
        sys.stderr.write(f"usage: python -m agentlog_processors rebuild {'|'.join(_WORDS)}\n")
        sys.exit(USAGE)
    try:
        settings = joined(Settings.load())
        logs.configure("WARNING" if settings.log_level == "INFO" else settings.log_level, as_json=settings.log_json)
        sys.exit(uvloop.run(_main(words[0], settings)))
    except Differs as error:
        sys.stderr.write(f"error: {error}\n  fix: agentlog rebuild --accept-differences, if the live rows are wrong\n")
        sys.exit(DIFFERENCE)
    except AgentlogError as error:
        sys.exit(INTERRUPTED if isinstance(error, Cancelled) and failed(error) else failed(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)


async def _main(word: str, settings: Settings) -> int:
    current = asyncio.current_task()
    if current is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, current.cancel)
    if word == "cancel":
        found = await cancel(settings.database_uri or "")
        sys.stderr.write("cancelled; the live rows are as they were\n" if found else "there is no rebuild to cancel\n")
        return OK
    return await rebuild(settings, word)


async def rebuild(settings: Settings, word: str) -> int:
    """Fold everything anew and return the exit status. Raises: Unavailable, Diverged, Differs, Conflict."""
    tune_memory()
    async with AsyncExitStack() as stack:
        uri = settings.database_uri or ""
        await make_database(uri)
        here = word == "in-place" or not await _has_live_rows(uri)
        suffix = "" if here else beside.NEXT
        outside = await _outside(stack, settings, suffix)
        ends = await outside.tail.ends()
        progress = Progress()
        progress.begin(sum(ends.values()), len(ends))
        owner = f"rebuild-{SystemIds().uuid7()}"
        if here:
            await rebuild_in_place(FoldSettings(uri, owner), outside, progress)
            equal = True
        else:
            statements = whole(tables())
            erased_after = timedelta(milliseconds=settings.outputs_retention_ms)
            tools = Tools(uri, outside, statements, erased_after, owner, progress, print)
            equal = (await rebuild_beside(tools, _WISHES[word])).equal
        progress.finish()
        return OK if equal or word == "accept-differences" else DIFFERENCE


async def _has_live_rows(uri: str) -> bool:
    connection = await beside.connect_plain(uri)
    try:
        return await beside.is_live(connection)
    finally:
        await connection.close()


async def _outside(stack: AsyncExitStack, settings: Settings, suffix: str) -> Outside:
    """Connect to the log. Whatever is folded here is announced by nobody: who takes over pushes what is ready."""
    connected = connection(settings)
    pool = await database.open_pool(settings.database_uri or "", 2)
    stack.push_async_callback(pool.close)
    reader = KafkaReader(connected, BLOBS, "agentlog-rebuild")
    stack.push_async_callback(reader.stop)
    producer = DurableProducer(connected, "agentlog-rebuild")
    blobs = KafkaBlobs(producer, reader, pool, settings.partitions, schema=f"ledger{suffix}")
    tail = KafkaTail(connected, blobs, settings.partitions, "agentlog-rebuild", fetch_wait_ms=FETCH_WAIT_MS)
    await tail.start()
    stack.push_async_callback(tail.stop)
    return Outside(tail, lambda key: partition_of(key.encode(), settings.partitions), SystemClock(), Silent())


async def rebuild_in_place(settings: FoldSettings, outside: Outside, progress: Progress) -> None:
    """Empty the live tables and fold into them. Raises: Unavailable, Diverged, RebuildRunning."""
    lock = await beside.connect_plain(settings.database_uri)
    try:
        await beside.hold(lock)
        await beside.remove(lock, beside.NEXT, beside.OLD)
        anew = True
        for attempt in range(TRIES):
            try:
                await _fold(settings, outside, progress, anew=anew)
            except (Unavailable, *TRANSIENT) as error:
                if attempt + 1 == TRIES:
                    raise Unavailable(f"the fold was interrupted {TRIES} times, at last by: {error}") from error
                progress.note(f"interrupted, going on: {error}")
                anew = anew and progress.seen == 0
                await asyncio.sleep(0.2 * 2**attempt)
            else:
                return
    finally:
        lock.terminate()


async def _fold(settings: FoldSettings, outside: Outside, progress: Progress, *, anew: bool) -> None:
    """Take every partition, empty the tables if asked to, and fold until all are present."""
    held = await connect(settings.database_uri)
    try:
        await _take(held, settings, outside, anew=anew)
        models, runs = read_models()
        fold = Fold(held, settings, outside, models, runs)
        await fold.begin()
        total = sum(one.target for one in fold.partitions.values())
        try:
            while fold.behind:
                await fold.cycle()
                heard()
                progress.show(sum(one.next_offset for one in fold.partitions.values()), total)
        finally:
            await fold.end()
        for one in fold.partitions.values():
            if one.stopped is not None:
                raise Diverged(f"partition {one.number} stopped: {one.stopped}")
    finally:
        await held.close()


async def _take(held: Connection, settings: FoldSettings, outside: Outside, *, anew: bool) -> None:
    partitions = list(await outside.tail.ends())
    with translated("taking the partitions from a running projector"):
        await fence_off(held, partitions, settings.owner)
    if anew:
        await drop(settings.database_uri)
    await upgrade(settings.database_uri, tables())
