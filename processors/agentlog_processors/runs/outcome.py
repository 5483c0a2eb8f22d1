"""The fact and the last frames that end a run, the same for its worker and for the housekeeper."""

from dataclasses import replace

from agentlog_commands.claims import End
from agentlog_facts.frame import Frame
from agentlog_facts.graph_ports import ThreadView
from agentlog_facts.json_value import LEVELS, JsonObject, dump, load_value
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


def readable_end(work: ExecutableRun, end: End, view: ThreadView) -> tuple[End, RunFinished]:
    """Return an end that every reader can decode, and its fact: as given, or an error and the earlier state.

    The fact has no `outputs_to` yet. Call it before the last frames are written, so that clients see the end that the
    fact states.
    """
    try:
        fact = _finished(work, end, view)
        _check_readable(fact)
    except (ValueError, RecursionError) as cause:
        error: JsonObject = {"error": "ValueError", "message": f"the end of the run cannot be written: {cause}"}
        status = "error" if end.status == "success" else end.status
        other = replace(end, status=status, error=error)
        return other, _finished(work, other, ThreadView(work.values, (), {}, view.checkpoint_id))
    return end, fact


def _finished(work: ExecutableRun, end: End, view: ThreadView) -> RunFinished:
    return RunFinished(
        run_id=work.run_id,
        status=end.status,
        error=end.error or None,
        view=diff_state(work.values or {}, view.values or {}),
        next=view.next,
        interrupts=view.interrupts,
        checkpoint_id=None if end.rollback else view.checkpoint_id,
        outputs_to=None,
    )


def _check_readable(fact: RunFinished) -> None:
    """Check that a fact can be read back from the log. Raises: ValueError, RecursionError."""
    data = dump(encode_fact(fact))
    if data.count(b"[") + data.count(b"{") > FACT_LEVELS:
        load_value(data, FACT_LEVELS)
