"""Models of bodies and queries of the store; openapi.json is made from them. Source: docs/http-api.md, section 16."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from agentlog_facts.json_value import Json
from agentlog_facts.version import VERSION
from agentlog_gateway.schemas.queries import Flag, QueryString, Text
from agentlog_gateway.schemas.requests import MOST, AnyObject, Body, Limit, NotSupported, Offset


def _without_index(value: object) -> object:
    if value is not None and value is not False:
        raise ValueError(f"expected false or null, since agentlog {VERSION} does not support an index of the store yet")
    return value


NotIndexed = Annotated[
    Literal[False] | None, BeforeValidator(_without_index), Field(description="an index is not supported yet")
]
RefreshTtl = Annotated[bool | None, Field(description="without effect, since no item has a time to live yet")]


class ItemPlace(Body):
    """DELETE /store/items."""

    namespace: list[str]
    key: str


class ItemPut(ItemPlace):
    """PUT /store/items."""

    value: AnyObject
    index: NotIndexed = None
    ttl: NotSupported = None


class ItemQuery(QueryString):
    """GET /store/items."""

    namespace: Annotated[Text, Field(description="labels joined with dots")]
    key: Text | None = None
    refresh_ttl: Annotated[Flag, Field(description="without effect, since no item has a time to live yet")] = False


class ItemSearch(Body):
    """POST /store/items/search; without an index, `query` is ignored."""

    namespace_prefix: list[str] | None = None
    filter: AnyObject | None = Field(default_factory=dict[str, Json])
    limit: Limit = 10
    offset: Offset = 0
    query: str | None = None
    refresh_ttl: RefreshTtl = None


class NamespaceSearch(Body):
    """POST /store/namespaces; in `prefix` and `suffix`, `*` stands for one label."""

    prefix: list[str] | None = None
    suffix: list[str] | None = None
    max_depth: Annotated[int, Field(ge=1, le=MOST)] | None = None
    limit: Limit = 100
    offset: Offset = 0
