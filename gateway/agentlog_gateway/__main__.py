"""Process of a gateway: `python -m agentlog_gateway [--ready-fd N]`; everything else comes from settings."""

import argparse
import asyncio
import gc
import json
import logging
import os
import socket
import sys
from collections.abc import Mapping, Sequence

import uvicorn
import uvloop

from agentlog_facts.errors import AgentlogError, Misconfigured
from agentlog_gateway import app, timeouts
from agentlog_gateway.http.server import DrainingServer

log = logging.getLogger(__name__)

EXIT_MISCONFIGURED = 2
BACKLOG = 2048


def main(words: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT. Return 0 after an orderly stop, 1 after a failure, 2 for a bad configuration."""
    parser = argparse.ArgumentParser(prog="agentlog_gateway", description="Serve the HTTP API of agentlog.")
    parser.add_argument(
        "--ready-fd", type=int, help="file descriptor that gets one line of JSON when the gateway is ready"
    )
    ready_fd: int | None = parser.parse_args(words).ready_fd
    try:
        uvloop.run(_serve(ready_fd))
    except Misconfigured as error:
        sys.stderr.write(f"error: {error}\n")
        _report(ready_fd, {"error": str(error)})
        return EXIT_MISCONFIGURED
    except AgentlogError as error:
        log.error("role.failed", extra={"role": "gateway", "error": str(error)})
        return 1
    return 0


async def _serve(ready_fd: int | None) -> None:
    settings = app.load_settings()
    listening = _listen(settings.host, settings.port)
    async with app.open_gateway(settings) as gateway:
        gc.freeze()  # objects made at the start stay: later collections skip them
        server = DrainingServer(
            uvicorn.Config(
                gateway.app,
                http=app.connections(settings),  # type: ignore[arg-type]  # uvicorn only calls it
                loop="none",
                access_log=False,
                log_config=None,
                lifespan="off",
                server_header=False,
                timeout_keep_alive=settings.http_keep_alive_secs,
                limit_concurrency=settings.http_limit_concurrency,
                timeout_graceful_shutdown=timeouts.DRAIN_CANCELLED_S,
            )
        )
        await _run(gateway, server, listening, ready_fd)


async def _run(gateway: app.Gateway, server: uvicorn.Server, listening: socket.socket, ready_fd: int | None) -> None:
    """Serve requests; a failure of the background services stops the server, and this raises it."""
    background = asyncio.create_task(gateway.run())
    announced = asyncio.create_task(_announce(gateway, listening, ready_fd))
    background.add_done_callback(lambda _: _stop(server))
    try:
        await asyncio.wait(
            {background, announced}, timeout=timeouts.ASSISTANTS_AT_START_S, return_when=asyncio.FIRST_COMPLETED
        )
        if not background.done():
            await server.serve(sockets=[listening])
    finally:
        background.cancel()
        announced.cancel()
        await asyncio.gather(background, announced, return_exceptions=True)
    if not background.cancelled():
        background.result()


def _stop(server: uvicorn.Server) -> None:
    server.should_exit = True


async def _announce(gateway: app.Gateway, listening: socket.socket, ready_fd: int | None) -> None:
    await gateway.ready.wait()
    port: int = listening.getsockname()[1]
    _report(ready_fd, {"role": "gateway", "pid": os.getpid(), "port": port})
    log.info("role.started", extra={"role": "gateway", "port": port})


def _listen(host: str, port: int) -> socket.socket:
    """Return the listening socket. Raises: Misconfigured when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Misconfigured(f"AGENTLOG_PORT: cannot listen on {host}:{port}: {error.strerror or error}") from error


def _report(ready_fd: int | None, line: Mapping[str, object]) -> None:
    if ready_fd is not None:
        with os.fdopen(ready_fd, "w") as pipe:
            pipe.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
