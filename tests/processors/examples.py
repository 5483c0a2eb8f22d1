"""Example rows for tests of worker and housekeeper."""

from agentlog_facts.ids import RunId, ThreadId
from agentlog_projections.queries.worker import ExecutableRun


def a_work() -> ExecutableRun:
    """Return a ready run on an empty thread."""
    return ExecutableRun(
        run_id=RunId("00000000-0000-7000-8000-00000000000a"),
        thread_id=ThreadId("00000000-0000-7000-8000-00000000000b"),
        graph_id="agent",
        assistant={"assistant_id": "agent", "graph_id": "agent", "version": 1, "config": {}, "context": {}},
        kwargs={"input": {}},
        metadata={},
        temporary=False,
        attempt=0,
        counted=0,
        epoch=None,
        cancel=None,
        ready=True,
        active=True,
        thread_metadata={},
        values=None,
        next=(),
        version=0,
    )
