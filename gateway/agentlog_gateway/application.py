"""Decides what stands around the routes: CORS, documentation, trailing slashes, and the last line against defects."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from agentlog_facts.version import VERSION
from agentlog_gateway.api.dependencies import Dependencies
from agentlog_gateway.api.docs_page import docs_page
from agentlog_gateway.api.endpoint import Endpoint
from agentlog_gateway.api.openapi import openapi_document
from agentlog_gateway.http.cors import Cors
from agentlog_gateway.routes import OPERATIONS, operations_by_path

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def build_app(dependencies: Callable[[], Dependencies], cors: Cors, lifespan: Lifespan | None = None) -> FastAPI:
    """Return the application; `services` is called for each request, after the lifespan has begun."""
    app = FastAPI(title="agentlog", version=VERSION, openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    for path, operations in operations_by_path().items():
        app.router.routes.append(Route(path, Endpoint(dependencies, path, operations)))
    app.router.routes.append(Route("/openapi.json", _openapi))
    app.router.routes.append(Route("/docs", _docs))
    app.add_middleware(
        CORSMiddleware,
        allow_origins=cors.allow_origins,
        allow_origin_regex=cors.allow_origin_regex,
        allow_methods=cors.allow_methods,
        allow_headers=cors.allow_headers,
        allow_credentials=cors.allow_credentials,
        expose_headers=cors.expose_headers,
        allow_private_network=True,
        max_age=cors.max_age,
    )
    return app


async def _openapi(request: Request) -> Response:
    """GET /openapi.json."""
    return JSONResponse(openapi_document(OPERATIONS, str(request.base_url).rstrip("/")))


async def _docs(_request: Request) -> Response:
    """GET /docs."""
    return HTMLResponse(docs_page(OPERATIONS, VERSION))
