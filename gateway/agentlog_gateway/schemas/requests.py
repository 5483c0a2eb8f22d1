"""Models of request bodies; openapi.json is made from them.

Unknown fields are ignored. Fields of the API that this release does not support yet are refused, never ignored.
Source: docs/http-api.md, sections 5 and 6.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetPydanticSchema
from pydantic_core import CoreSchema, core_schema

from agentlog_facts.configurable import RESERVED_THREAD_METADATA
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.version import VERSION
from agentlog_gateway.http.errors import invalid

_UUID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}")
"""Python's UUID also takes braces, signs, `urn:uuid:`, underscores and the digits of other scripts."""
MOST = 2**31 - 1
"""Upper bound of offsets and numbers of rows."""


def _any_json(_source: object, _handler: object) -> CoreSchema:
    return core_schema.any_schema()


def _any_object(_source: object, _handler: object) -> CoreSchema:
    return core_schema.dict_schema(keys_schema=core_schema.str_schema())


def canonical_uuid(text: str) -> str | None:
    """Return a UUID in lower case with dashes; None for a text that is no UUID."""
    return str(UUID(text)) if _UUID.fullmatch(text) else None


def _uuid(text: str) -> str:
    found = canonical_uuid(text)
    if found is None:
        raise ValueError("must be a UUID")
    return found


def _without_reserved(metadata: JsonObject) -> JsonObject:
    return {name: value for name, value in metadata.items() if name not in RESERVED_THREAD_METADATA}


def _later(value: object) -> None:
    if value is not None:
        raise ValueError(f"this field is not supported yet by agentlog {VERSION}")


# The values were parsed from JSON, so pydantic need not check their parts.
AnyJson: TypeAlias = Annotated[Json, GetPydanticSchema(_any_json)]
AnyObject: TypeAlias = Annotated[JsonObject, GetPydanticSchema(_any_object)]
ThreadMetadata: TypeAlias = Annotated[AnyObject, AfterValidator(_without_reserved)]
Uuid: TypeAlias = Annotated[str, AfterValidator(_uuid), Field(json_schema_extra={"format": "uuid"})]
NotSupported: TypeAlias = Annotated[None, BeforeValidator(_later), Field(description="not supported yet")]
Limit: TypeAlias = Annotated[int, Field(ge=1, le=1000)]
Offset: TypeAlias = Annotated[int, Field(ge=0, le=MOST)]
IfExists: TypeAlias = Literal["raise", "do_nothing"]
SortOrder: TypeAlias = Literal["asc", "desc"]
Strategy: TypeAlias = Literal["delete", "keep_latest"]
LONGEST_TTL_MINUTES = 60 * 24 * 366 * 100
ThreadStatus: TypeAlias = Literal["idle", "busy", "interrupted", "error"]
ThreadSelect: TypeAlias = Literal[
    "thread_id",
    "created_at",
    "updated_at",
    "state_updated_at",
    "metadata",
    "config",
    "status",
    "values",
    "interrupts",
    "error",
]


