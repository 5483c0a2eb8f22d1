"""All invariants at once: a log, judged by itself and against everything that was noted while it grew."""

from collections.abc import Sequence

from tests.system.checker.effects import repeated_effects
from tests.system.checker.fold import Judged, judge
from tests.system.checker.frames import wrong_streams
from tests.system.checker.invariants import Verdicts, check
from tests.system.checker.notes import Notes
from tests.system.checker.promises import broken_promises
from tests.system.checker.records import Record
from tests.system.checker.rows import other_verdicts, wrong_queue
from tests.system.checker.sessions import backward_reads
from tests.system.checker.views import wrong_answers


def judge_all(events: Sequence[Record], notes: Notes, outputs: Sequence[Record] = ()) -> Verdicts:
    """Judge a log and the notes; every run of it must have ended, unless it is looked at while runs wait."""
    judged = judge(list(events))
    found = weigh(judged, notes, outputs)
    found.violations += [f"run {run_id} is stuck: it has no end" for run_id in found.open_runs]
    return found


def weigh(judged: Sequence[Judged], notes: Notes, outputs: Sequence[Record] = ()) -> Verdicts:
    """Judge what counts of a log against the notes."""
    found = check(judged)
    found.violations += broken_promises(judged, notes.changes, counting=notes.counting)
    found.violations += backward_reads(judged, notes.looks)
    found.violations += repeated_effects(judged, notes.effects)
    found.violations += wrong_answers(judged, notes.shown)
    found.violations += wrong_streams(judged, outputs, notes.streams)
    if notes.queued is not None:
        found.violations += wrong_queue(judged, notes.queued)
    if notes.ledger is not None:
        found.violations += other_verdicts(judged, notes.ledger)
    return found
