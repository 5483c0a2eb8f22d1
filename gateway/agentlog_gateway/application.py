"""FastAPI application: the operations, their documentation and CORS."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from agentlog_facts.version import VERSION
from agentlog_gateway.api.dependencies import Dependencies
from agentlog_gateway.api.docs_page import docs_page
from agentlog_gateway.api.endpoint import Endpoint
from agentlog_gateway.api.openapi import openapi_document
from agentlog_gateway.http.cors import Cors
from agentlog_gateway.http.request_log import RequestLog
from agentlog_gateway.resources import websockets
from agentlog_gateway.routes import NOT_IMPLEMENTED_WEBSOCKETS, OPERATIONS, operations_by_path

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def build_app(dependencies: Callable[[], Dependencies], cors: Cors, lifespan: Lifespan | None = None) -> FastAPI:
    """Return the application; `dependencies` is called for each request, after the lifespan has begun."""
    app = FastAPI(
        title="agentlog",
        version=VERSION,
        description="An agent server whose truth is a log.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )

    def openapi(request: Request) -> Response:
        """GET /openapi.json. Starlette runs this in a thread, because the first call takes long."""
        return JSONResponse(openapi_document(app, OPERATIONS, str(request.base_url).rstrip("/")))

    for path, operations in operations_by_path().items():
        app.router.routes.append(Route(path, Endpoint(dependencies, path, operations)))
    for path in NOT_IMPLEMENTED_WEBSOCKETS:
        app.router.routes.append(WebSocketRoute(path, websockets.not_implemented))
    app.router.routes.append(WebSocketRoute("/{path:path}", websockets.not_found))
    app.router.routes.append(Route("/openapi.json", openapi))
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
    app.add_middleware(RequestLog)
    return app


async def _docs(_request: Request) -> Response:
    """GET /docs."""
    return HTMLResponse(docs_page(OPERATIONS, VERSION))
