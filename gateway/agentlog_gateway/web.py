"""Decides what stands around the routes: CORS, documentation, trailing slashes, and the last line against defects."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentlog_facts.version import VERSION
from agentlog_gateway.openapi import openapi_document
from agentlog_gateway.resource import Resource
from agentlog_gateway.routes import OPERATIONS, operations_by_path
from agentlog_gateway.services import Services

EXPOSED = ("X-Pagination-Total", "X-Pagination-Next", "Content-Location", "X-Consistency-Token")
PREFLIGHT_S = 600

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def build_app(services: Callable[[], Services], origins: Sequence[str], lifespan: Lifespan | None = None) -> FastAPI:
    """Return the application; `services` is called for each request, after the lifespan has begun."""
    app = FastAPI(title="agentlog", version=VERSION, openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    for path, operations in operations_by_path().items():
        app.router.routes.append(Route(path, Resource(services, path, operations)))
    app.router.routes.append(Route("/openapi.json", _openapi))
    app.router.routes.append(Route("/docs", _docs))
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=EXPOSED,
        allow_private_network=True,
        max_age=PREFLIGHT_S,
    )
    return app


async def _openapi(request: Request) -> Response:
    """GET /openapi.json."""
    return JSONResponse(openapi_document(OPERATIONS, str(request.base_url).rstrip("/")))


async def _docs(_request: Request) -> Response:
    """GET /docs."""
    return get_swagger_ui_html(openapi_url="/openapi.json", title="agentlog")
