"""Configs with which graphs of factories are opened outside of their runs. Source: docs/http-api.md, section 22."""

from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.secret_values import opening_of
from agentlog_gateway.api.dependencies import Dependencies


async def opening(dependencies: Dependencies, graph_id: str, thread_id: ThreadId) -> JsonObject | None:
    """Return the config and context of the thread's last run if a factory makes its graph, without secrets.

    A thread without a run, such as a copy, has the config that it shows. Raises: GraphNotFound, Unavailable.
    """
    if not dependencies.graphs.is_made_by_factory(graph_id):
        return None
    found = await dependencies.runs.of_thread(thread_id, limit=1)
    if not found:
        thread = await dependencies.threads.get(thread_id, with_values=False)
        return None if thread is None else thread.config
    return opening_of(found[0].kwargs, dependencies.secrets.keys)


async def opening_of_run(dependencies: Dependencies, graph_id: str, run_id: RunId) -> JsonObject | None:
    """Return the config and context of a run, also a hidden one, if a factory makes its graph, without secrets.

    Raises: GraphNotFound, Unavailable.
    """
    if not dependencies.graphs.is_made_by_factory(graph_id):
        return None
    found = await dependencies.runs.get(run_id, include_deleted=True)
    return None if found is None else opening_of(found.kwargs, dependencies.secrets.keys)
