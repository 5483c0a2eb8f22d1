"""The fact and the last frames that end a run, the same for its worker and for the housekeeper."""

from agentlog_commands.claims import End
from agentlog_facts.frame import Frame
from agentlog_facts.graph_ports import ThreadView
from agentlog_facts.json_value import LEVELS, dump, load_value
from agentlog_facts.state_diff import diff_state
from agentlog_facts.thread import RunFinished, RunStatus
from agentlog_facts.vocabulary import encode_fact
from agentlog_projections.queries.worker import ExecutableRun

FACT_LEVELS = LEVELS - 2
"""Levels of a fact: the commit around it is an object with a list."""


def last_frames(end: End) -> tuple[Frame, ...]:
    """Return the last frames of the stream: an error frame or none. Source: docs/http-api.md, section 10.1."""
    shown: tuple[RunStatus, ...] = ("error", "timeout")
    return (Frame("error", end.error),) if end.status in shown else ()


def finished(work: ExecutableRun, end: End, view: ThreadView, outputs_to: int | None) -> RunFinished:
    """Return the fact that ends a run, for its worker or for the housekeeper.

    If no reader could decode it, the run ends with an error instead, and the thread keeps its earlier state.
    """
    fact = RunFinished(
        run_id=work.run_id,
        status=end.status,
        error=end.error or None,
        view=diff_state(work.values or {}, view.values or {}),
        next=view.next,
        interrupts=view.interrupts,
        checkpoint_id=None if end.rollback else view.checkpoint_id,
        outputs_to=outputs_to,
    )
    cause = _unreadable(fact)
    if cause is None:
        return fact
    message = f"the end of the run cannot be written: {cause}"
    return RunFinished(
        run_id=work.run_id,
        status="error" if end.status == "success" else end.status,
        error={"error": "ValueError", "message": message},
        view={},
        next=(),
        interrupts={},
        checkpoint_id=fact.checkpoint_id,
        outputs_to=outputs_to,
    )


def _unreadable(fact: RunFinished) -> str | None:
    """Return why the fact could not be read back from the log, None if it can be."""
    try:
        data = dump(encode_fact(fact))
        if data.count(b"[") + data.count(b"{") > FACT_LEVELS:
            load_value(data, FACT_LEVELS)
    except (ValueError, RecursionError) as error:
        return str(error)
    return None
