"""Table of all operations: those that are served, and those of the contract that are not implemented yet."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from agentlog_gateway.api.endpoint import Operation
from agentlog_gateway.assistants import assistants, deletion, graphs
from agentlog_gateway.crons import crons
from agentlog_gateway.metrics import metrics
from agentlog_gateway.resources import batches, cancel, runs, state, store, system, threads
from agentlog_gateway.schemas.assistant_requests import (
    AssistantCount,
    AssistantCreate,
    AssistantDeleteQuery,
    AssistantLatest,
    AssistantPatch,
    AssistantSearch,
    AssistantVersions,
    GraphQuery,
    SubgraphsQuery,
)
from agentlog_gateway.schemas.cron_requests import CronCount, CronPatch, CronSearch, StatelessCron, ThreadCron
from agentlog_gateway.schemas.queries import (
    ActionQuery,
    CancelQuery,
    HealthCheckQuery,
    JoinQuery,
    JoinStreamQuery,
    MetricsQuery,
    PastStatesQuery,
    RunListQuery,
    StateQuery,
    ThreadQuery,
    ThreadStreamQuery,
)
from agentlog_gateway.schemas.requests import (
    AnyJson,
    HistoryQuery,
    StateAtCheckpoint,
    StateUpdate,
    ThreadCount,
    ThreadCreate,
    ThreadPatch,
    ThreadPrune,
    ThreadSearch,
)
from agentlog_gateway.schemas.response_models import (
    AssistantResponse,
    AssistantVersionResponse,
    CronResponse,
    FoundItemsResponse,
    GraphResponse,
    HealthResponse,
    InfoResponse,
    ItemResponse,
    MetricsResponse,
    NamespacesResponse,
    PruneResponse,
    ReadinessResponse,
    RunResponse,
    SchemasResponse,
    StateResponse,
    StateUpdateResponse,
    StorageResponse,
    ThreadResponse,
)
from agentlog_gateway.schemas.run_requests import RunBatch, RunsCancel, StatelessRun, ThreadRun
from agentlog_gateway.schemas.store_requests import ItemPlace, ItemPut, ItemQuery, ItemSearch, NamespaceSearch

ASSISTANT = "/assistants/{assistant_id}"
THREAD = "/threads/{thread_id}"
CRON = "/runs/crons/{cron_id}"
ITEMS = "/store/items"
RUNS = THREAD + "/runs"
RUN = RUNS + "/{run_id}"
_PARAMETER = re.compile(r"\{[^}]*\}")
NO_CONTENT: Mapping[int, str] = MappingProxyType({204: "Done"})
NOT_MODIFIED: Mapping[int, str] = MappingProxyType({304: "The body has the entity tag of If-None-Match"})

CHANGED: Mapping[int, str] = MappingProxyType({412: "The resource has another entity tag than If-Match names"})

OPERATIONS: Sequence[Operation] = (
    Operation("POST", RUNS + "/wait", runs.wait, "Create a run and wait for its result", "runs", AnyJson, ThreadRun),
    Operation(
        "POST", RUNS + "/stream", runs.stream, "Create a run and stream it", "runs", body=ThreadRun, streams=True
    ),
    Operation("POST", RUNS, runs.create, "Create a background run", "runs", RunResponse, ThreadRun),
    Operation("GET", RUNS, runs.list_runs, "List runs", "runs", list[RunResponse], query=RunListQuery),
    Operation("POST", RUNS + "/crons", crons.create_for_thread, "Create a cron", "crons", CronResponse, ThreadCron),
    Operation(
        "POST", "/runs/crons", crons.create, "Create a cron without a thread", "crons", CronResponse, StatelessCron
    ),
    Operation("POST", "/runs/crons/search", crons.search, "Search crons", "crons", list[CronResponse], CronSearch),
    Operation("POST", "/runs/crons/count", crons.count, "Count crons", "crons", int, CronCount),
    Operation("GET", CRON, crons.get, "Get a cron", "crons", CronResponse, also=NOT_MODIFIED),
    Operation("PATCH", CRON, crons.patch, "Change a cron", "crons", CronResponse, CronPatch, also=CHANGED),
    Operation("DELETE", CRON, crons.delete, "Delete a cron", "crons", also={**NO_CONTENT, **CHANGED}),
    Operation("GET", RUN, runs.get, "Get a run", "runs", RunResponse),
    Operation("DELETE", RUN, cancel.delete, "Delete a run", "runs", also=NO_CONTENT),
    Operation("GET", RUN + "/join", runs.join, "Wait for a run", "runs", AnyJson, query=JoinQuery),
    Operation(
        "GET",
        RUN + "/stream",
        runs.join_stream,
        "Join the stream of a run",
        "runs",
        query=JoinStreamQuery,
        streams=True,
    ),
    Operation(
        "POST",
        RUN + "/cancel",
        cancel.cancel,
        "Cancel a run",
        "runs",
        AnyJson,
        query=CancelQuery,
        also={200: "The run has stopped", 202: "The stop of the run was requested"},
    ),
    Operation(
        "POST", "/runs/wait", runs.wait_stateless, "Run without a thread and wait", "stateless", AnyJson, StatelessRun
    ),
    Operation(
        "POST",
        "/runs/stream",
        runs.stream_stateless,
        "Run without a thread and stream",
        "stateless",
        body=StatelessRun,
        streams=True,
    ),
    Operation(
        "POST",
        RUNS + "/cancel",
        cancel.cancel_active,
        "Cancel the active run of a thread",
        "runs",
        AnyJson,
        query=CancelQuery,
        also={200: "The run has stopped", 202: "The stop of the run was requested"},
    ),
    Operation(
        "POST",
        "/runs/batch",
        batches.create,
        "Run without threads, many at once",
        "stateless",
        list[RunResponse],
        RunBatch,
    ),
    Operation(
        "POST",
        "/runs/cancel",
        batches.cancel,
        "Cancel many runs",
        "runs",
        body=RunsCancel,
        query=ActionQuery,
        also=NO_CONTENT,
    ),
    Operation("POST", "/runs", runs.create_stateless, "Run without a thread", "stateless", RunResponse, StatelessRun),
    Operation(
        "GET",
        THREAD + "/state",
        state.get,
        "Get the state",
        "threads",
        StateResponse,
        query=StateQuery,
        also=NOT_MODIFIED,
    ),
    Operation("POST", THREAD + "/state", state.post, "Update the state", "threads", StateUpdateResponse, StateUpdate),
    Operation(
        "POST",
        THREAD + "/state/checkpoint",
        state.post_at,
        "Get the state at a checkpoint",
        "threads",
        StateResponse,
        StateAtCheckpoint,
    ),
    Operation(
        "GET",
        THREAD + "/state/{checkpoint_id}",
        state.get_at,
        "Get the state at a checkpoint",
        "threads",
        StateResponse,
        query=StateQuery,
        also=NOT_MODIFIED,
    ),
    Operation(
        "GET",
        THREAD + "/history",
        state.get_history,
        "List past states",
        "threads",
        list[StateResponse],
        query=PastStatesQuery,
        also=NOT_MODIFIED,
    ),
    Operation(
        "POST",
        THREAD + "/history",
        state.post_history,
        "List past states",
        "threads",
        list[StateResponse],
        HistoryQuery,
    ),
    Operation(
        "POST",
        "/threads",
        threads.create,
        "Create a thread",
        "threads",
        ThreadResponse,
        ThreadCreate,
        also={201: "The thread was created, but its supersteps had no effect"},
    ),
    Operation(
        "POST", "/threads/search", threads.search, "Search threads", "threads", list[ThreadResponse], ThreadSearch
    ),
    Operation("POST", "/threads/count", threads.count, "Count threads", "threads", int, ThreadCount),
    Operation(
        "POST", "/threads/prune", threads.prune, "Delete or prune threads", "threads", PruneResponse, ThreadPrune
    ),
    Operation(
        "GET",
        THREAD + "/stream",
        threads.stream,
        "Stream all runs and updates of a thread",
        "threads",
        query=ThreadStreamQuery,
        streams=True,
    ),
    Operation(
        "GET", THREAD, threads.get, "Get a thread", "threads", ThreadResponse, query=ThreadQuery, also=NOT_MODIFIED
    ),
    Operation("POST", THREAD + "/copy", threads.copy, "Copy a thread", "threads", ThreadResponse),
    Operation("GET", THREAD + "/storage", threads.storage, "Get the storage of a thread", "threads", StorageResponse),
    Operation(
        "PATCH",
        THREAD,
        threads.patch,
        "Merge metadata, replace the TTL",
        "threads",
        ThreadResponse,
        ThreadPatch,
        also={204: "Done, with Prefer: return=minimal", **CHANGED},
    ),
    Operation("DELETE", THREAD, threads.delete, "Delete a thread", "threads", also={**NO_CONTENT, **CHANGED}),
    Operation(
        "POST",
        "/assistants/search",
        assistants.search,
        "Search assistants",
        "assistants",
        list[AssistantResponse],
        AssistantSearch,
    ),
    Operation("POST", "/assistants/count", assistants.count, "Count assistants", "assistants", int, AssistantCount),
    Operation(
        "POST",
        "/assistants",
        assistants.create,
        "Create an assistant",
        "assistants",
        AssistantResponse,
        AssistantCreate,
    ),
    Operation("GET", ASSISTANT, assistants.get, "Get an assistant", "assistants", AssistantResponse, also=NOT_MODIFIED),
    Operation(
        "PATCH", ASSISTANT, assistants.patch, "Make a new version", "assistants", AssistantResponse, AssistantPatch
    ),
    Operation(
        "POST",
        ASSISTANT + "/versions",
        assistants.versions,
        "List versions",
        "assistants",
        list[AssistantVersionResponse],
        AssistantVersions,
    ),
    Operation(
        "POST",
        ASSISTANT + "/latest",
        assistants.latest,
        "Make a version the current one",
        "assistants",
        AssistantResponse,
        AssistantLatest,
    ),
    Operation(
        "DELETE",
        ASSISTANT,
        deletion.delete,
        "Delete an assistant",
        "assistants",
        query=AssistantDeleteQuery,
        also=NO_CONTENT,
    ),
    Operation(
        "GET", ASSISTANT + "/graph", graphs.drawing, "Draw the graph", "assistants", GraphResponse, query=GraphQuery
    ),
    Operation("GET", ASSISTANT + "/schemas", graphs.schemas, "Get the schemas", "assistants", SchemasResponse),
    Operation(
        "GET",
        ASSISTANT + "/subgraphs",
        graphs.subgraphs,
        "Get the schemas of subgraphs",
        "assistants",
        dict[str, SchemasResponse],
        query=SubgraphsQuery,
    ),
    Operation(
        "GET",
        ASSISTANT + "/subgraphs/{namespace}",
        graphs.subgraphs,
        "Get the schemas of a subgraph",
        "assistants",
        dict[str, SchemasResponse],
        query=SubgraphsQuery,
    ),
    Operation("PUT", ITEMS, store.put, "Put an item", "store", body=ItemPut, also=NO_CONTENT, plain=True),
    Operation("GET", ITEMS, store.get, "Get an item", "store", ItemResponse | None, query=ItemQuery, plain=True),
    Operation("DELETE", ITEMS, store.delete, "Delete an item", "store", body=ItemPlace, also=NO_CONTENT, plain=True),
    Operation("POST", ITEMS + "/search", store.search, "Search", "store", FoundItemsResponse, ItemSearch, plain=True),
    Operation(
        "POST",
        "/store/namespaces",
        store.namespaces,
        "List namespaces",
        "store",
        NamespacesResponse,
        NamespaceSearch,
        plain=True,
    ),
    Operation("GET", "/ok", system.ok, "Health", "system", HealthResponse, query=HealthCheckQuery),
    Operation("GET", "/", system.ok, "Health", "system", HealthResponse, query=HealthCheckQuery),
    Operation(
        "GET",
        "/ready",
        system.ready,
        "Readiness, with the state of dependencies and partitions",
        "system",
        ReadinessResponse,
        also={503: "Not ready"},
    ),
    Operation(
        "GET",
        "/metrics",
        metrics.metrics,
        "Metrics as Prometheus text, or as JSON with format=json",
        "system",
        MetricsResponse,
        query=MetricsQuery,
        text="text/plain",
    ),
    Operation("GET", "/info", system.info, "Version and features", "system", InfoResponse),
)

NOT_IMPLEMENTED: Sequence[tuple[str, str]] = (
    ("GET", "/.well-known/agent-card.json"),
    ("GET", "/a2a/{assistant_id}"),
    ("POST", "/a2a/{assistant_id}"),
    ("GET", "/mcp"),
    ("POST", "/mcp"),
    ("DELETE", "/mcp"),
    ("POST", THREAD + "/commands"),
    ("POST", THREAD + "/stream/events"),
    ("GET", "/ui/{path:path}"),
    ("POST", "/ui/{path:path}"),
)
"""Endpoints of the contract that answer 404 `not implemented by agentlog VERSION`."""
NOT_IMPLEMENTED_WEBSOCKETS: Sequence[str] = (THREAD + "/stream/events",)
"""WebSocket endpoints of the contract that are closed with the same text, and with 4404 as the code."""


def operations_by_path() -> dict[str, list[Operation]]:
    """Return all operations by path, not implemented ones too.

    A path without a parameter at its end comes before the paths whose parameter would match it. An operation that is
    listed twice is a defect: for example one that is served, but was left in NOT_IMPLEMENTED.
    """
    later = [
        Operation(method, path, system.not_implemented, "Not implemented yet", "later")
        for method, path in NOT_IMPLEMENTED
    ]
    listed = Counter((one.method, _PARAMETER.sub("{}", one.path)) for one in (*OPERATIONS, *later))
    twice = sorted(f"{method} {path}" for (method, path), count in listed.items() if count > 1)
    if twice:
        raise AssertionError(f"listed twice, in OPERATIONS or NOT_IMPLEMENTED: {', '.join(twice)}")
    found: dict[str, list[Operation]] = {}
    for operation in (*OPERATIONS, *later):
        found.setdefault(operation.path, []).append(operation)
    return dict(sorted(found.items(), key=lambda item: "{" in item[0].rpartition("/")[2]))
