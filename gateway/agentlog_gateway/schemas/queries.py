"""Models of query strings; openapi.json is made from them.

A model gets the list of all values of a name, and the last one counts. Unknown names are ignored.
Source: docs/http-api.md, sections 3, 6, 7.6 and 9.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from agentlog_facts.thread import CancelAction
from agentlog_gateway.http.errors import Problem, invalid
from agentlog_gateway.schemas.requests import MOST


def _last(given: list[str]) -> str:
    return given[-1]


def _flag(given: list[str]) -> bool:
    return given[-1].lower() in {"1", "true", "yes", "on"}


def _number(given: list[str], info: ValidationInfo) -> int:
    return _whole_number(given[-1], str(info.field_name), 422)


def _page_number(given: list[str], info: ValidationInfo) -> int:
    return _whole_number(given[-1], str(info.field_name), 400)


def _whole_number(text: str, name: str, status: int) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise Problem(status, f"Invalid {name} {text}") from error
    if abs(number) > MOST:
        raise Problem(status, f"Invalid {name}: expected at most {MOST}")
    return number


def _split(given: list[str]) -> list[str]:
    return [name for text in given for name in text.split(",") if name]


def _action(given: list[str]) -> str:
    if given[-1] not in ("interrupt", "rollback"):
        raise invalid(f"action: expected interrupt or rollback, found {given[-1]!r}")
    return given[-1]


Text: TypeAlias = Annotated[str, BeforeValidator(_last)]
Flag: TypeAlias = Annotated[bool, BeforeValidator(_flag), Field(description="1, true, yes or on; anything else is no")]
Number: TypeAlias = Annotated[int, BeforeValidator(_number)]
PageNumber: TypeAlias = Annotated[int, BeforeValidator(_page_number)]
"""A number whose errors have status 400, as the API defines it for the list of runs."""
StateSelect: TypeAlias = Annotated[
    list[str], BeforeValidator(_split), Field(description="names of fields, or values.KEY; repeated or after commas")
]


class QueryString(BaseModel):
    """Parameters of a query string."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class HealthCheckQuery(QueryString):
    """GET /ok."""

    check_db: Flag = False


class MetricsQuery(QueryString):
    """GET /metrics."""

    format: Annotated[Literal["prometheus", "json"], BeforeValidator(_last)] = "prometheus"


class RunListQuery(QueryString):
    """GET /threads/{thread_id}/runs. The endpoint checks ranges and names, because the API defines their statuses."""

    limit: Annotated[PageNumber, Field(json_schema_extra={"minimum": 1, "maximum": 1000})] = 10
    offset: Annotated[PageNumber, Field(json_schema_extra={"minimum": 0})] = 0
    status: Text | None = None
    select: list[str] = Field(default_factory=list[str])


class JoinQuery(QueryString):
    """GET /threads/{thread_id}/runs/{run_id}/join."""

    cancel_on_disconnect: Flag = False


class JoinStreamQuery(JoinQuery):
    """GET /threads/{thread_id}/runs/{run_id}/stream."""

    stream_mode: list[str] = Field(default_factory=list[str], description="repeated, after commas, or a JSON list")


class ThreadStreamQuery(QueryString):
    """GET /threads/{thread_id}/stream: `stream_mode` is what the SDK sends."""

    stream_modes: list[str] = Field(default_factory=list[str], description="repeated, after commas, or a JSON list")
    stream_mode: list[str] = Field(default_factory=list[str], description="another name of stream_modes")


class ActionQuery(QueryString):
    """POST /runs/cancel."""

    action: Annotated[CancelAction, BeforeValidator(_action)] = "interrupt"


class CancelQuery(ActionQuery):
    """POST /threads/{thread_id}/runs/{run_id}/cancel and .../runs/cancel."""

    wait: Flag = False


class ThreadQuery(QueryString):
    """GET /threads/{thread_id}. Other names in `include` are ignored."""

    include: StateSelect = Field(default_factory=list[str], description="`ttl` adds the time to live")


class StateQuery(QueryString):
    """GET /threads/{thread_id}/state and .../state/{checkpoint_id}."""

    subgraphs: Flag = False
    select: StateSelect = Field(default_factory=list[str])


class PastStatesQuery(QueryString):
    """GET /threads/{thread_id}/history; a limit of zero or less returns nothing."""

    limit: Number = 1
    before: Text | None = Field(None, description="a checkpoint id")
    select: StateSelect = Field(default_factory=list[str])
