"""Several processes of each role on one running stack, each from `agentlog serve ROLE --data-dir DIR`."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import asyncpg
from tests.stack_fixtures import open_folder
from tests.system.servers import EXAMPLES, free_port, wait_until

from agentlog_facts.json_value import JsonObject, as_object, load, load_object
from agentlog_infra.process.child import child_environment

START_S = 60.0
END_S = 40.0
TWO_OF_EACH = tuple(
    f"{role}-{number}" for role in ("projector", "housekeeper", "worker", "gateway") for number in (1, 2)
)
SHORT = {
    "AGENTLOG_LEASE_TTL_SECS": "1.5",
    "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "5",
    "LOG_JSON": "true",
}

_WAITS = """
SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                WHERE NOT l.granted AND l.relation = 'ledger.heads'::regclass
                  AND a.application_name = 'agentlog projector')
"""


@dataclass
class Member:
    """One role process; `name` is role and number. Its log lines are JSON."""

    name: str
    running: "subprocess.Popen[bytes]"
    log: Path
    said_before: int
    """Lines of earlier processes of this name."""

    def lines(self, event: str) -> list[JsonObject]:
        """Return the log lines of this process with an event name."""
        found: list[JsonObject] = []
        for line in self.log.read_text(errors="replace").splitlines()[self.said_before :]:
            if f'"{event}"' in line:
                said = load_object(line.encode())
                found += [said] if said["event"] == event else []
        return found

    @property
    def owner(self) -> str:
        """Return the owner id of a projector."""
        return str(self.lines("projector.took")[-1]["owner"])


@dataclass
class Several:
    """The stack and its roles."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    ports: dict[str, int] = field(default_factory=dict[str, int])
    members: dict[str, Member] = field(default_factory=dict[str, Member])
    stack: "subprocess.Popen[bytes] | None" = None

    @property
    def data(self) -> Path:
        """Return the data directory."""
        return self.folder / "data"

    @property
    def trace(self) -> Path:
        """Return the trace file of the example steps."""
        return self.folder / "trace.jsonl"

    @property
    def gates(self) -> Path:
        """Return the folder of gates."""
        return self.folder / "gates"

    @property
    def urls(self) -> list[str]:
        """Return the URLs of the gateways."""
        return [f"http://127.0.0.1:{port}" for port in self.ports.values()]

    def stack_file(self) -> JsonObject:
        """Read the file that describes the running stack."""
        return as_object(load((self.data / "stack.json").read_bytes()))

    def address(self, part: str) -> str:
        """Return the address of kafka (with its login: `user:password@host:port`), postgres or redis."""
        found = str(as_object(self.stack_file()["addresses"])[part])
        return f"agentlog:{(self.data / 'broker.secret').read_text()}@{found}" if part == "kafka" else found

    def steps(self) -> list[dict[str, str]]:
        """Return the trace lines of the example steps."""
        return [json.loads(line) for line in self.trace.read_text().splitlines()] if self.trace.exists() else []

    def start(self, names: Sequence[str] = TWO_OF_EACH) -> None:
        """Start the stack, create topics and schema, and start the roles; return when all of them are ready."""
        self.gates.mkdir(exist_ok=True)
        self.stack = self._popen("stack", "serve", "stack")
        wait_until((self.data / "stack.json").exists, START_S, "the stack runs")
        for words in (["topics", "apply"], ["migrate", "up"]):
            done = subprocess.run(self._words(*words), env=self._env(), capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        for name in names:
            self.begin(name)
        for name in names:
            self.wait_ready(name)

    def begin(self, name: str) -> None:
        """Start one role."""
        role = name.partition("-")[0]
        more: list[str] = []
        if role == "gateway":
            more = ["--port", str(self.ports.setdefault(name, free_port()))]
        log = self.folder / f"{name}.log"
        before = len(log.read_text(errors="replace").splitlines()) if log.exists() else 0
        self.members[name] = Member(name, self._popen(name, "serve", role, *more), log, before)

    def wait_ready(self, name: str) -> None:
        """Wait until a role reports that it runs."""
        wait_until(partial(self._is_ready, self.members[name]), START_S, f"{name} is ready")

    def signal(self, name: str, number: signal.Signals) -> None:
        """Signal a role."""
        os.kill(self.members[name].running.pid, number)

    def kill(self, name: str) -> None:
        """SIGKILL a role."""
        self.signal(name, signal.SIGKILL)
        self.members[name].running.wait(END_S)

    def stop(self, name: str) -> float:
        """Stop a role in order; return the time in seconds. It must report a clean end."""
        began = time.monotonic()
        self.signal(name, signal.SIGTERM)
        status = self.members[name].running.wait(END_S)
        assert status == 0, f"{name} ended with {status}:\n{self.output(name)[-3000:]}"
        return time.monotonic() - began

    def restart(self, name: str) -> tuple[float, float]:
        """Restart a role in order; return the seconds until it ended, and until it was ready."""
        took, began = self.stop(name), time.monotonic()
        self.begin(name)
        self.wait_ready(name)
        return took, time.monotonic() - began

    def output(self, name: str) -> str:
        """Return the output of a part."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def rows_are_those_of_a_fresh_fold(self) -> None:
        """Fold the whole log into a shadow schema and compare it with the live rows."""
        self.rebuilt("--check")

    def rebuilt(self, *flags: str) -> str:
        """Run a complete rebuild, which must succeed; return its output."""
        words = self._words("rebuild", *flags)
        done = subprocess.run(words, env=self._env(), capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def errors(self) -> list[str]:
        """Return the product's log lines of level ERROR, of all roles; libraries may log errors after a pause."""
        found = [line for name in self.members for line in self.output(name).splitlines()]
        return [
            line for line in found if re.search(r'"level": "(error|critical)", "logger": "agentlog|^Traceback', line)
        ]

    def close(self) -> None:
        """Stop everything in order; kill processes that do not stop."""
        running = [*(member.running for member in self.members.values()), *([self.stack] if self.stack else [])]
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(END_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(END_S)

    def _is_ready(self, member: Member) -> bool:
        assert member.running.poll() is None, f"{member.name} ended:\n{self.output(member.name)[-3000:]}"
        return bool(member.lines("role.started"))

    def _words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "agentlog_infra.cli.main", *words, "--data-dir", str(self.data)]

    def _env(self) -> dict[str, str]:
        ours = ("AGENTLOG_", "DATABASE_URI", "POSTGRES_URI", "REDIS_URI")
        plain = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        mine = {
            "AGENTLOG_CONFIG": str(EXAMPLES),
            "AGENTLOG_EXAMPLE_TRACE": str(self.trace),
            "AGENTLOG_EXAMPLE_GATES": str(self.gates),
        }
        return child_environment({**plain, **mine, **SHORT, **self.settings})

    def _popen(self, name: str, *words: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                self._words(*words), stdout=log, stderr=log, env=self._env(), start_new_session=True
            )


@contextmanager
def several(names: Sequence[str] = TWO_OF_EACH, settings: Mapping[str, str] | None = None) -> Generator[Several]:
    """Run several of each role in an own folder; stop them and remove the folder at the end."""
    running = Several(open_folder(), settings or {})
    try:
        running.start(names)
        yield running
    finally:
        running.close()
        shutil.rmtree(running.folder, ignore_errors=True)


@asynccontextmanager
async def held_amid_a_batch(uri: str) -> AsyncGenerator[Callable[[], Awaitable[bool]]]:
    """Delay projectors for the length of the block, between their reads of records and the writes of rows.

    Yield a function that returns whether a projector waits there.
    """
    connection = await asyncpg.connect(uri)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE ledger.heads IN ACCESS EXCLUSIVE MODE")

            async def one_waits() -> bool:
                found: bool = await connection.fetchval(_WAITS)
                return found

            yield one_waits
    finally:
        await connection.close()
