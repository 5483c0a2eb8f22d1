"""Announcer of committed batches: hints with verdicts, and ready runs. A lost announcement is harmless."""

import asyncio
import logging
from collections.abc import Iterable, Sequence

from agentlog_facts.errors import Unavailable
from agentlog_facts.guard import Accepted, Duplicate, Void
from agentlog_facts.ids import Key, RunId, category
from agentlog_facts.notification import Hint, tries_of
from agentlog_facts.ports import HintFeed, RunQueue
from agentlog_facts.thread import (
    RunCancelRequested,
    RunCreated,
    RunDeleted,
    RunFinished,
    RunReleased,
    ThreadDeleted,
)
from agentlog_projections.projector.verdicts import Judged
from agentlog_projections.sql.claimable import ReadyRun
from agentlog_projections.sql.read_model import Commit

log = logging.getLogger(__name__)

MOST_WAITING = 1_000
"""Announcements that may wait for Redis. Further ones are dropped; their receivers read PostgreSQL."""


class Announcer:
    """Publishes in the order of commits, in parallel to the fold, so a slow Redis never slows the fold down."""

    def __init__(self, feed: HintFeed, queue: RunQueue) -> None:
        self._feed = feed
        self._queue = queue
        self._waiting: asyncio.Queue[tuple[Sequence[Hint], Sequence[ReadyRun]]] = asyncio.Queue(MOST_WAITING)

    def announce(self, hints: Sequence[Hint], ready: Sequence[ReadyRun]) -> None:
        """Queue hints and ready runs for announcement; return at once."""
        try:
            self._waiting.put_nowait((hints, ready))
        except asyncio.QueueFull:
            log.warning("projector.announcement_dropped", extra={"hints": len(hints), "ready": len(ready)})

    async def run(self) -> None:
        """Publish announcements until cancelled."""
        while True:
            batch = [await self._waiting.get()]
            while not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            ready = [run for _, runs in batch for run in runs]
            await asyncio.gather(self._publish([hint for hints, _ in batch for hint in hints]), self._push(ready))

    async def _publish(self, hints: Sequence[Hint]) -> None:
        if hints:
            await self._feed.publish(hints)

    async def _push(self, ready: Sequence[ReadyRun]) -> None:
        queues: dict[str, list[RunId]] = {}
        for run in ready:
            queues.setdefault(run.queue, []).append(run.run_id)
        for queue, run_ids in queues.items():
            try:
                await self._queue.push(queue, run_ids)
            except Unavailable as error:
                log.warning("projector.push_failed", extra={"runs": len(run_ids), "error": str(error)})


class NullAnnouncer(Announcer):
    """Announces nothing, for a fold that no other process may notice."""

    def __init__(self) -> None:
        """Create an announcer without feed and queue."""

    def announce(self, hints: Sequence[Hint], ready: Sequence[ReadyRun]) -> None:
        """Do nothing."""


def hint_of(partition: int, after: int, judged: Iterable[Judged]) -> Hint:
    """Return the hint on a partition's records of a batch; it covers the offsets after `after`, up to the last one."""
    versions: dict[int, int] = {}
    not_accepted: dict[int, Duplicate | Void] = {}
    ended: list[str] = []
    cancelled: list[str] = []
    append_ids: list[str] = []
    last = after
    for one in judged:
        last = one.read.raw.place.offset
        append_ids.append(one.read.append_id)
        if isinstance(one.verdict, Accepted):
            versions[last] = one.verdict.version
        elif one.verdict is not None:
            not_accepted[last] = one.verdict
        if one.commit is not None:
            ended.extend(one.commit.ended)
            cancelled.extend(_interrupted(one.commit))
    return Hint(partition, after, last, versions, not_accepted, tuple(ended), tuple(cancelled), tries_of(append_ids))


def has_receiver(judged: Iterable[Judged]) -> bool:
    """Tell whether a hint may have a receiver: no caller waits for the verdict on an accepted checkpoint."""
    return any(one.commit is None or category(one.commit.draft.stream) != "run" for one in judged)


def _interrupted(commit: Commit) -> list[str]:
    """Return the runs whose workers must read their rows now: cancel requested, released, or deleted while active."""
    found: list[str] = []
    for fact in commit.draft.facts:
        if isinstance(fact, RunCancelRequested | RunReleased):
            found.append(fact.run_id)
        elif isinstance(fact, RunDeleted | ThreadDeleted):
            found.extend(commit.ended)
    return found


def may_be_ready(commits: Iterable[Commit]) -> list[Key]:
    """Return the aggregates on which a run may have become ready."""
    waking = RunCreated | RunFinished | RunReleased | RunDeleted
    keys = {c.draft.key: None for c in commits if any(isinstance(fact, waking) for fact in c.draft.facts)}
    return list(keys)
