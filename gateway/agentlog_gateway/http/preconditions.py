"""Entity tags of resources, and the conditions of a request on them: If-Match and If-None-Match (RFC 9110, 13.1)."""

from collections.abc import Mapping
from hashlib import sha256

from starlette.requests import Request
from starlette.responses import Response

from agentlog_facts.json_value import Json, dump
from agentlog_gateway.http.errors import Problem
from agentlog_gateway.http.responses import json_response


def entity_tag(*parts: str) -> str:
    """Return the tag of a resource from parts that change with everything that is shown."""
    return f'"{sha256(dump([*parts])).hexdigest()[:32]}"'


def demand_match(request: Request, tag: str) -> None:
    """Check If-Match against the tag of the resource as it is now. Raises: Problem 412."""
    given = request.headers.getlist("if-match")
    wanted = {one.strip() for one in ",".join(given).split(",")}
    if given and not wanted & {"*", tag}:
        raise Problem(
            412, f"If-Match: the resource has changed, its ETag is {tag}", {"ETag": tag}, reason="precondition_failed"
        )


def is_known(request: Request, tag: str) -> bool:
    """Return whether the client of a GET has the resource with this tag already, by its If-None-Match."""
    known = ",".join(request.headers.getlist("if-none-match")) if request.method in ("GET", "HEAD") else ""
    return any(one.strip().removeprefix("W/") in ("*", tag) for one in known.split(","))


def tagged_response(request: Request, value: Json, tag: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response with its tag; to a GET, 304 without a body if the client has it already."""
    found = {**(headers or {}), "ETag": tag}
    if is_known(request, tag):
        return Response(status_code=304, headers=found)
    return json_response(value, found)
