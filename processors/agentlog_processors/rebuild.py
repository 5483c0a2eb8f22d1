"""The composition root of `rebuild`: all rows folded anew from the first record, while everything else keeps running.

A running projector is fenced off and takes over again at the end; gateways answer 503 until the rows are there. If
this process is interrupted, whoever folds next goes on where it stopped.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import uvloop

from agentlog_facts.errors import AgentlogError, Diverged, Unavailable
from agentlog_infra import logs, redis_feed
from agentlog_infra.addresses import joined
from agentlog_infra.kafka_blobs import KafkaBlobs
from agentlog_infra.kafka_connection import BLOBS, connection
from agentlog_infra.kafka_producer import DurableProducer
from agentlog_infra.kafka_reader import KafkaReader
from agentlog_infra.kafka_tail import KafkaTail
from agentlog_infra.migrate import drop, make_database, upgrade
from agentlog_infra.partitioner import partition_of
from agentlog_infra.settings import Settings
from agentlog_infra.system_ports import SystemClock, SystemIds
from agentlog_processors.migrate import OK, USAGE, failed, tables
from agentlog_projections import database
from agentlog_projections.announce import Announcer
from agentlog_projections.database import TRANSIENT, Connection, connect, translated
from agentlog_projections.fold import Fold, FoldSettings, Outside
from agentlog_projections.partitions import fence_off
from agentlog_projections.read_models import read_models
from agentlog_projections.runner import tune_memory

TRIES = 10
"""How often an interrupted fold is begun again."""
LINE_EVERY_SECS = 10.0
REDRAW_EVERY_SECS = 0.2


def main(words: Sequence[str]) -> None:
    """Rebuild all rows; exit 0 once every partition is present again."""
    if words:
        sys.stderr.write("usage: python -m agentlog_processors rebuild\n")
        sys.exit(USAGE)
    try:
        settings = joined(Settings.load())
        logs.configure("WARNING" if settings.log_level == "INFO" else settings.log_level, as_json=settings.log_json)
        uvloop.run(rebuild(settings))
    except AgentlogError as error:
        sys.exit(failed(error))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: a running projector goes on from here, else run it again\n")
        sys.exit(130)
    sys.exit(OK)


async def rebuild(settings: Settings) -> None:
    """Fold everything anew. Raises: Unavailable, Diverged."""
    tune_memory()
    async with AsyncExitStack() as stack:
        outside = await _outside(stack, settings)
        fold_settings = FoldSettings(settings.database_uri or "", owner=f"rebuild-{SystemIds().uuid7()}")
        progress = Progress(sys.stderr.isatty())
        anew = True
        for attempt in range(TRIES):
            try:
                await _fold(fold_settings, outside, progress, anew=anew)
            except (Unavailable, *TRANSIENT) as error:
                if attempt + 1 == TRIES:
                    raise Unavailable(f"the fold was interrupted {TRIES} times, at last by: {error}") from error
                sys.stderr.write(f"interrupted, going on: {error}\n")
                anew = anew and progress.seen == 0
                await asyncio.sleep(0.2 * 2**attempt)
            else:
                progress.finish()
                return


async def _outside(stack: AsyncExitStack, settings: Settings) -> Outside:
    connected = connection(settings)
    await make_database(settings.database_uri or "")
    pool = await database.open_pool(settings.database_uri or "", 2)
    stack.push_async_callback(pool.close)
    feed = redis_feed.RedisFeed(redis_feed.connect(settings), settings.redis_key_prefix, SystemIds())
    stack.push_async_callback(feed.stop)
    reader = KafkaReader(connected, BLOBS, "agentlog-rebuild")
    stack.push_async_callback(reader.stop)
    blobs = KafkaBlobs(DurableProducer(connected, "agentlog-rebuild"), reader, pool, settings.partitions)
    tail = KafkaTail(connected, blobs, settings.partitions, "agentlog-rebuild")
    await tail.start()
    stack.push_async_callback(tail.stop)
    announcer = Announcer(feed, feed)
    announcing = asyncio.create_task(announcer.run(), name="announcer")
    stack.callback(announcing.cancel)
    return Outside(tail, lambda key: partition_of(key.encode(), settings.partitions), SystemClock(), announcer)


async def _fold(settings: FoldSettings, outside: Outside, progress: "Progress", *, anew: bool) -> None:
    """Take every partition, empty the tables if asked to, and fold until all are present."""
    held = await connect(settings.database_uri)
    try:
        await _take(held, settings, outside, anew=anew)
        models, runs = read_models()
        fold = Fold(held, settings, outside, models, runs)
        await fold.begin()
        progress.begin(fold)
        try:
            while fold.behind:
                await fold.cycle()
                progress.show(fold)
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


@dataclass(slots=True)
class Progress:
    """Count, rate and time left: redrawn on a terminal, else a line every ten seconds."""

    terminal: bool
    seen: int = 0
    total: int = 0
    started: float = 0.0
    next_line: float = 0.0

    def begin(self, fold: Fold) -> None:
        """Note where the fold starts."""
        now = time.monotonic()
        self.started = self.started or now
        self.next_line = now + (0 if self.terminal else LINE_EVERY_SECS)
        self.total = sum(one.target for one in fold.partitions.values())
        sys.stderr.write(f"rebuild: {self.total} events in {len(fold.partitions)} partitions\n")

    def show(self, fold: Fold) -> None:
        """Tell how far it is, now and then."""
        self.seen = sum(one.next_offset for one in fold.partitions.values())
        now = time.monotonic()
        if now >= self.next_line:
            self.next_line = now + (REDRAW_EVERY_SECS if self.terminal else LINE_EVERY_SECS)
            rate = self.seen / max(now - self.started, 0.001)
            left = max(0, self.total - self.seen) / max(rate, 1)
            line = f"rebuild: {self.seen} of {self.total} events, {rate:.0f}/s, {left:.0f} s left"
            sys.stderr.write(f"\r\x1b[K{line}" if self.terminal else f"{line}\n")
            sys.stderr.flush()

    def finish(self) -> None:
        """Tell what was done."""
        length = max(time.monotonic() - self.started, 0.001)
        mark = "\r\x1b[K" if self.terminal else ""
        sys.stderr.write(f"{mark}rebuilt {self.seen} events in {length:.1f} s, {self.seen / length:.0f}/s\n")
