"""The routes about the server itself: health, version, documentation. Source: Agent Server API, section 3."""

from importlib.metadata import version

from starlette.responses import Response

from agentlog_facts.errors import Unavailable
from agentlog_facts.json_value import JsonObject
from agentlog_facts.version import VERSION
from agentlog_gateway.call import Call, query_flag
from agentlog_gateway.errors import Problem
from agentlog_gateway.replies import json_response

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
    """GET /ok; with check_db=1 the database is asked, and 500 is answered when it does not answer."""
    if not query_flag(call, "check_db"):
        return json_response({"ok": True, "services": {}})
    try:
        await call.services.presence.ask()
    except Unavailable as error:
        raise Problem(500, "the database does not answer") from error
    return json_response({"ok": True, "services": {"database": "ok"}})


async def info(call: Call) -> Response:
    """GET /info."""
    return json_response(
        {"version": VERSION, "langgraph_py_version": version("langgraph"), "flags": FLAGS, "host": HOST}
    )


async def not_implemented(call: Call) -> Response:
    """Answer for an endpoint of the contract that this release does not have yet."""
    raise Problem(404, f"not implemented by agentlog {VERSION}")
