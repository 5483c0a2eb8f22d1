"""Detection of checkpoints at which a run has already finished or had to stop.

A later attempt must not execute such a run. LangGraph takes a restart without input for a human's consent: it would run
past the breakpoint.
"""

from collections.abc import Sequence

from langgraph.types import StateSnapshot

from agentlog_facts.checkpoint_ports import StoredCheckpoint
from agentlog_facts.json_value import JsonObject, as_object
from agentlog_infra.langgraph.run_config import Stops

CONSENT = "__interrupt__"
"""Key of `versions_seen` with the channel versions of the last resume. Source: langgraph.pregel._algo."""


def is_finished(snapshot: StateSnapshot) -> bool:
    """Return whether no task is left to run, or all tasks that are left wait for an answer.

    LangGraph leaves tasks whose writes are stored out of `next`. When all writes are stored, `next` is empty, although
    the step that applies them and the steps after it still have to run.
    """
    waiting = [task for task in snapshot.tasks if task.name in snapshot.next and task.result is None]
    return not snapshot.tasks or (bool(waiting) and all(task.interrupts for task in waiting))


def is_breakpoint(
    stored: StoredCheckpoint, before: Stops, after: Stops, coming: Sequence[str], finished: Sequence[str]
) -> bool:
    """Return whether the run had to stop at this checkpoint, before the `coming` or after the `finished` nodes."""
    return _changed(stored.checkpoint) and (_meets(before, coming) or _meets(after, finished))


def _meets(nodes: Stops, names: Sequence[str]) -> bool:
    return bool(names) if nodes == "*" else any(name in (nodes or ()) for name in names)


def _changed(checkpoint: JsonObject) -> bool:
    """Return whether a channel has changed since the last resume."""
    seen = as_object(as_object(checkpoint["versions_seen"], "versions_seen").get(CONSENT, {}), CONSENT)
    versions = as_object(checkpoint["channel_versions"], "channel_versions")
    return any(str(version) > str(seen.get(channel, "")) for channel, version in versions.items())