class Body(BaseModel):
    """A JSON body: types are not converted, unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class Send(Body):
    """A node and the input that it gets."""

    node: str
    input: AnyJson

    def stored(self) -> JsonObject:
        """Return it as a run stores it."""
        return {"node": self.node, "input": self.input}


class Command(Body):
    """A command to a thread that waits. Source: docs/http-api.md, section 13."""

    update: AnyObject | list[AnyJson] | None = None
    resume: AnyJson = None
    goto: str | list[str] | Send | list[Send] | None = None

    def stored(self) -> JsonObject:
        """Return it as a run stores it."""
        return {"update": self.update, "resume": self.resume, "goto": _goto(self.goto)}


def _goto(goto: str | list[str] | Send | list[Send] | None) -> Json:
    match goto:
        case Send():
            return goto.stored()
        case list():
            return [item.stored() if isinstance(item, Send) else item for item in goto]
        case _:
            return goto


class Ttl(Body):
    """Time to live of a thread, in minutes after its last update, and what is done then."""

    ttl: Annotated[float, Field(gt=0, le=LONGEST_TTL_MINUTES, allow_inf_nan=False)]
    strategy: Strategy = "delete"

    @property
    def fact(self) -> JsonObject:
        """Return the TTL as facts hold it."""
        minutes = int(self.ttl) if self.ttl.is_integer() else self.ttl
        return {"strategy": self.strategy, "ttl_minutes": minutes}


class SuperstepUpdate(Body):
    """An update of a superstep; `command` ({update, resume, goto}) takes the place of `values`."""

    values: AnyObject | list[AnyJson] | None = None
    command: Command | None = None
    as_node: str | None = None


class Superstep(Body):
    """Updates that are applied together, as those of nodes that ran at the same time."""

    updates: list[SuperstepUpdate] = Field(min_length=1, max_length=1000)


class ThreadCreate(Body):
    """POST /threads."""

    thread_id: Uuid | None = None
    metadata: ThreadMetadata = Field(default_factory=dict[str, Json])
    if_exists: IfExists = "raise"
    ttl: Ttl | None = None
    supersteps: list[Superstep] = Field(default_factory=list[Superstep], max_length=1000)


class ThreadPatch(Body):
    """PATCH /threads/{thread_id}."""

    metadata: ThreadMetadata = Field(default_factory=dict[str, Json])
    ttl: Ttl | None = None


class ThreadPrune(Body):
    """POST /threads/prune."""

    thread_ids: list[Uuid] = Field(max_length=1000)
    strategy: Strategy = "delete"


class ThreadCount(Body):
    """POST /threads/count."""

    metadata: AnyObject = Field(default_factory=dict[str, Json])
    exclude_metadata: AnyObject | list[AnyObject] = Field(default_factory=dict[str, Json])
    values: AnyObject = Field(default_factory=dict[str, Json])
    status: ThreadStatus | None = None

    @property
    def excluded(self) -> Sequence[JsonObject]:
        """Return the filters of metadata that a thread must not match."""
        return self.exclude_metadata if isinstance(self.exclude_metadata, list) else [self.exclude_metadata]


class ThreadSearch(ThreadCount):
    """POST /threads/search."""

    ids: list[Uuid] = Field(default_factory=list[str])
    limit: Limit = 10
    offset: Offset = 0
    sort_by: Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"] = "updated_at"
    sort_order: SortOrder = "desc"
    select: list[ThreadSelect] | None = None
    extract: dict[str, str] | None = Field(None, max_length=10)


class CheckpointRef(Body):
    """Reference to a checkpoint; a namespace alone means the latest checkpoint of a subgraph."""

    checkpoint_id: str | None = None
    checkpoint_ns: str | None = None
    thread_id: str | None = None
    checkpoint_map: AnyObject | None = None


class CheckpointTarget(CheckpointRef):
    """Reference to the checkpoint from which a write continues."""

    checkpoint_id: Uuid | None = None


class StateAtCheckpoint(Body):
    """POST /threads/{thread_id}/state/checkpoint."""

    checkpoint: CheckpointRef
    subgraphs: bool = False
    select: list[str] | None = None


class StateUpdate(Body):
    """POST /threads/{thread_id}/state."""

    values: AnyObject | list[AnyJson] | None = None
    as_node: str | None = None
    checkpoint: CheckpointTarget | None = None
    checkpoint_id: Uuid | None = None


class HistoryQuery(Body):
    """POST /threads/{thread_id}/history; `before` is a checkpoint id, or an object that holds one, flat or nested."""

    limit: Limit = 1
    before: str | AnyObject | None = None
    metadata: AnyObject | None = None
    checkpoint: CheckpointRef | None = None
    select: list[str] | None = None


def path_uuid(kind: str, text: str) -> str:
    """Return the id of a path in canonical form. Raises: Problem 422."""
    found = canonical_uuid(text)
    if found is None:
        raise invalid(f"Invalid {kind} ID: must be a UUID")
    return found
