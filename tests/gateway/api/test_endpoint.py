"""URLs of requests as an endpoint sees them."""

import pytest
from httpx2 import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from tests.fakes.memory_log import MemoryLog
from tests.gateway.web_env import NOWHERE, dependencies, detail

from agentlog_facts.json_value import Json, JsonObject
from agentlog_gateway.api.endpoint import Endpoint, Operation
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.http.responses import json_response
from agentlog_gateway.schemas.queries import PastStatesQuery
from agentlog_postgres.connection import open_pool


async def ask(path: str) -> Response:
    """Send a request to an endpoint that returns its path and query."""

    async def handler(context: RequestContext) -> Response:
        query: JsonObject = dict(context.request.query_params)
        path: Json = context.request.path_params["name"]
        return json_response({"path": path, "query": query, "limit": context.query(PastStatesQuery).limit})

    pool = await open_pool(NOWHERE, 2)
    wired = dependencies(MemoryLog(), pool)
    operation = Operation("GET", "/at/{name}", handler, "", "")
    app = Starlette(routes=[Route("/at/{name}", Endpoint(lambda: wired, "/at/{name}", [operation]))])
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        answer = await client.get(path)
    await pool.close()
    return Response(answer.content, answer.status_code)


async def test_a_nul_in_a_url_is_replaced_as_in_a_body() -> None:
    answer = await ask("/at/a%00b?before=%00&c%00=d")
    assert answer.body == '{"path":"a\ufffdb","query":{"before":"\ufffd","c\ufffd":"d"},"limit":1}'.encode()


@pytest.mark.parametrize("number", [10**23, -(10**23), 2**31, "9" * 5000, "1.5", ""])
async def test_a_number_that_nothing_can_count_to_is_refused(number: int | str) -> None:
    answer = await ask(f"/at/a?limit={number}")
    assert (answer.status_code, detail(bytes(answer.body))[:13]) == (422, "Invalid limit")
