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


def readable_end(work: ExecutableRun, end: End, view: ThreadView) -> tuple[End, ThreadView]:
    """Return an end whose fact every reader can decode, and its view: as given, or an error and the earlier state.

    Call it before the last frames are written, so that clients see the end that the fact states.
    """
    cause = _unreadable(work, end, view)
    if cause is None:
        return end, view
    error: JsonObject = {"error": "ValueError", "message": f"the end of the run cannot be written: {cause}"}
    status = "error" if end.status == "success" else end.status
    return replace(end, status=status, error=error), ThreadView(work.values, (), {}, view.checkpoint_id)


def finished(work: ExecutableRun, end: End, view: ThreadView, outputs_to: int | None) -> RunFinished:
    """Return the fact that ends a run, for its worker or for the housekeeper, from what `readable_end` returned."""
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


def _unreadable(work: ExecutableRun, end: End, view: ThreadView) -> str | None:
    """Return why the fact of an end could not be read back from the log, None if it can be."""
    try:
        data = dump(encode_fact(finished(work, end, view, None)))
        if data.count(b"[") + data.count(b"{") > FACT_LEVELS:
            load_value(data, FACT_LEVELS)
    except (ValueError, RecursionError) as error:
        return str(error)
    return None
