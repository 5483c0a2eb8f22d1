"""Models of bodies and queries of assistants; openapi.json is made from them. Source: docs/http-api.md, section 4."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from agentlog_commands.assistants import UNTITLED
from agentlog_facts.json_value import Json, JsonObject
from agentlog_gateway.http.errors import invalid
from agentlog_gateway.schemas.queries import Flag, QueryString
from agentlog_gateway.schemas.requests import MOST, AnyObject, Body, IfExists, Limit, Offset, SortOrder, Uuid
from agentlog_gateway.schemas.run_requests import RunConfig

AssistantSelect = Literal[
    "assistant_id",
    "graph_id",
    "name",
    "description",
    "config",
    "context",
    "metadata",
    "version",
    "created_at",
    "updated_at",
]

MOST_NAME_CHARS = 500
"""An entry of the index of names holds 2,704 bytes, and a character has at most four."""


class AssistantCount(Body):
    """POST /assistants/count."""

    metadata: AnyObject = Field(default_factory=dict[str, Json])
    graph_id: str | None = None
    name: str | None = None


class AssistantSearch(AssistantCount):
    """POST /assistants/search."""

    limit: Limit = 10
    offset: Offset = 0
    sort_by: Literal["assistant_id", "created_at", "updated_at", "name", "graph_id"] = "created_at"
    sort_order: SortOrder = "desc"
    select: list[AssistantSelect] | None = None


class AssistantCreate(Body):
    """POST /assistants."""

    graph_id: str
    assistant_id: Uuid | None = None
    config: RunConfig = Field(default_factory=RunConfig)
    context: AnyObject = Field(default_factory=dict[str, Json])
    metadata: AnyObject = Field(default_factory=dict[str, Json])
    name: str = Field(default=UNTITLED, max_length=MOST_NAME_CHARS)
    description: str | None = None
    if_exists: IfExists = "raise"


class AssistantPatch(Body):
    """PATCH /assistants/{assistant_id}; a field that is not given keeps its value, and null is accepted by none."""

    graph_id: str = Field(default_factory=str)
    config: RunConfig = Field(default_factory=RunConfig)
    context: AnyObject = Field(default_factory=dict[str, Json])
    metadata: AnyObject = Field(default_factory=dict[str, Json])
    name: str = Field(default_factory=str, max_length=MOST_NAME_CHARS)
    description: str = Field(default_factory=str)

    def text(self, field: Literal["graph_id", "name", "description"]) -> str | None:
        """Return a text if it was given."""
        given: str | None = getattr(self, field) if field in self.model_fields_set else None
        return given


class AssistantVersions(Body):
    """POST /assistants/{assistant_id}/versions."""

    metadata: AnyObject = Field(default_factory=dict[str, Json])
    limit: Limit = 10
    offset: Offset = 0


class AssistantLatest(Body):
    """POST /assistants/{assistant_id}/latest."""

    version: Annotated[int, Field(ge=-MOST, le=MOST)]


def config_of(config: RunConfig) -> JsonObject:
    """Return the config of an assistant in its stored form: the keys that were given, without those that are null."""
    given: JsonObject = config.model_dump(exclude_none=True)
    return given


def _depth(given: list[str]) -> bool | int:
    text = given[-1]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[0-9]{1,9}", text) is None or int(text) == 0:
        raise invalid(f"Invalid xray value: expected true, false or a positive integer, found {text[:100]!r}")
    return int(text)


class AssistantDeleteQuery(QueryString):
    """DELETE /assistants/{assistant_id}."""

    delete_threads: Flag = False


class GraphQuery(QueryString):
    """GET /assistants/{assistant_id}/graph."""

    xray: Annotated[
        bool | int, BeforeValidator(_depth), Field(description="true, false, or a number of levels from 1 on")
    ] = False


class SubgraphsQuery(QueryString):
    """GET /assistants/{assistant_id}/subgraphs and .../subgraphs/{namespace}."""

    recurse: Flag = False
