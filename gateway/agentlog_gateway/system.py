"""The routes about the server itself: health, version, documentation. Source: Agent Server API, section 3."""

import asyncio
import logging
from importlib.metadata import version

from starlette.responses import Response

from agentlog_facts.errors import AgentlogError
from agentlog_facts.json_value import JsonObject
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
    checks = call.services.checks
    answers = await asyncio.gather(*(_answers(name, check) for name, check in checks.items()))
    away = [name for name, fine in zip(checks, answers, strict=True) if not fine]
    if away:
        raise Problem(500, f"no answer from: {', '.join(away)}")
    services: JsonObject = dict.fromkeys(checks, "ok")
    return json_response({"ok": True, "services": services})


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
