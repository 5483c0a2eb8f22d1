"""Refusals of WebSockets: this release serves none. Source: docs/http-api.md, section 1.1."""

from starlette.websockets import WebSocket

from agentlog_facts.version import VERSION

NOT_FOUND = 4404
"""Close code: 4000 plus an HTTP status. Clients do not retry it. Source: langgraph_sdk.stream.errors."""


async def not_implemented(websocket: WebSocket) -> None:
    """Refuse a WebSocket of the contract."""
    await _refuse(websocket, f"not implemented by agentlog {VERSION}")


async def not_found(websocket: WebSocket) -> None:
    """Refuse a WebSocket to any other path."""
    await _refuse(websocket, "Not Found")


async def _refuse(websocket: WebSocket, reason: str) -> None:
    """Accept, then close with code and reason: a browser cannot read the status or body of a refused handshake."""
    offered = websocket.scope.get("subprotocols") or [None]
    await websocket.accept(subprotocol=offered[0])  # without one that it offers, a browser drops the connection
    await websocket.close(NOT_FOUND, reason)
