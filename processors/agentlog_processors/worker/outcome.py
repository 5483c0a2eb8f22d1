"""Which facts follow from how an attempt ended: the run's end, or its release for another attempt."""

from agentlog_commands.claims import End, as_asked, cancelled, timed_out
from agentlog_commands.runs import FinishRun
from agentlog_facts.execution_port import RunOutcome
from agentlog_facts.frame import Frame
from agentlog_facts.graph_ports import ThreadView
from agentlog_facts.state_diff import diff_state
from agentlog_facts.thread import RunFinished, RunStatus
from agentlog_processors.worker.attempt_control import Attempt
from agentlog_projections.queries.worker import ExecutableRun


def end_of(attempt: Attempt, outcome: RunOutcome) -> End:
    """Return how the run ends, given what it was asked to do and what became of it."""
    end = End(outcome.status, outcome.status, outcome.error or {})
    if outcome.status == "interrupted" and attempt.asked == "cancel" and attempt.cancel is not None:
        end = cancelled(attempt.cancel)
    elif outcome.status == "interrupted" and attempt.asked == "timeout":
        end = timed_out()
    return as_asked(end, attempt.cancel)


def seen(outcome: RunOutcome) -> ThreadView:
    """Return the thread's state after the attempt."""
    return ThreadView(outcome.values, outcome.next, outcome.interrupts, outcome.checkpoint_id)


def last_frames(end: End) -> tuple[Frame, ...]:
    """Return what the stream says at its end: an error, else nothing. Source: Agent Server API, section 10.1."""
    shown: tuple[RunStatus, ...] = ("error", "timeout")
    return (Frame("error", end.error),) if end.status in shown else ()


def finish(
    attempt: Attempt, end: End, view: ThreadView, outputs_to: int | None, saved: int | None, version: int
) -> FinishRun:
    """Return the command that ends the run under its epoch; `saved` and `version` are of its own stream and thread."""
    work = attempt.work
    told = finished(work, end, view, outputs_to)
    return FinishRun(work.thread_id, told, work.temporary, epoch=attempt.epoch, saved=saved, version=version)


def finished(work: ExecutableRun, end: End, view: ThreadView, outputs_to: int | None) -> RunFinished:
    """Return the fact that ends a run, by its worker or in its place."""
    return RunFinished(
        run_id=work.run_id,
        status=end.status,
        error=end.error or None,
        view=diff_state(work.values or {}, view.values or {}),
        next=view.next,
        interrupts=view.interrupts,
        checkpoint_id=None if end.rollback else view.checkpoint_id,
        outputs_to=outputs_to,
    )
