"""Composition root of `rebuild`: all rows are folded again from the first record, while the server keeps running.

If there are live rows, the rebuild uses a shadow schema (`rebuild_shadow`), however far the rows are behind the log. If
there are none, or with `in-place`, it folds into the live tables (`rebuild_in_place`). It then fences off a running
projector, which takes over again at the end, and gateways answer 503 until the rows are complete. If this process is
interrupted, the next projector continues from its position.
"""

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta

import uvloop

from agentlog_facts.errors import AgentlogError, Conflict
from agentlog_infra import logs
from agentlog_infra.kafka.event_tail import open_event_tail
from agentlog_infra.kafka.partitions import partition_of
from agentlog_infra.postgres.migrate import make_database, schema_statements
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import joined
from agentlog_infra.system_ports import SystemClock, SystemIds
from agentlog_postgres.connection import DatabaseMissing, open_pool, translated
from agentlog_processors import timeouts
from agentlog_processors.jobs.migrate import DIFFERENCE, OK, USAGE, failed, tables
from agentlog_processors.jobs.rebuild_in_place import rebuild_in_place
from agentlog_processors.jobs.rebuild_progress import Progress
from agentlog_processors.jobs.rebuild_session import Cancelled, Found, RebuildDependencies, cancel
from agentlog_processors.jobs.rebuild_shadow import Differs, Mode, rebuild_shadow
from agentlog_processors.runtime.garbage_collection import FOLD_THRESHOLDS, collect_rarely
from agentlog_projections.projector.announcer import NullAnnouncer
from agentlog_projections.projector.session import FoldPorts
from agentlog_projections.rebuild import shadow_schema

INTERRUPTED = 130
_MODES: dict[str, Mode] = {"switch": "switch", "accept-differences": "accept", "check": "check"}
_WORDS = (*_MODES, "in-place", "cancel")
_FOUND: Mapping[Found, str] = {
    "nothing": "there is no rebuild to cancel",
    "something": "cancelled; it had created nothing yet",
    "shadow": "cancelled; the live rows are as they were",
    "in place": "cancelled; it folded in place: a running projector continues from where it stopped",
    "switched": "too late to cancel: the rebuilt rows are live; the replaced rows are removed",
}


class NoRows(Conflict):
    """There are no live rows to compare with."""

    code = "no_rows"


def main(words: Sequence[str]) -> None:
    """Run the rebuild that the word names; exit with 3 when rows differ and the word is not `accept-differences`."""
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
        await cancel(settings.database_uri or "", lambda found: print(_FOUND[found], file=sys.stderr))
        return OK
    return await rebuild(settings, word)


async def rebuild(settings: Settings, word: str) -> int:
    """Fold all rows again and return the exit status.

    Raises: Unavailable, Diverged, Differs, Conflict, Cancelled, Misconfigured.
    """
    collect_rarely(FOLD_THRESHOLDS)
    async with AsyncExitStack() as stack:
        uri = settings.database_uri or ""
        in_place = word == "in-place" or not await _has_rows(uri)
        if in_place and word == "check":
            raise NoRows("there are no rows that a rebuild could be compared with; agentlog rebuild makes them")
        await make_database(uri)
        dependencies = await _dependencies(stack, settings, "" if in_place else shadow_schema.SHADOW)
        ends = await dependencies.ports.tail.ends()
        dependencies.progress.begin(sum(ends.values()), len(ends))
        equal = True
        if in_place:
            await rebuild_in_place(dependencies, dropping=word == "in-place")
        else:
            equal = (await rebuild_shadow(dependencies, _MODES[word])).equal
        dependencies.progress.finish()
        return OK if equal or word == "accept-differences" else DIFFERENCE


async def _has_rows(uri: str) -> bool:
    with translated("looking for rows"):
        try:
            looking = await shadow_schema.connect_plain(uri)
        except DatabaseMissing:
            return False
        try:
            return await shadow_schema.has_rows(looking)
        finally:
            await looking.close()


async def _dependencies(stack: AsyncExitStack, settings: Settings, suffix: str) -> RebuildDependencies:
    """Connect to the log. A rebuild sends no hints; the projector that takes over pushes the ready runs."""
    pool = await open_pool(settings.database_uri or "", 2)
    stack.push_async_callback(pool.close)
    tail = await open_event_tail(
        settings,
        pool,
        "agentlog-rebuild",
        stack,
        schema=f"ledger{suffix}",
        fetch_wait_ms=timeouts.REBUILD_FETCH_WAIT_MS,
    )
    ports = FoldPorts(tail, lambda key: partition_of(key.encode(), settings.partitions), SystemClock(), NullAnnouncer())
    erased_after = timedelta(milliseconds=settings.outputs_retention_ms)
    owner = f"rebuild-{SystemIds().uuid7()}"
    return RebuildDependencies(
        settings.database_uri or "",
        ports,
        schema_statements(tables()),
        erased_after,
        owner,
        Progress(),
        print,
        settings.projector_cache_bytes,
    )
