"""Models of response bodies, as openapi.json documents them; tests check the responses against them.

Source: docs/http-api.md, sections 3, 4.1, 5.1, 6 and 7.2.
"""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from agentlog_commands.run_request import Strategy
from agentlog_facts.json_value import Json
from agentlog_facts.thread import RunStatus
from agentlog_gateway.schemas.requests import AnyJson, AnyObject, ThreadStatus


class ErrorResponse(BaseModel):
    """A refusal."""

    detail: str


class AssistantVersionResponse(BaseModel):
    """A version of an assistant; `created_at` is the time of the version."""

    assistant_id: UUID
    graph_id: str
    config: AnyObject
    context: AnyObject
    metadata: AnyObject
    name: str
    created_at: datetime
    version: int
    description: str | None


class AssistantResponse(AssistantVersionResponse):
    """An assistant; `select` leaves fields out."""

    updated_at: datetime


class CronResponse(BaseModel):
    """A cron; `select` leaves fields out. `next_run_date` is null if no slot comes before `end_time`."""

    cron_id: str
    assistant_id: str
    thread_id: str | None
    user_id: str
    end_time: datetime | None
    schedule: str
    timezone: str | None
    payload: AnyObject
    next_run_date: datetime | None
    metadata: AnyObject
    on_run_completed: Literal["delete", "keep"] | None
    enabled: bool
    created_at: datetime
    updated_at: datetime


class GraphNode(BaseModel):
    """A node of a drawing; `__end__` has an id only."""

    id: str | int
    type: str | None = None
    data: AnyJson = Field(default=None, description="its name, and the path of its class")
    metadata: AnyJson = None


class GraphEdge(BaseModel):
    """An edge of a drawing."""

    source: str | int
    target: str | int
    data: AnyJson = Field(default=None, description="the name of a branch")
    conditional: bool = False


class GraphResponse(BaseModel):
    """The drawing of a graph."""

    nodes: list[GraphNode]
    edges: list[GraphEdge]


class SchemasResponse(BaseModel):
    """JSON schemas of a graph; null where its classes have none."""

    graph_id: str
    input_schema: AnyObject | None
    output_schema: AnyObject | None
    state_schema: AnyObject | None
    config_schema: AnyObject | None
    context_schema: AnyObject | None


class InterruptResponse(BaseModel):
    """An interrupt of a graph."""

    id: str
    value: AnyJson
    response_schema: AnyJson = None


class ErrorDescription(BaseModel):
    """An exception of a graph: its class and its text."""

    error: str
    message: str


class TtlResponse(BaseModel):
    """Time to live of a thread; `expires_at` is null for a thread that was pruned and not updated since."""

    strategy: Literal["delete", "keep_latest"]
    ttl_minutes: float
    expires_at: datetime | None


class ThreadResponse(BaseModel):
    """A thread; `select` leaves fields out, `extracted` and `ttl` are present only on request."""

    thread_id: UUID
    created_at: datetime
    updated_at: datetime
    state_updated_at: datetime
    metadata: AnyObject
    status: ThreadStatus
    config: AnyObject
    values: AnyJson = Field(description="the last state, null before the first")
    error: ErrorDescription | None
    interrupts: dict[str, list[InterruptResponse]] = Field(description="open interrupts by the id of their task")
    extracted: AnyObject = Field(default_factory=dict[str, Json])
    ttl: TtlResponse | None = None


class PruneResponse(BaseModel):
    """The number of threads that were deleted or pruned."""

    pruned_count: int


class SizeResponse(BaseModel):
    """A number of stored things and their bytes."""

    count: int
    bytes: int


class ChannelSizeResponse(BaseModel):
    """The stored versions of a channel and their bytes."""

    versions: int
    bytes: int


class ChannelSizesResponse(SizeResponse):
    """The stored versions of all channels and their bytes."""

    by_channel: dict[str, ChannelSizeResponse]


class StorageResponse(BaseModel):
    """Storage that the visible checkpoints of a thread use."""

    thread_id: UUID
    total_bytes: int
    checkpoints: SizeResponse
    channel_values: ChannelSizesResponse
    pending_writes: SizeResponse


class BlockedResponse(BaseModel):
    """Reason for which nobody can take a run, and since when it waits."""

    reason: str
    since: datetime
    waiting_secs: float


