"""Models of bodies of crons; openapi.json is made from them. Source: docs/http-api.md, section 14."""

from datetime import UTC, datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from agentlog_commands.crons.schedule import Schedule, zone_of
from agentlog_commands.run_request import Durability, Strategy
from agentlog_facts.json_value import Json
from agentlog_gateway.schemas.requests import AnyJson, AnyObject, Body, Limit, NotSupported, Offset, SortOrder, Uuid
from agentlog_gateway.schemas.run_requests import Nodes, RunConfig, StreamModes

CronSelect: TypeAlias = (
    Literal["user_id"]
    | Literal[
        "cron_id",
        "assistant_id",
        "thread_id",
        "end_time",
        "schedule",
        "timezone",
        "payload",
        "next_run_date",
        "metadata",
        "on_run_completed",
        "enabled",
        "created_at",
        "updated_at",
    ]
)


def _schedule(text: str) -> str:
    return Schedule.parse(text).text


def _timezone(name: str) -> str:
    zone_of(name)
    return name


def _time(given: object) -> object:
    """Return the time of an ISO 8601 text; one without an offset is in UTC."""
    if not isinstance(given, str):
        return given
    try:
        found = datetime.fromisoformat(given)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("expected a time in ISO 8601") from None


ScheduleText: TypeAlias = Annotated[str, AfterValidator(_schedule)]
Timezone: TypeAlias = Annotated[str, AfterValidator(_timezone)]
Time: TypeAlias = Annotated[datetime, BeforeValidator(_time, json_schema_input_type=str)]
OnRunCompleted: TypeAlias = Literal["delete", "keep"]


class _Payload(Body):
    """Fields of the runs of a cron."""

    input: AnyJson = None
    metadata: AnyObject = Field(default_factory=dict[str, Json])
    config: RunConfig | None = None
    context: AnyObject | None = None
    interrupt_before: Nodes | None = None
    interrupt_after: Nodes | None = None
    stream_mode: StreamModes | None = None
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    durability: Durability | None = None
    checkpoint_during: bool | None = None
    multitask_strategy: Strategy = "enqueue"
    webhook: NotSupported = None
    timezone: Timezone | None = None
    end_time: Time | None = None
    enabled: bool = True


class ThreadCron(_Payload):
    """POST /threads/{thread_id}/runs/crons."""

    assistant_id: str
    schedule: ScheduleText


class StatelessCron(ThreadCron):
    """POST /runs/crons."""

    on_run_completed: OnRunCompleted = "delete"


class CronPatch(_Payload):
    """PATCH /runs/crons/{cron_id}; a field that is not given keeps its value."""

    schedule: ScheduleText = Field(default_factory=str)
    on_run_completed: OnRunCompleted = "delete"


class CronCount(Body):
    """POST /runs/crons/count."""

    assistant_id: Uuid | None = None
    thread_id: Uuid | None = None
    enabled: bool | None = None
    metadata: AnyObject = Field(default_factory=dict[str, Json])


class CronSearch(CronCount):
    """POST /runs/crons/search."""

    limit: Limit = 10
    offset: Offset = 0
    sort_by: Literal[
        "cron_id", "assistant_id", "thread_id", "next_run_date", "end_time", "created_at", "updated_at"
    ] = "created_at"
    sort_order: SortOrder = "desc"
    select: list[CronSelect] | None = None
