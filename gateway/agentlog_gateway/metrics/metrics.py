"""Endpoint of metrics: Prometheus text, or JSON. Source: docs/http-api.md, section 3."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from starlette.responses import Response

from agentlog_facts.errors import AgentlogError, Unavailable
from agentlog_facts.json_value import Json
from agentlog_gateway import timeouts
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.http.responses import json_response
from agentlog_gateway.metrics.exposition import ServerCollector, ServerFigures, available
from agentlog_gateway.schemas.queries import MetricsQuery

T = TypeVar("T")


async def metrics(context: RequestContext) -> Response:
    """GET /metrics: requests and process are those of this gateway, all else is of the whole server.

    The text leaves out what a dependency that is away would tell, so that the rest can still be scraped; the JSON form
    raises Unavailable.
    """
    if context.query(MetricsQuery).format == "json":
        return await _json(context)
    own = generate_latest(context.dependencies.requests.registry)
    registry = CollectorRegistry()
    registry.register(ServerCollector(await _figures(context)))
    return Response(own + generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _json(context: RequestContext) -> Response:
    dependencies = context.dependencies
    try:
        async with asyncio.timeout(timeouts.DEPENDENCY_CHECK_S):
            (queue, _), jobs = await asyncio.gather(dependencies.queue(), dependencies.jobs())
    except TimeoutError as error:
        raise Unavailable("metrics: a dependency did not answer in time") from error
    figures = ServerFigures({}, None, queue.running, jobs, None, None)
    requests: list[Json] = [
        {"method": one.method, "path": one.path, "status": one.status, "count": one.count}
        for one in dependencies.requests.requests()
    ]
    return json_response(
        {
            "queue": {
                "n_pending": queue.pending,
                "n_running": queue.running,
                "pending_runs_wait_time_max_secs": queue.longest_s,
                "pending_runs_wait_time_med_secs": queue.median_s,
                "pending_unblocked_runs_wait_time_max_secs": queue.longest_first_s,
            },
            "api": {"http_requests_total": requests},
            "workers": {"max": jobs, "active": queue.running, "available": available(figures)},
        }
    )


async def _figures(context: RequestContext) -> ServerFigures:
    dependencies = context.dependencies
    queue, jobs, deaths, projection, up = await asyncio.gather(
        _known(dependencies.queue()),
        _known(dependencies.jobs()),
        _known(dependencies.worker_deaths()),
        _known(dependencies.health()),
        asyncio.gather(*(_answers(check()) for check in dependencies.checks.values())),
    )
    return ServerFigures(
        up=dict(zip(dependencies.checks, up, strict=True)),
        queue=None if queue is None else queue[1],
        running=None if queue is None else queue[0].running,
        jobs=jobs,
        deaths=deaths,
        projection=projection,
    )


async def _known(question: Awaitable[T]) -> T | None:
    """Return the answer of a dependency, None if it gives none."""
    try:
        async with asyncio.timeout(timeouts.DEPENDENCY_CHECK_S):
            return await question
    except (AgentlogError, TimeoutError):
        return None


async def _answers(check: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(timeouts.DEPENDENCY_CHECK_S):
            await check
    except (AgentlogError, TimeoutError):
        return False
    return True
