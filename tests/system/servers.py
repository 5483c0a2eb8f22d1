"""A whole server in processes of its own, as `agentlog dev` starts it; tests may kill, pause and restart it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.stack_fixtures import open_folder

import agentlog_infra.examples
from agentlog_infra.process.child import child_environment

EXAMPLES = Path(agentlog_infra.examples.__file__).parent / "langgraph.json"
START_S = 60.0
STEP_S = 0.02


def free_port() -> int:
    """Return a port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition, at most this number of seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(STEP_S)


@dataclass
class RunningServer:
    """`agentlog dev` in a folder; a restart in the same folder keeps the log."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict[str, str])
    config: Path = EXAMPLES
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Return the URL of the API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def trace(self) -> Path:
        """Return the file to which the example steps write at their start and end."""
        return self.folder / "trace.jsonl"

    @property
    def gates(self) -> Path:
        """Return the folder of the gates."""
        return self.folder / "gates"

    @property
    def kafka(self) -> str:
        """Return the address of the log, with its login: `user:password@host:port`."""
        secret = (self.folder / "data" / "broker.secret").read_text()
        return f"agentlog:{secret}@{self._address('kafka')}"

    @property
    def postgres(self) -> str:
        """Return the address of the database."""
        return self._address("postgres")

    @property
    def redis(self) -> str:
        """Return the address of the queue."""
        return self._address("redis")

    def _address(self, server: str) -> str:
        stack = json.loads((self.folder / "data" / "stack.json").read_text())
        return str(stack["addresses"][server])

    def start(self) -> float:
        """Start it and wait for the first 200 on /ok; return the time in seconds."""
        self.gates.mkdir(exist_ok=True)
        words = ["dev", "--config", str(self.config), "--port", str(self.port), "--no-reload"]
        words += ["--data-dir", str(self.folder / "data")]
        mine = {"AGENTLOG_EXAMPLE_TRACE": str(self.trace), "AGENTLOG_EXAMPLE_GATES": str(self.gates)}
        environment = child_environment({**_plain_environment(), **mine, **self.environment})
        began = time.monotonic()
        with (self.folder / "dev.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agentlog_infra.cli.main", *words],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self.wait_ok()
        return time.monotonic() - began

    def wait_ok(self, seconds: float = START_S) -> None:
        """Wait for 200 on /ok."""
        wait_until(self._answers, seconds, f"200 on {self.url}/ok; log:\n{self.log()[-3000:]}")

    def log(self) -> str:
        """Return the server's output so far."""
        path = self.folder / "dev.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def family(self) -> dict[int, str]:
        """Return pid -> command line of every process of the server."""
        assert self.process is not None
        found = {self.process.pid}
        while True:
            more = {pid for pid, parent in _parents().items() if parent in found} - found
            if not more:
                return {pid: _command(pid) for pid in found}
            found |= more

    def pids(self, *words: str) -> list[int]:
        """Return the processes whose command line contains all of these words."""
        return [pid for pid, command in self.family().items() if all(word in command.split() for word in words)]

    def kill_role(self, role: str) -> int:
        """SIGKILL the process of a role and return its pid; the supervisor starts it again."""
        module = "agentlog_gateway" if role == "gateway" else "agentlog_processors"
        pids = self.pids(module) if role == "gateway" else self.pids(module, role)
        assert pids, f"no process of {role}: {self.family()}"
        os.kill(pids[0], signal.SIGKILL)
        return pids[0]

    def kill_everything(self) -> None:
        """SIGKILL every process at once."""
        assert self.process is not None
        for pid in self.family():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it died with its parent meanwhile
        self.process.wait(20)

    def stop(self) -> int:
        """Stop it in order; return the exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def steps(self) -> list[dict[str, str]]:
        """Return the trace lines of the example steps."""
        return [json.loads(line) for line in self.trace.read_text().splitlines()] if self.trace.exists() else []

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the server ended:\n{self.log()[-3000:]}"
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return connection.recv(12) == b"HTTP/1.1 200"
        except OSError:
            return False


def _plain_environment() -> dict[str, str]:
    ours = ("AGENTLOG_", "DATABASE_URI", "POSTGRES_URI", "REDIS_URI")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _parents() -> dict[int, int]:
    found: dict[int, int] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                stat = (path / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if stat[0] != "Z":
                found[int(path.name)] = int(stat[1])
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
    except OSError:
        return ""


@contextmanager
def running_server(environment: dict[str, str] | None = None, config: Path = EXAMPLES) -> Generator[RunningServer]:
    """Start a server in an own folder; stop it and remove the folder at the end."""
    folder = open_folder()
    server = RunningServer(folder, environment or {}, config)
    try:
        server.start()
        yield server
        status = server.stop()
        assert status == 0, f"the server ended with {status}:\n{server.log()[-3000:]}"
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill_everything()
        shutil.rmtree(folder, ignore_errors=True)


def clean_environment(more: dict[str, str]) -> dict[str, str]:
    """Return the environment of a product process: no settings from outside, the rooms on its path, and `more`."""
    return child_environment({**_plain_environment(), **more})


def descendants(pid: int) -> set[int]:
    """Return a process and all its living descendants."""
    found = {pid}
    while True:
        more = {child for child, parent in _parents().items() if parent in found} - found
        if not more:
            return found
        found |= more


def answers_ok(port: int) -> bool:
    """Return whether /ok answers 200 now."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return connection.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False
