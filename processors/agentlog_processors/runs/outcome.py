"""The fact and the last frames that end a run, the same for its worker and for the housekeeper."""

from agentlog_commands.claims import End
from agentlog_facts.frame import Frame
from agentlog_facts.graph_ports import ThreadView
from agentlog_facts.state_diff import diff_state
from agentlog_facts.thread import RunFinished, RunStatus
from agentlog_projections.queries.worker import ExecutableRun


def last_frames(end: End) -> tuple[Frame, ...]:
    """Return the last frames of the stream: an error frame or none. Source: docs/http-api.md, section 10.1."""
    shown: tuple[RunStatus, ...] = ("error", "timeout")
    return (Frame("error", end.error),) if end.status in shown else ()


def finished(work: ExecutableRun, end: End, view: ThreadView, outputs_to: int | None) -> RunFinished:
    """Return the fact that ends a run, for its worker or for the housekeeper."""
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
