"""A whole server with every part as its own process: each role and each of the three servers, kept running.

The log, PostgreSQL and Valkey each have an owner (`agentlog_infra.stack.stack` with the other two elsewhere). So each
can die and be restarted by its owner at once, or stay away until a test starts it again. A thread restarts ended roles,
as a service manager does.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.stack_fixtures import log_login, open_folder
from tests.system.servers import EXAMPLES, answers_ok, clean_environment, descendants, free_port, wait_until

SERVERS = ("broker", "postgres", "valkey")
ROLES = ("projector", "housekeeper", "gateway", "worker")
ADDRESSES = {"broker": "AGENTLOG_KAFKA_BOOTSTRAP", "postgres": "DATABASE_URI", "valkey": "REDIS_URI"}
IN_STACK = {"broker": "kafka", "postgres": "postgres", "valkey": "redis"}
ELSEWHERE = {"broker": "127.0.0.1:9", "postgres": "postgresql://nowhere/none", "valkey": "redis://nowhere"}
SHAPE = {"AGENTLOG_PARTITIONS": "8", "AGENTLOG_REPLICATION_FACTOR": "1", "AGENTLOG_MIN_INSYNC_REPLICAS": "1"}
SHORT_LEASES = {
    "AGENTLOG_LEASE_TTL_SECS": "1.5",
    "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "5",
}
START_S = 60.0
KEEP_EVERY_S = 0.1


@dataclass
class Process:
    """A role's process, exit statuses of earlier ones, and the start of its output in the role's log."""

    name: str
    running: "subprocess.Popen[bytes]"
    begins_at: int
    ends: list[int] = field(default_factory=list[int])


class Cluster:
    """One data directory per server, one process per role, `workers` workers; `times`: lease and check settings."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str] | None = None,
        workers: int = 2,
        times: Mapping[str, str] = SHORT_LEASES,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.trace, self.gates = folder / "trace.jsonl", folder / "gates"
        self.addresses: dict[str, str] = {}
        self._environment = {**SHAPE, **times, **(environment or {})}
        self._owners: dict[str, subprocess.Popen[bytes]] = {}
        self._roles: dict[str, Process] = {}
        self._names = [*ROLES[:-1], *(f"worker-{number}" for number in range(1, workers + 1))]
        self._guard = threading.Lock()
        self._held: set[str] = set()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Start everything and wait until the API answers."""
        self.gates.mkdir(exist_ok=True)
        self.start_servers(SERVERS)
        for words in (["topics", "apply"], ["migrate", "up"]):
            done = subprocess.run(
                [sys.executable, "-m", "agentlog_infra.cli.main", *words],
                env=self._variables(),
                capture_output=True,
                text=True,
                check=False,
                timeout=START_S,
            )
            assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        self.start_roles(self._names)
        self._keeper.start()
        self.wait_ok()

    def close(self) -> None:
        """Stop every process."""
        self._closing.set()
        if self._keeper.is_alive():
            self._keeper.join(10)
        for pid in self._all():
            _signal(pid, signal.SIGKILL)
        for process in [*self._owners.values(), *(role.running for role in self._roles.values())]:
            process.wait(20)

    def start_servers(self, names: Sequence[str]) -> None:
        """Start the owners of the servers, and wait until each reports its address."""
        for name in names:
            self._owners[name] = self._start_owner(name)
        for name in names:
            wait_until(partial(self._listens, name), START_S, f"{name} listens")
            stack = json.loads((self._data(name) / "stack.json").read_text())
            self.addresses[name] = str(stack["addresses"][IN_STACK[name]])

    def start_roles(self, names: Sequence[str]) -> None:
        """Start the roles that are not running."""
        with self._guard:
            for name in names:
                ends = self._roles[name].ends if name in self._roles else []
                begins_at = self._log_size(name)
                self._roles[name] = Process(name, self._start_role(name), begins_at, ends)

    def wait_ok(self, seconds: float = START_S) -> None:
        """Wait for 200 on /ok."""
        wait_until(self._answers, seconds, f"200 on {self.url}/ok\n{self.output()[-3000:]}")

    # ---------------------------------------------------------------- faults

    def pids(self, name: str) -> list[int]:
        """Return the processes of a role ("worker": of all workers) or of a server, without its owner."""
        if name not in SERVERS:
            with self._guard:
                return [role.running.pid for role in self._roles.values() if role.name.partition("-")[0] == name]
        return sorted(descendants(self._owners[name].pid) - {self._owners[name].pid})

    def living(self, name: str) -> list[int]:
        """Return the processes of a role or server; there must be at least one."""
        pids = [pid for pid in self.pids(name) if _state(pid) not in "ZX"]
        assert pids, f"no process of {name}"
        return pids

    def signal_role(self, name: str, number: signal.Signals) -> None:
        """Signal the processes of a role or server; its owner restarts a killed one."""
        for pid in self.living(name):
            _signal(pid, number)

    def signal_pids(self, pids: Sequence[int], number: signal.Signals) -> None:
        """Signal those of the given processes that still exist."""
        for pid in pids:
            _signal(pid, number)

    def signal_worker(self, number: int, what: signal.Signals) -> None:
        """Signal one worker."""
        _signal(self._roles[f"worker-{number}"].running.pid, what)

    def hold(self, name: str) -> None:
        """Kill a server together with its owner; it stays away until `bring_back`."""
        owner = self._owners[name]
        for pid in [owner.pid, *self.pids(name)]:
            _signal(pid, signal.SIGKILL)
        owner.wait(20)
        wait_until(lambda: not self._leftover(name), 20, f"{name} is gone")

    def stop_server(self, name: str) -> None:
        """Stop a server with its owner in order; it stays away until `bring_back`."""
        self._owners[name].send_signal(signal.SIGTERM)
        self._owners[name].wait(60)

    def bring_back(self, name: str) -> None:
        """Start a held or stopped server again at its old address."""
        before = self.addresses[name]
        self.start_servers([name])
        assert self.addresses[name] == before, f"{name} moved from {before} to {self.addresses[name]}"

    def kill_everything(self) -> None:
        """SIGKILL every process."""
        self._pause_keeper()
        for pid in self._all():
            _signal(pid, signal.SIGKILL)
        for process in [*self._owners.values(), *(role.running for role in self._roles.values())]:
            process.wait(20)
        wait_until(lambda: not any(self._leftover(name) for name in SERVERS), 20, "the servers are gone")

    def start_again(self) -> None:
        """Start every killed process again."""
        before = dict(self.addresses)
        self.start_servers(SERVERS)
        assert self.addresses == before
        self.start_roles(self._names)
        with self._guard:
            self._held.clear()
        self.wait_ok()

    def signal_all(self, number: signal.Signals) -> None:
        """Signal every process, the owners of servers included."""
        for pid in self._all():
            _signal(pid, number)

    def copy(self, name: str, to: str) -> None:
        """Copy the data of a stopped server to another folder."""
        shutil.copytree(self._data(name), self.folder / to, symlinks=True, ignore=_no_sockets, dirs_exist_ok=False)
        _same_owners(self._data(name), self.folder / to)

    def restore(self, name: str, of: str) -> None:
        """Replace a stopped server's data by a copy."""
        inner = {"broker": "broker", "postgres": "postgres", "valkey": "valkey"}[name]
        there = self._data(name) / inner
        shutil.rmtree(there)
        shutil.copytree(self.folder / of / inner, there, symlinks=True)
        _same_owners(self.folder / of / inner, there)

    # ------------------------------------------------------------ observations

    @property
    def kafka(self) -> str:
        """Return the address of the log, with its login: `user:password@host:port`."""
        secret = (self._data("broker") / "broker.secret").read_text()
        return f"agentlog:{secret}@{self.addresses['broker']}"

    @property
    def postgres(self) -> str:
        """Return the address of the database."""
        return self.addresses["postgres"]

    @property
    def redis(self) -> str:
        """Return the address of the queue."""
        return self.addresses["valkey"]

    def steps(self) -> list[dict[str, str]]:
        """Return the lines that the example steps wrote."""
        return [json.loads(line) for line in self.trace.read_text().splitlines()] if self.trace.exists() else []

    def output(self, name: str = "") -> str:
        """Return the output of a part, or of all parts."""
        paths = sorted(self.folder.glob(f"{name or '*'}.log"))
        return "\n".join(f"== {path.stem}\n{path.read_text(errors='replace')}" for path in paths)

    def settled(self) -> bool:
        """Return whether every role runs and has reported it since its last start."""
        with self._guard:
            found = [(role, (self.folder / f"{role.name}.log").read_bytes()) for role in self._roles.values()]
            return all(b"role.started" in said[role.begins_at :] for role, said in found)

    def ends(self) -> dict[str, list[int]]:
        """Return role -> exit statuses of its earlier processes, killed ones included."""
        return {role.name: list(role.ends) for role in self._roles.values()}

    def run(self, *words: str, seconds: float = 120) -> "subprocess.CompletedProcess[str]":
        """Run a subcommand of the command line against this server."""
        line = [sys.executable, "-m", "agentlog_infra.cli.main", *words]
        return subprocess.run(line, env=self._variables(), capture_output=True, text=True, check=False, timeout=seconds)

    # ----------------------------------------------------------------- inside

    def _data(self, name: str) -> Path:
        return self.folder / f"data-{name}"

    def _log_size(self, name: str) -> int:
        path = self.folder / f"{name}.log"
        return path.stat().st_size if path.exists() else 0

    def _variables(self) -> dict[str, str]:
        mine = {
            "AGENTLOG_EXAMPLE_TRACE": str(self.trace),
            "AGENTLOG_EXAMPLE_GATES": str(self.gates),
            "AGENTLOG_CONFIG": str(EXAMPLES),
            "AGENTLOG_PORT": str(self.port),
            "AGENTLOG_DATA_DIR": str(self.folder / "data-none"),
        }
        places = {ADDRESSES[name]: address for name, address in self.addresses.items()}
        return clean_environment({**mine, **places, **log_login(self._data("broker")), **self._environment})

    def _start_owner(self, name: str) -> "subprocess.Popen[bytes]":
        others = {ADDRESSES[other]: ELSEWHERE[other] for other in SERVERS if other != name}
        (self._data(name) / "stack.json").unlink(missing_ok=True)
        words = ["-m", "agentlog_infra.stack.stack", "--data-dir", str(self._data(name))]
        return self._popen(name, words, clean_environment(others))

    def _start_role(self, name: str) -> "subprocess.Popen[bytes]":
        return self._popen(name, ["-m", "agentlog_infra.cli.main", "serve", name.partition("-")[0]], self._variables())

    def _popen(self, name: str, words: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *words], stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def _keep(self) -> None:
        """Restart ended roles, as a service manager does."""
        while not self._closing.wait(KEEP_EVERY_S):
            with self._guard:
                for name, role in self._roles.items():
                    status = role.running.poll()
                    if status is not None and name not in self._held:
                        role.ends.append(status)
                        role.begins_at = self._log_size(name)
                        role.running = self._start_role(name)

    def _pause_keeper(self) -> None:
        with self._guard:
            self._held.update(self._names)

    def _all(self) -> Iterator[int]:
        for owner in self._owners.values():
            yield from descendants(owner.pid)
        with self._guard:
            yield from [role.running.pid for role in self._roles.values()]

    def _leftover(self, name: str) -> list[int]:
        """Return the processes that use the data of a server."""
        data = str(self._data(name))
        found: list[int] = []
        for path in Path("/proc").iterdir():
            if path.name.isdigit() and int(path.name) != os.getpid():
                try:
                    line = (path / "cmdline").read_bytes().decode(errors="replace")
                except OSError:
                    continue
                if data in line and _state(int(path.name)) not in "ZX":
                    found.append(int(path.name))
        return found

    def _listens(self, name: str) -> bool:
        owner = self._owners[name]
        assert owner.poll() is None, f"{name} ended:\n{self.output(name)[-3000:]}"
        return (self._data(name) / "stack.json").exists()

    def _answers(self) -> bool:
        return answers_ok(self.port)


def _no_sockets(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if (Path(folder) / name).is_socket() or name == "run"}


def _same_owners(source: Path, target: Path) -> None:
    """Set the owner of each copy to that of its original."""
    for path in [source, *source.rglob("*")]:
        copy = target / path.relative_to(source)
        if copy.exists() and os.geteuid() == 0:
            found = path.lstat()
            os.chown(copy, found.st_uid, found.st_gid, follow_symlinks=False)


def _state(pid: int) -> str:
    """Return the state of a process in Linux terms, "X" if it does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it died meanwhile, with its parent


@contextmanager
def running_cluster(
    environment: dict[str, str] | None = None, workers: int = 2, times: Mapping[str, str] = SHORT_LEASES
) -> Generator[Cluster]:
    """Start all parts in an own folder; stop them and remove the folder at the end."""
    cluster = Cluster(open_folder(), environment, workers, times)
    try:
        began = time.monotonic()
        cluster.start()
        print(f"the cluster runs after {time.monotonic() - began:.1f} s")
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(cluster.folder, ignore_errors=True)
