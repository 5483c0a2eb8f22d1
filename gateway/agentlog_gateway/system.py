"""The routes about the server itself: health, version, documentation. Source: Agent Server API, section 3."""

import asyncio
import logging
from importlib.metadata import version

from starlette.responses import Response

from agentlog_facts.errors import AgentlogError
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.version import CONTRACT, VERSION
from agentlog_gateway.call import Call, query_flag
from agentlog_gateway.errors import Problem
from agentlog_gateway.replies import json_response
from agentlog_gateway.services import Check

log = logging.getLogger(__name__)

CHECK_S = 5.0

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


async def ok(call: Call) -> Response:
    """GET /ok; with check_db=1 every dependency is asked, and 500 names those that do not answer."""
    if not query_flag(call, "check_db"):
        return json_response({"ok": True, "services": {}})
    asked = await _asked(call)
    away = [name for name, fine in asked.items() if not fine]
    if away:
        raise Problem(500, f"no answer from: {', '.join(away)}")
    services: JsonObject = dict.fromkeys(asked, "ok")
    return json_response({"ok": True, "services": services})


async def ready(call: Call) -> Response:
    """GET /ready: 200 while requests can be served, else 503; the body says what is not as it should be.

    A stopped or unfinished partition takes only its own threads out of service, so it does not end readiness.
    """
    asked = await _asked(call)
    services: JsonObject = {name: "ok" if fine else "away" for name, fine in asked.items()}
    found: JsonObject = {"ready": False, "services": services, "partitions": None, "quarantined": None}
    serving = False
    if all(asked.values()):
        health = await call.services.health()
        await call.services.presence.ask()  # nobody is let write on to what is told here to be stopped
        stopped: JsonObject = {str(number): why for number, why in health.stopped.items()}
        building: list[Json] = list(health.building)
        found["partitions"] = {"present": health.present, "building": building, "stopped": stopped}
        found["quarantined"] = dict(health.parked)
        serving = health.present > 0
    found["ready"] = serving and call.services.prepared.is_set()
    return json_response(found, status=200 if found["ready"] else 503)


async def _asked(call: Call) -> dict[str, bool]:
    """Ask every dependency, side by side."""
    checks = call.services.checks
    answers = await asyncio.gather(*(_answers(name, check) for name, check in checks.items()))
    return dict(zip(checks, answers, strict=True))


async def _answers(name: str, check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_S):
            await check()
    except (AgentlogError, TimeoutError) as error:
        log.warning("dependency.away", extra={"dependency": name, "error": str(error)})
        return False
    return True


async def info(call: Call) -> Response:
    """GET /info: `version` is that of the API, by which clients decide what they may ask; ours is under `server`."""
    own: JsonObject = {"name": "agentlog", "version": VERSION}
    langgraph = version("langgraph")
    return json_response(
        {"version": CONTRACT, "langgraph_py_version": langgraph, "flags": FLAGS, "host": HOST, "server": own}
    )


async def not_implemented(call: Call) -> Response:
    """Answer for an endpoint of the contract that this release does not have yet."""
    raise Problem(404, f"not implemented by agentlog {VERSION}")
