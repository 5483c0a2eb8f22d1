"""All invariants at once: a log, judged by itself and against everything that was noted while it grew."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from tests.system.checker.effects import repeated_effects
from tests.system.checker.fold import Judged, judge
from tests.system.checker.frames import wrong_streams
from tests.system.checker.invariants import Verdicts, check
from tests.system.checker.items import unknown_writers
from tests.system.checker.notes import Notes
from tests.system.checker.promises import broken_promises, multiplied
from tests.system.checker.records import Record, read_topic
from tests.system.checker.rows import Ledger, other_verdicts, read_ledger, read_queue, wrong_queue
from tests.system.checker.sessions import backward_reads
from tests.system.checker.views import wrong_answers

FOLDED_S = 20.0
"""How long the server may take to give its verdict on the last record."""
QUEUE_S = 30.0
"""How long the run queue may differ from the log: a worker drops an old entry of a suspect when it sees it overdue."""
LOOK_S = 0.05


async def judged_well(
    kafka: str, postgres: str, notes: Notes | None = None, *, ended: bool = True
) -> tuple[list[Judged], Verdicts]:
    """Judge the log of a running server beside its own verdicts and the notes; return it if nothing is wrong.

    The only way to judge a server: what this checker voids is void by its own rules, and only the server's verdicts
    tell what it let count. `ended`: every run has to have its end.

    Raises:
        AssertionError: naming everything that is wrong.
    """
    events, ledger = await _log_and_verdicts(kafka, postgres)
    outputs = await read_topic(kafka, "agentlog.outputs")
    judged = judge(events)
    found = weigh(judged, replace(notes or Notes(), ledger=ledger), outputs)
    wrong = found.violations + (_stuck(found) if ended else [])
    assert not wrong, "\n".join(wrong)
    return judged, found


async def _log_and_verdicts(kafka: str, postgres: str) -> tuple[list[Record], Ledger]:
    """Read both once they cover the same records; as they are if that takes too long."""
    end = time.monotonic() + FOLDED_S
    while True:
        events, ledger = await read_topic(kafka, "agentlog.events"), await read_ledger(postgres)
        if ledger.keys() == {(one.partition, one.offset) for one in events} or time.monotonic() > end:
            return events, ledger
        await asyncio.sleep(LOOK_S)


async def read_settled_queue(kafka: str, redis: str) -> dict[str, list[str]]:
    """Read the run queue once it agrees with the log; as it is if that takes too long."""
    end = time.monotonic() + QUEUE_S
    while True:
        queued = await read_queue(redis)
        if not wrong_queue(judge(await read_topic(kafka, "agentlog.events")), queued) or time.monotonic() > end:
            return queued
        await asyncio.sleep(LOOK_S)


def _stuck(found: Verdicts) -> list[str]:
    return [f"run {run_id} is stuck: it has no end" for run_id in found.open_runs]


def judge_all(events: Sequence[Record], notes: Notes, outputs: Sequence[Record] = ()) -> Verdicts:
    """Judge a log and the notes; every run of it must have ended, unless it is looked at while runs wait."""
    judged = judge(list(events))
    found = weigh(judged, notes, outputs)
    found.violations += _stuck(found)
    return found


def weigh(judged: Sequence[Judged], notes: Notes, outputs: Sequence[Record] = ()) -> Verdicts:
    """Judge what counts of a log against the notes."""
    found = check(judged)
    found.violations += broken_promises(judged, notes.changes, counting=notes.counting)
    found.violations += multiplied(judged, notes)
    found.violations += backward_reads(judged, notes.looks)
    found.violations += repeated_effects(judged, notes.effects)
    found.violations += unknown_writers(judged)
    found.violations += wrong_answers(judged, notes.shown)
    found.violations += wrong_streams(judged, outputs, notes.streams)
    if notes.queued is not None:
        found.violations += wrong_queue(judged, notes.queued)
    if notes.ledger is not None:
        found.violations += other_verdicts(judged, notes.ledger)
    return found
