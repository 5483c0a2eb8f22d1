"""Endpoints of the server itself: health, readiness, version. Source: docs/http-api.md, section 3."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import TypeVar

from starlette.responses import Response

from agentlog_facts.errors import AgentlogError, DependencyRefused
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.version import CONTRACT, VERSION
from agentlog_gateway import timeouts
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.http.errors import Problem
from agentlog_gateway.http.responses import json_response
from agentlog_gateway.schemas.queries import HealthCheckQuery
from agentlog_projections.queries.health import ProjectionHealth
from agentlog_projections.queries.run_health import RunHealth

log = logging.getLogger(__name__)

T = TypeVar("T")

OK = "ok"
AWAY = "away"
DATABASE = "database"
REDIS = "redis"

FLAGS: JsonObject = {
    "assistants": True,
    "crons": True,
    "langsmith": False,
    "langsmith_tracing_replicas": False,
    "langsmith_tracing_session_on_runs": False,
    "strict_resume": True,
}
HOST: JsonObject = {
    "kind": "self-hosted",
    "project_id": None,
    "host_revision_id": None,
    "revision_id": None,
    "tenant_id": None,
}


async def ok(context: RequestContext) -> Response:
    """GET /ok; with check_db=1 this checks every dependency and the projection, and 500 names what fails, and why."""
    if not context.query(HealthCheckQuery).check_db:
        return json_response({"ok": True, "services": {}})
    states = await _checked(context)
    health = None
    if _all_ok(states):
        states[DATABASE], health = await _asked(DATABASE, context.dependencies.health)
    away = [name for name, state in states.items() if state == AWAY]
    problems = [f"no answer from: {', '.join(away)}"] if away else []
    problems += [f"{name}: {state}" for name, state in states.items() if state not in (OK, AWAY)]
    problems += [f"partition {number}: {why}" for number, why in health.without_progress.items()] if health else []
    if problems:
        raise Problem(500, "; ".join(problems))
    return json_response({"ok": True, "services": _document(states)})


async def ready(context: RequestContext) -> Response:
    """GET /ready: 200 while requests can be served, else 503; the body lists dependencies and faulty partitions.

    A partition that makes no progress ends readiness: writes to its threads are not answered, and only an operator can
    change that. A partition that is being built, or that waits for a newer release, takes only its own threads out of
    service. Workers that die, and runs that nobody can take, do not end readiness.
    """
    states = await _checked(context)
    found: JsonObject = {"partitions": None, "quarantined": None, "workers": None, "unserved": None}
    serving = False
    if _all_ok(states):
        states[DATABASE], rows = await _asked(DATABASE, partial(_health, context))
        states[REDIS], deaths = await _asked(REDIS, context.dependencies.worker_deaths)
        if rows is not None and deaths is not None:
            projection, runs = rows
            found = {**_projection(projection), **_runs(context, runs, deaths)}
            serving = projection.present > 0 and not projection.without_progress
    is_ready = serving and context.dependencies.prepared.is_set()
    return json_response({"ready": is_ready, "services": _document(states), **found}, status=200 if is_ready else 503)


async def _health(context: RequestContext) -> tuple[ProjectionHealth, RunHealth]:
    dependencies = context.dependencies
    health = await dependencies.health()
    # writes must not pass the gate on a partition that is reported here as stopped
    await dependencies.caught_up.refresh()
    return health, await dependencies.run_health()


def _projection(health: ProjectionHealth) -> JsonObject:
    """Return the partitions and the parked aggregates."""
    stopped: JsonObject = {str(number): why for number, why in health.stopped.items()}
    building: list[Json] = list(health.building)
    stalled: JsonObject = {str(number): why for number, why in health.stalled.items()}
    partitions: JsonObject = {
        "present": health.present,
        "building": building,
        "stopped": stopped,
        "stalled": stalled,
        "behind": sum(health.behind.values()),
    }
    return {"partitions": partitions, "quarantined": dict(health.parked)}


def _runs(context: RequestContext, health: RunHealth, deaths: int) -> JsonObject:
    """Return the deaths of workers, and the runs that wait for more than their turn."""
    unserved: JsonObject = {
        one.graph_id: {"runs": one.runs, "oldest_secs": round(one.longest.total_seconds(), 1), "reason": one.reason}
        for one in health.unserved(context.dependencies.graphs.graph_ids())
    }
    return {"workers": {"deaths": deaths, "suspects": health.suspects}, "unserved": unserved}


async def _checked(context: RequestContext) -> dict[str, str]:
    """Check every dependency, in parallel; return OK, AWAY, or the command that it refuses."""
    checks = context.dependencies.checks
    answers = await asyncio.gather(*(_asked(name, check) for name, check in checks.items()))
    return {name: state for name, (state, _) in zip(checks, answers, strict=True)}


def _all_ok(states: Mapping[str, str]) -> bool:
    return all(state == OK for state in states.values())


def _document(states: Mapping[str, str]) -> JsonObject:
    return {**states}


async def _asked(name: str, question: Callable[[], Awaitable[T]]) -> tuple[str, T | None]:
    """Return the state of a dependency, and its answer if that is OK."""
    try:
        async with asyncio.timeout(timeouts.DEPENDENCY_CHECK_S):
            return OK, await question()
    except DependencyRefused as error:
        log.error("dependency.refused", extra={"dependency": name, "error": str(error)})
        command = str(error).partition(":")[0]
        return f"refuses {command} ({type(error.__cause__).__name__})", None  # the driver's text may hold addresses
    except (AgentlogError, TimeoutError) as error:
        log.warning("dependency.away", extra={"dependency": name, "error": str(error)})
        return AWAY, None


async def info(context: RequestContext) -> Response:
    """GET /info: `version` is the API's, from which clients infer features; `server` has agentlog's own."""
    own: JsonObject = {"name": "agentlog", "version": VERSION}
    langgraph = version("langgraph")
    return json_response(
        {"version": CONTRACT, "langgraph_py_version": langgraph, "flags": FLAGS, "host": HOST, "server": own}
    )


async def not_implemented(context: RequestContext) -> Response:
    """Refuse a request to an endpoint of the contract that this release does not have yet."""
    raise Problem(404, f"not implemented by agentlog {VERSION}")
