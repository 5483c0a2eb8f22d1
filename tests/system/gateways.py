"""Additional gateways of a running server, on own ports and on the same data directory."""

import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

from tests.system.servers import RunningServer, free_port, wait_until

from agentlog_infra.process.child import child_environment

STOP_S = 20


@contextmanager
def another_gateway(server: RunningServer) -> Generator[RunningServer]:
    """Start `agentlog serve gateway` on the server's data directory; yield it, and stop it at the end."""
    port = free_port()
    words = ["serve", "gateway", "--config", str(server.config), "--port", str(port)]
    words += ["--data-dir", str(server.folder / "data")]
    mine = {"AGENTLOG_EXAMPLE_TRACE": str(server.trace), "AGENTLOG_EXAMPLE_GATES": str(server.gates)}
    with (server.folder / "gateway.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "agentlog_infra.cli.main", *words],
            stdout=log,
            stderr=log,
            env=child_environment({**mine, **server.environment}),
            start_new_session=True,
        )
    try:
        beside = RunningServer(server.folder, config=server.config, port=port, process=process)
        beside.wait_ok()
        yield beside
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: process.poll() is not None, STOP_S, "the gateway stops")
        assert process.returncode == 0, (server.folder / "gateway.log").read_text()[-3000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(STOP_S)
