"""The end of a run from its own worker, under the epoch of its claim."""

from agentlog_commands.claims import End, as_asked, timed_out
from agentlog_commands.runs import FinishRun
from agentlog_facts.execution_port import RunOutcome
from agentlog_facts.graph_ports import ThreadView
from agentlog_facts.thread import RunFinished
from agentlog_processors.worker.attempt import Attempt


def end_of(attempt: Attempt, outcome: RunOutcome) -> End:
    """Return the end of the run, from the stop request and the outcome."""
    end = End(outcome.status, outcome.status, outcome.error or {})
    if outcome.status == "interrupted" and attempt.stop_reason == "timeout":
        end = timed_out()
    return as_asked(end, attempt.cancel)


def state_of(outcome: RunOutcome) -> ThreadView:
    """Return the thread's state after the attempt."""
    return ThreadView(outcome.values, outcome.next, outcome.interrupts, outcome.checkpoint_id)


def finish(attempt: Attempt, fact: RunFinished, saved: int | None, version: int) -> FinishRun:
    """Return the command that ends the run under its epoch; `saved` and `version` are of its own stream and thread."""
    work = attempt.work
    return FinishRun(work.thread_id, fact, work.temporary, epoch=attempt.epoch, saved=saved, version=version)
