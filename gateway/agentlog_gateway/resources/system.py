"""Endpoints of the server itself: health, readiness, version. Source: docs/http-api.md, section 3."""

import asyncio
import logging
from importlib.metadata import version

from starlette.responses import Response

from agentlog_facts.errors import AgentlogError, DependencyRefused
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.version import CONTRACT, VERSION
from agentlog_gateway import timeouts
from agentlog_gateway.api.dependencies import Check
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.http.errors import Problem
from agentlog_gateway.http.responses import json_response
from agentlog_gateway.schemas.queries import HealthCheckQuery

log = logging.getLogger(__name__)

OK = "ok"
AWAY = "away"

FLAGS: JsonObject = {
    "assistants": True,
    "crons": False,
    "langsmith": False,
    "langsmith_tracing_replicas": False,
    "langsmith_tracing_session_on_runs": False,
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
    checked = await _checked(context)
    away = [name for name, state in checked.items() if state == AWAY]
    problems = [f"no answer from: {', '.join(away)}"] if away else []
    problems += [f"{name}: {state}" for name, state in checked.items() if state not in (OK, AWAY)]
    if not problems:
        idle = (await context.dependencies.health()).without_progress
        problems = [f"partition {number}: {why}" for number, why in idle.items()]
    if problems:
        raise Problem(500, "; ".join(problems))
    dependencies: JsonObject = dict.fromkeys(checked, OK)
    return json_response({"ok": True, "services": dependencies})


async def ready(context: RequestContext) -> Response:
    """GET /ready: 200 while requests can be served, else 503; the body lists dependencies and faulty partitions.

    A partition that makes no progress ends readiness: writes to its threads are not answered, and only an operator can
    change that. A partition that is being built, or that waits for a newer release, takes only its own threads out of
    service. Workers that die, and runs that nobody can take, do not end readiness.
    """
    checked = await _checked(context)
    dependencies: JsonObject = {**checked}
    found: JsonObject = {"ready": False, "services": dependencies, "partitions": None, "quarantined": None}
    found |= {"workers": None, "unserved": None}
    serving = False
    if all(state == OK for state in checked.values()):
        health = await context.dependencies.health()
        await (
            context.dependencies.caught_up.refresh()
        )  # writes must not pass the gate on a partition that is reported here as stopped
        stopped: JsonObject = {str(number): why for number, why in health.stopped.items()}
        building: list[Json] = list(health.building)
        stalled: JsonObject = {str(number): why for number, why in health.stalled.items()}
        found["partitions"] = {
            "present": health.present,
            "building": building,
            "stopped": stopped,
            "stalled": stalled,
            "behind": sum(health.behind.values()),
        }
        found["quarantined"] = dict(health.parked)
        found |= await _runs(context)
        serving = health.present > 0 and not health.without_progress
    found["ready"] = serving and context.dependencies.prepared.is_set()
    return json_response(found, status=200 if found["ready"] else 503)


async def _runs(context: RequestContext) -> JsonObject:
    """Return the deaths of workers, and the runs that wait for more than their turn."""
    dependencies = context.dependencies
    health = await dependencies.run_health()
    unserved: JsonObject = {
        one.graph_id: {"runs": one.runs, "oldest_secs": round(one.longest.total_seconds(), 1), "reason": one.reason}
        for one in health.unserved(dependencies.graphs.graph_ids())
    }
    workers: JsonObject = {"deaths": await dependencies.worker_deaths(), "suspects": health.suspects}
    return {"workers": workers, "unserved": unserved}


async def _checked(context: RequestContext) -> dict[str, str]:
    """Check every dependency, in parallel; return OK, AWAY, or the command that it refuses."""
    checks = context.dependencies.checks
    answers = await asyncio.gather(*(_answers(name, check) for name, check in checks.items()))
    return dict(zip(checks, answers, strict=True))


async def _answers(name: str, check: Check) -> str:
    try:
        async with asyncio.timeout(timeouts.DEPENDENCY_CHECK_S):
            await check()
    except DependencyRefused as error:
        log.error("dependency.refused", extra={"dependency": name, "error": str(error)})
        command = str(error).partition(":")[0]
        return f"refuses {command} ({type(error.__cause__).__name__})"  # the driver's text may hold addresses
    except (AgentlogError, TimeoutError) as error:
        log.warning("dependency.away", extra={"dependency": name, "error": str(error)})
        return AWAY
    return OK


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
