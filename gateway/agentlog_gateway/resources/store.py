"""Endpoints of the store: put, get, delete, search, namespaces. Source: docs/http-api.md, section 16."""

from collections.abc import Sequence

from starlette.responses import Response

from agentlog_commands.command import Decision
from agentlog_commands.store import WriteItems
from agentlog_commands.submit import Submitted, Voided
from agentlog_facts.errors import Unavailable
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.store import StoreItemDeleted, StoreItemFact, StoreItemPut, store_key
from agentlog_facts.store_ports import (
    BadItem,
    Condition,
    Namespace,
    StoredItem,
    UnsupportedOperator,
    check_paths,
    check_place,
    conditions,
)
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.http.errors import PlainProblem, Problem, invalid
from agentlog_gateway.http.responses import json_response, no_content, time_text
from agentlog_gateway.schemas.store_requests import ItemPlace, ItemPut, ItemQuery, ItemSearch, NamespaceSearch

KEY_IS_REQUIRED = "Key is required"
RESERVED = "langgraph"
"""The first label that belongs to LangGraph itself."""


async def put(context: RequestContext) -> Response:
    """PUT /store/items: the last writer wins, also over puts of graphs."""
    body = await context.body(ItemPut)
    namespace = _writable(body)
    return await _write(context, StoreItemPut(namespace, body.key, body.value))


async def delete(context: RequestContext) -> Response:
    """DELETE /store/items: 204 also if there is no such item."""
    body = await context.body(ItemPlace)
    return await _write(context, StoreItemDeleted(_writable(body), body.key))


async def _write(context: RequestContext, fact: StoreItemFact) -> Response:
    namespace, dependencies = fact.namespace, context.dependencies
    key = store_key(namespace)

    async def decide() -> Decision:
        await dependencies.store.check_writable(namespace, dependencies.log.partition_of(key))
        return WriteItems(namespace, (fact,)).decide()

    target: JsonObject = {"namespace": list(namespace), "key": fact.key}
    match await context.submit("WriteItems", key, decide, target=target):
        case Submitted() as done:
            return no_content(context.token(done))
        case Voided(void=void):  # the commit has no demands, so only a broken partition causes this
            raise Unavailable(f"store {list(namespace)}: the log did not accept the item: {void.reason}")
        case refused:
            raise TypeError(f"store {list(namespace)}: expected no refusal, found {refused.reason}")


async def get(context: RequestContext) -> Response:
    """GET /store/items: null if there is no such item."""
    query = context.query(ItemQuery)
    if query.key is None:
        return json_response({"error": KEY_IS_REQUIRED, "detail": KEY_IS_REQUIRED}, status=400)
    namespace = _labels(query.namespace.split("."))
    _check_place(namespace, query.key)
    found = await context.dependencies.store.item(namespace, query.key)
    return json_response(None if found is None else _item_json(found))


async def search(context: RequestContext) -> Response:
    """POST /store/items/search: the last item put comes first."""
    body = await context.body(ItemSearch)
    prefix = _labels(body.namespace_prefix or ())
    where = _conditions(body.filter)
    found = await context.dependencies.store.search(prefix, where, body.limit, body.offset)
    return json_response({"items": [{**_item_json(one), "score": None} for one in found]})


async def namespaces(context: RequestContext) -> Response:
    """POST /store/namespaces: in order."""
    body = await context.body(NamespaceSearch)
    prefixes, suffixes = ([_labels(path)] if path else [] for path in (body.prefix, body.suffix))
    found = await context.dependencies.store.namespaces(prefixes, suffixes, body.max_depth, body.limit, body.offset)
    listed: list[Json] = [list(one) for one in found]
    return json_response({"namespaces": listed})


def _writable(body: ItemPlace) -> Namespace:
    """Return the namespace of an item that is written. Raises: Problem 400, 422."""
    namespace = _labels(body.namespace)
    if not namespace:
        raise Problem(400, "Namespace cannot be empty")
    if namespace[0] == RESERVED:
        raise Problem(400, f'The first label of a namespace cannot be "{RESERVED}"')
    _check_place(namespace, body.key)
    return namespace


def _labels(labels: Sequence[str]) -> Namespace:
    """Return labels as a namespace. Raises: Problem 422."""
    for label in labels:
        if not label:
            raise PlainProblem(422, f"Invalid namespace {list(labels)}: a label cannot be empty")
        if "." in label:
            raise PlainProblem(422, f"Invalid namespace label {label!r}: a label cannot contain periods ('.')")
    namespace = tuple(labels)
    try:
        check_paths(namespace)
    except BadItem as error:
        raise invalid(str(error)) from error
    return namespace


def _check_place(namespace: Namespace, key: str) -> None:
    try:
        check_place(namespace, key)
    except BadItem as error:
        raise invalid(str(error)) from error


def _conditions(wanted: JsonObject | None) -> list[Condition]:
    try:
        return conditions(wanted)
    except UnsupportedOperator as error:
        raise Problem(400, str(error)) from error
    except BadItem as error:
        raise invalid(str(error)) from error


def _item_json(item: StoredItem) -> JsonObject:
    return {
        "namespace": list(item.namespace),
        "key": item.key,
        "value": item.value,
        "created_at": time_text(item.created_at),
        "updated_at": time_text(item.updated_at),
    }