class RunResponse(BaseModel):
    """A run; `select` leaves fields out."""

    run_id: UUID
    thread_id: UUID
    assistant_id: UUID
    created_at: datetime
    updated_at: datetime
    status: RunStatus
    metadata: AnyObject
    kwargs: AnyObject = Field(description="the arguments of the run's creation")
    multitask_strategy: Strategy
    langsmith_session_name: None
    cancel_reason: str | None = Field(default=None, description="who cancelled the run")
    blocked: BlockedResponse | None = Field(default=None, description="only of a run that nobody can take")


class CheckpointAddress(BaseModel):
    """The address of a checkpoint."""

    thread_id: str
    checkpoint_id: str | None = None
    checkpoint_ns: str = ""
    checkpoint_map: AnyObject | None = None


class TaskResponse(BaseModel):
    """A task of a step; a task that is a subgraph has its checkpoint, or its state if the request wants it."""

    id: str
    name: str
    path: AnyJson
    error: str | None
    interrupts: list[InterruptResponse]
    checkpoint: CheckpointAddress | None
    state: "StateResponse | None"
    result: AnyJson


class StateResponse(BaseModel):
    """The state of a thread at a checkpoint; `select` leaves fields out."""

    values: AnyJson
    next: list[str]
    tasks: list[TaskResponse]
    metadata: AnyObject | None
    created_at: datetime | None
    checkpoint: CheckpointAddress | None
    parent_checkpoint: CheckpointAddress | None
    interrupts: list[InterruptResponse]
    checkpoint_id: str | None
    parent_checkpoint_id: str | None


class StateUpdateResponse(BaseModel):
    """The checkpoint that an update of the state created, under three names."""

    checkpoint: CheckpointAddress
    configurable: CheckpointAddress
    checkpoint_id: str


class ItemResponse(BaseModel):
    """An item of the store."""

    namespace: list[str]
    key: str
    value: AnyObject
    created_at: datetime
    updated_at: datetime


class FoundItemResponse(ItemResponse):
    """An item that a search has found."""

    score: None = Field(description="there is no search by meaning yet")


class FoundItemsResponse(BaseModel):
    """A page of items, the last one put first."""

    items: list[FoundItemResponse]


class NamespacesResponse(BaseModel):
    """A page of namespaces, in order."""

    namespaces: list[list[str]]


class HealthResponse(BaseModel):
    """The server answers; `services` names the dependencies that were checked."""

    ok: Literal[True]
    services: dict[str, Literal["ok"]]


class PartitionsResponse(BaseModel):
    """Partitions of the log in the projection: how many are folded, which are being built, which stopped and why."""

    present: int
    building: list[int]
    stopped: dict[str, str]
    stalled: dict[str, str] = Field(description="partitions without progress, with the reason")
    behind: int = Field(description="number of records that the projection has not folded yet")


class WorkersResponse(BaseModel):
    """Workers that died in the last ten minutes, and runs that are executed alone because their worker died."""

    deaths: int
    suspects: int


class UnservedRunsResponse(BaseModel):
    """Pending runs that nobody can take."""

    runs: int
    oldest_secs: float
    reason: str


class ReadinessResponse(BaseModel):
    """Readiness to serve requests, unavailable dependencies, faulty partitions and quarantined aggregates."""

    ready: bool
    services: dict[str, str]
    partitions: PartitionsResponse | None
    quarantined: dict[str, int] | None = Field(description="number of aggregates by read model")
    workers: WorkersResponse | None
    unserved: dict[str, UnservedRunsResponse] | None = Field(description="runs of graphs that are not configured")


class QueueResponse(BaseModel):
    """Runs that have not ended, and the seconds that those which are due have waited."""

    n_pending: int
    n_running: int
    pending_runs_wait_time_max_secs: float | None
    pending_runs_wait_time_med_secs: float | None
    pending_unblocked_runs_wait_time_max_secs: float | None


class RequestCountResponse(BaseModel):
    """Number of requests to this gateway with one method, path template and status."""

    method: str
    path: str
    status: int
    count: int


class ApiMetricsResponse(BaseModel):
    """Requests to this gateway."""

    http_requests_total: list[RequestCountResponse]


class JobsResponse(BaseModel):
    """Runs that all workers may execute at once, and those that they execute."""

    max: int
    active: int
    available: int


class MetricsResponse(BaseModel):
    """Metrics of the queue, of this gateway's requests, and of the workers."""

    queue: QueueResponse
    api: ApiMetricsResponse
    workers: JobsResponse


class ServerResponse(BaseModel):
    """The server itself."""

    name: str
    version: str


class InfoResponse(BaseModel):
    """Version of the API, features, and the server."""

    version: str
    langgraph_py_version: str
    flags: dict[str, bool]
    host: dict[str, str | None]
    server: ServerResponse
