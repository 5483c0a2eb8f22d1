"""Whether a checkpoint already is an end of its run, so that a later attempt must not execute anything.

LangGraph takes a restart without input for a human's consent: it would run past the point where the run had to stop.
"""

from collections.abc import Sequence

from langgraph.types import StateSnapshot

from agentlog_facts.checkpoint_ports import StoredCheckpoint
from agentlog_facts.json_value import JsonObject, as_object
from agentlog_infra.langgraph.run_config import Stops

CONSENT = "__interrupt__"
"""Under this node `versions_seen` notes what was there when the run went on last. Source: langgraph.pregel._algo."""


def is_finished(snapshot: StateSnapshot) -> bool:
    """Tell whether nothing is left to run, or everything left waits for an answer.

    `next` leaves out tasks whose writes are there already: with all of them written it is empty although the step that
    applies them, and what comes after it, still have to run.
    """
    waiting = [task for task in snapshot.tasks if task.name in snapshot.next and task.result is None]
    return not snapshot.tasks or (bool(waiting) and all(task.interrupts for task in waiting))


def is_breakpoint(
    stored: StoredCheckpoint, before: Stops, after: Stops, coming: Sequence[str], finished: Sequence[str]
) -> bool:
    """Tell whether the run had to stop at this checkpoint: before the `coming` nodes or after the `finished` ones."""
    return _changed(stored.checkpoint) and (_meets(before, coming) or _meets(after, finished))


def _meets(nodes: Stops, names: Sequence[str]) -> bool:
    return bool(names) if nodes == "*" else any(name in (nodes or ()) for name in names)


def _changed(checkpoint: JsonObject) -> bool:
    """Tell whether a channel changed since the run went on last."""
    seen = as_object(as_object(checkpoint["versions_seen"], "versions_seen").get(CONSENT, {}), CONSENT)
    versions = as_object(checkpoint["channel_versions"], "channel_versions")
    return any(str(version) > str(seen.get(channel, "")) for channel, version in versions.items())
