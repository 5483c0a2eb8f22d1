"""Every role as its own process, as in a cluster: `agentlog serve ROLE`, without a supervisor."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.servers import EXAMPLES, RunningServer

from agentlog_infra.process.child import child_environment

ROLES = ("gateway", "projector", "worker", "worker", "housekeeper")
END_S = 60


@dataclass
class Apart:
    """Roles with one common environment; `server` gives access to the gateway and to the traces of example steps."""

    folder: Path
    environment: dict[str, str]
    server: RunningServer = field(init=False)
    roles: list[tuple[str, "subprocess.Popen[bytes]"]] = field(
        default_factory=list[tuple[str, "subprocess.Popen[bytes]"]]
    )

    def __post_init__(self) -> None:
        """Set the paths of traces and gates."""
        self.server = RunningServer(self.folder)
        self.server.gates.mkdir(exist_ok=True)
        self.environment |= {
            "AGENTLOG_CONFIG": str(EXAMPLES),
            "AGENTLOG_DATA_DIR": str(self.folder / "data"),
            "AGENTLOG_PORT": str(self.server.port),
            "AGENTLOG_EXAMPLE_TRACE": str(self.server.trace),
            "AGENTLOG_EXAMPLE_GATES": str(self.server.gates),
        }

    def run(self, *words: str) -> str:
        """Run a command to its end and return its stdout."""
        done = subprocess.run(
            _agentlog(*words), capture_output=True, text=True, env=self._env(), timeout=END_S, check=False
        )
        assert done.returncode == 0, f"agentlog {' '.join(words)}: {done.returncode} {done.stderr[-3000:]}"
        return done.stdout

    def start(self, role: str) -> None:
        """Start a role; its output goes into the log that `server.log` returns."""
        with (self.folder / "dev.log").open("ab") as log:
            process = subprocess.Popen(
                _agentlog("serve", role), stdout=log, stderr=log, env=self._env(), start_new_session=True
            )
        self.roles.append((role, process))
        if role == "gateway":
            self.server.process = process

    def kill_pid(self, pid: int) -> None:
        """SIGKILL the role with this process id."""
        process = next(process for _, process in self.roles if process.pid == pid)
        process.kill()
        process.wait(END_S)

    def stop(self) -> dict[str, int]:
        """Stop all roles in order, the gateway first; return the exit statuses of those that were not killed."""
        alive = [(role, process) for role, process in self.roles if process.poll() is None]
        for _, process in alive:
            process.send_signal(signal.SIGTERM)
        return {f"{role} {process.pid}": process.wait(END_S) for role, process in alive}

    def _env(self) -> dict[str, str]:
        return child_environment(_without_ours() | self.environment)


def _agentlog(*words: str) -> list[str]:
    return [sys.executable, "-m", "agentlog_infra.cli.main", *words]


def _without_ours() -> dict[str, str]:
    ours = ("AGENTLOG_", "DATABASE_URI", "POSTGRES_URI", "REDIS_URI")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@contextmanager
def roles_apart(folder: Path, environment: Mapping[str, str]) -> Generator[Apart]:
    """Prepare topics and schema, start all roles, and stop them at the end; none may have failed."""
    apart = Apart(folder, dict(environment))
    try:
        apart.run("topics", "apply")
        apart.run("migrate", "up")
        for role in ROLES:
            apart.start(role)
        apart.server.wait_ok()
        yield apart
        statuses = apart.stop()
        assert set(statuses.values()) == {0}, f"{statuses}\n{apart.server.log()[-3000:]}"
    except AssertionError as error:
        raise AssertionError(f"{error}\nthe roles said:\n{apart.server.log()[-6000:]}") from error
    finally:
        for _, process in apart.roles:
            if process.poll() is None:
                process.kill()
                process.wait(END_S)


@contextmanager
def embedded_rows(folder: Path, kafka: str) -> Generator[dict[str, str]]:
    """Run PostgreSQL and Valkey with a log elsewhere, as `agentlog serve stack` does; yield their addresses."""
    words = _agentlog("serve", "stack", "--data-dir", str(folder / "data"))
    env = child_environment(_without_ours() | {"AGENTLOG_KAFKA_BOOTSTRAP": kafka})
    with (folder / "stack.log").open("ab") as log:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=log, text=True, env=env, start_new_session=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (folder / "stack.log").read_text()[-3000:]
        found = json.loads(line)
        yield {"DATABASE_URI": found["postgres"], "REDIS_URI": found["redis"]}
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=END_S)
