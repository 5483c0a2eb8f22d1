"""Start of a gateway process that cannot run."""

import os
import socket
import subprocess
import sys

import pytest
from tests.gateway.web_env import EXAMPLES

from agentlog_infra.process.child import child_environment

pytestmark = pytest.mark.slow


def started(**settings: str) -> "subprocess.CompletedProcess[str]":
    """Run a gateway that cannot start, to its end."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AGENTLOG_")}
    nowhere = {"AGENTLOG_KAFKA_BOOTSTRAP": "127.0.0.1:1", "DATABASE_URI": "postgresql://x@127.0.0.1:1/x"}
    mine = {"REDIS_URI": "redis://127.0.0.1:1", "AGENTLOG_CONFIG": str(EXAMPLES), **settings}
    return subprocess.run(
        [sys.executable, "-m", "agentlog_gateway"],
        env=child_environment({**plain, **nowhere, **mine}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_taken_port_is_told_with_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = started(AGENTLOG_HOST="127.0.0.1", AGENTLOG_PORT=port)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: AGENTLOG_PORT: cannot listen on 127.0.0.1:{port}")
    assert "Traceback" not in ended.stderr


def test_a_configuration_that_is_not_there_is_told_without_a_traceback() -> None:
    ended = started(AGENTLOG_CONFIG="/nowhere/langgraph.json", AGENTLOG_PORT="0")
    assert ended.returncode == 2
    assert "/nowhere/langgraph.json" in ended.stderr
    assert "Traceback" not in ended.stderr
