"""Fixtures of the embedded stack: one per session, in processes of its own and a temporary folder."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentlog_infra.process.child import child_environment

_STOP_SECS = 40
_OUR_SETTINGS = ("AGENTLOG_", "DATABASE_URI", "POSTGRES_URI", "REDIS_URI")


@dataclass(frozen=True, slots=True)
class RunningStack:
    """Addresses of the running servers, their data directory and the pid of the process that owns them."""

    kafka: str
    postgres: str
    redis: str
    data_dir: Path
    pid: int

    @property
    def login(self) -> dict[str, str]:
        """Return the variables with which a process logs in to the log."""
        return log_login(self.data_dir)


def log_login(data_dir: Path) -> dict[str, str]:
    """Return the variables with which a process logs in to the embedded log of a data directory."""
    return {
        "AGENTLOG_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "AGENTLOG_KAFKA_SASL_MECHANISM": "SCRAM-SHA-256",
        "AGENTLOG_KAFKA_SASL_USERNAME": "agentlog",
        "AGENTLOG_KAFKA_SASL_PASSWORD_FILE": str(data_dir / "broker.secret"),
    }


def open_folder() -> Path:
    """Create a folder that PostgreSQL's account may enter when root runs the tests; pytest's own are closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="agentlog-test-"))
    folder.chmod(0o711)
    return folder


def start_stack(data_dir: Path) -> "subprocess.Popen[str]":
    """Start the stack as a child that dies with the test run; it prints one line when it is ready."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(_OUR_SETTINGS)}
    words = [sys.executable, "-m", "agentlog_infra.stack.stack", "--data-dir", str(data_dir), "--die-with-parent"]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=child_environment(env), start_new_session=True
    )


def read_ready(process: "subprocess.Popen[str]", data_dir: Path) -> RunningStack:
    """Wait for the line with the addresses of the servers; fail the test if the stack ends without it."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the stack ended with status {process.wait(_STOP_SECS)} before it was ready"
    found = json.loads(line)
    return RunningStack(found["kafka"], found["postgres"], found["redis"], data_dir, found["pid"])


def stop_stack(process: "subprocess.Popen[str]") -> int:
    """Stop the stack in order and return its exit status."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(_STOP_SECS)
    finally:
        if process.stdout is not None:
            process.stdout.close()


async def until(holds: Callable[[], bool | Awaitable[bool]], *, within_secs: float = 20.0) -> None:
    """Wait for a condition; fail the test if it does not hold in time."""
    async with asyncio.timeout(within_secs):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def stack() -> Iterator[RunningStack]:
    """Yield log, PostgreSQL and Valkey of the session; each test uses topics, schemas and key prefixes of its own."""
    data_dir = open_folder()
    process = start_stack(data_dir)
    try:
        yield read_ready(process, data_dir)
    finally:
        stop_stack(process)
        shutil.rmtree(data_dir)
