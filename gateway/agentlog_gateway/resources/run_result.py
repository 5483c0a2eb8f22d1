"""JSON documents with which wait and join respond once a run is over; they come from facts only.

Source: docs/http-api.md, sections 7.6 and 27.
"""

from agentlog_facts.graph_ports import At, GraphFailed, GraphNotFound, unrooted
from agentlog_facts.ids import RunId
from agentlog_facts.json_value import Json, JsonObject, dump, load
from agentlog_gateway.api.dependencies import Dependencies
from agentlog_gateway.resources.openings import opening_of_run
from agentlog_projections.queries.run_status import RunStatusRow

NO_RUN: JsonObject = {"__error__": {"error": "HTTPException", "message": "404: Run not found"}}


async def creators_document(dependencies: Dependencies, run_id: RunId, *, look_first: bool = False) -> bytes:
    """Return the response to the creator of a run: values, interrupts or the error."""
    found = await dependencies.run_watcher.outcome(run_id, look_first=look_first, with_values=True)
    return dump(NO_RUN if found is None else await result_json(dependencies, found))


async def joiners_document(dependencies: Dependencies, run_id: RunId) -> bytes:
    """Return the response to a client that joins a run; a run that was rolled back shows nothing."""
    found = await dependencies.run_watcher.outcome(run_id, look_first=True, with_values=True)
    if found is not None and found.status == "rollback":
        return b"{}"
    if found is None or (found.deleted and not found.thread_deleted):
        return dump(NO_RUN)
    return dump(await result_json(dependencies, found))


async def cancelled_document(dependencies: Dependencies, run_id: RunId) -> bytes:
    """Return the response to a waiting cancel once the run has stopped."""
    await dependencies.run_watcher.outcome(run_id, look_first=True)
    return b"{}"


async def result_json(dependencies: Dependencies, found: RunStatusRow) -> Json:
    """Return the result of a run that is over."""
    if found.status == "error" and found.error is not None:
        return {"__error__": found.error}
    if found.deleted and found.status in ("pending", "running"):
        return NO_RUN
    try:
        values = await _values(dependencies, found)
    except GraphFailed as error:
        return {"__error__": {"error": type(error).__name__, "message": str(error)}}
    waiting = [item for items in (found.interrupts or {}).values() if isinstance(items, list) for item in items]
    if not waiting:
        return values
    shown: list[Json] = [_with_schema(item) for item in waiting]
    return {**(values if isinstance(values, dict) else {}), "__interrupt__": shown}


def _with_schema(item: Json) -> Json:
    return {**item, "response_schema": item.get("response_schema")} if isinstance(item, dict) else item


async def _values(dependencies: Dependencies, found: RunStatusRow) -> Json:
    """Return the output of the run: the thread's values, or those of its last checkpoint, by the output schema.

    Without the graph nobody knows the output schema, so the output is empty. Raises: GraphFailed.
    """
    graphs, at = dependencies.graphs, At(found.checkpoint_id)
    try:
        opened_with = await opening_of_run(dependencies, found.graph_id, found.run_id)
        if found.newest or found.checkpoint_id is None:
            values = unrooted(found.values or {})
        else:
            state = await graphs.get_state(found.graph_id, found.thread_id, at, opened_with=opened_with)
            values = load(state.fields["values"])
        return await graphs.output_values(found.graph_id, found.thread_id, values, opened_with=opened_with)
    except GraphNotFound:
        return {}
