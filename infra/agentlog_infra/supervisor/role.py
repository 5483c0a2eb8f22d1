"""One supervised role process: start, readiness, restart after a crash, orderly stop."""

import asyncio
import contextlib
import json
import logging
import signal
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentlog_facts.errors import AgentlogError, Misconfigured, Unavailable
from agentlog_infra import timeouts
from agentlog_infra.process.child import (
    Running,
    identify,
    recall,
    remember,
    signal_child,
    stop_child,
    stop_orphan,
)
from agentlog_infra.process.exit_status import EXIT_LEFT, EXIT_MISCONFIGURED, EXIT_REPLACE
from agentlog_infra.process.ready_pipe import ReadyPipe
from agentlog_infra.process.restart_budget import RestartBudget
from agentlog_infra.supervisor.forkserver import ForkServer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """A process to run: `module` with `arguments`; one that executes runs gets a new worker id at each start.

    `preload` is imported once, by the fork server. A `temporary` role ends by itself, with status EXIT_LEFT.
    """

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    executes_runs: bool = False
    stop_secs: float = 10.0
    loads_graphs: bool = False
    preload: str | None = None
    temporary: bool = False


class RoleCrashes(AgentlogError):
    """A role keeps crashing, because of a defect or a lost dependency; its log lines give the reason."""

    code = "role_crashes"


DeathHook = Callable[[str], Awaitable[None]]
"""Called with the id of a worker that ended without giving its runs back."""


async def _no_hook(worker_id: str) -> None:
    raise Unavailable(f"worker {worker_id} died before its death could be reported")


def endless_budget(spec: RoleSpec) -> RestartBudget:
    """Return the budget of a role that runs user code, once it was ready: user code may end it, so it is never full."""
    longest_s = timeouts.SPARE_LONGEST_PAUSE_S if spec.temporary else timeouts.RESTART_LONGEST_PAUSE_S
    return RestartBudget(limit=None, longest_pause_secs=longest_s)


class Role:
    """Supervises one role process.

    `budget` limits its restarts. A role that runs user code (a worker, and the gateway, which reads states through
    graphs) is restarted for ever once it was ready: user code may end it, and the rest of the server must stay up.
    """

    def __init__(self, spec: RoleSpec, forkserver: ForkServer, notes: Path, budget: RestartBudget) -> None:
        self.spec = spec
        self._forkserver = forkserver
        self._environment: Mapping[str, str] = {}
        self._note = notes / f"role-{spec.name.replace(',', '-')}.json"
        self._on_worker_death: DeathHook = _no_hook
        self._budget = budget
        self._endless: RestartBudget | None = None
        self._process: Running | None = None
        self._worker_id = self._error = ""
        self._stopping = self._replacing = self._replaced = self._was_ready = False
        self._ready = asyncio.Event()
        self._settled = asyncio.Event()  # ready, or broken by a change and waiting for the next one
        self._changed = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Return the pid of the running process, None between two processes."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    async def wait_ready(self) -> None:
        """Wait until the role has reported that it is ready, since its last restart."""
        await self._ready.wait()

    async def run(self, environment: Mapping[str, str], on_worker_death: DeathHook) -> None:
        """Run the role with these variables, and restart it until `stop`; a temporary one until it ends by itself.

        Raises: Misconfigured if it reports that it cannot run, RoleCrashes if it dies too often, Unavailable if it does
        not become ready.
        """
        self._environment, self._on_worker_death = environment, on_worker_death
        try:
            while not self._stopping:
                status = await self._run_once()
                if self._stopping or (self._has_left(status) and not self._replacing):
                    return
                if not self._replacing:
                    await self._after_death(status)
                self._replaced, self._replacing = self._replacing, False
        finally:
            self._settled.set()

    async def restart(self) -> None:
        """Replace the process by a new one (changed graphs); return when that is ready or cannot run.

        If it cannot run, the reason is on stderr, and the role waits for the next change.
        """
        self._settled.clear()
        self._replacing = True
        self._changed.set()
        await self._end()
        await self._settled.wait()

    async def stop(self) -> None:
        """Send SIGTERM and wait for the end of the process; after its stop time, kill it."""
        self._stopping = True
        await self._end()

    async def _end(self) -> None:
        if self._process is not None:
            await stop_child(self._process, ((signal.SIGTERM, self.spec.stop_secs),))

    def kill(self) -> None:
        """Kill the process."""
        self._stopping = True
        if self._process is not None:
            signal_child(self._process, signal.SIGKILL)

    async def _run_once(self) -> int:
        try:
            await self._start()
            status = await self._running().wait()
        except BaseException:
            if self._process is not None:
                await stop_child(self._process, ())
            raise
        finally:
            self._ready.clear()
        self._note.unlink(missing_ok=True)
        stopped = status == 0 and (self._stopping or self._replacing)
        if self.spec.executes_runs and not (stopped or self._has_left(status)):
            await self._on_worker_death(self._worker_id)
        return status

    def _has_left(self, status: int) -> bool:
        return self.spec.temporary and status == EXIT_LEFT

    async def _start(self) -> None:
        """Start the process and wait for its ready line. If it ends before, the caller sees its exit status."""
        self._worker_id = uuid.uuid4().hex if self.spec.executes_runs else ""
        self._was_ready = False
        extra = {"AGENTLOG_WORKER_ID": self._worker_id} if self._worker_id else {}
        with ReadyPipe() as ready:
            self._process = process = await self._forkserver.fork(
                self.spec.module, self.spec.arguments, {**self._environment, **extra}, ready.child_end
            )
            ready.started()
            self._remember(process.pid)
            try:
                async with asyncio.timeout(timeouts.ROLE_START_S):
                    report = await ready.line()
            except TimeoutError as error:
                if self._endless is not None:
                    log.error("role.not_ready", extra={"role": self.spec.name, "pid": process.pid})
                    signal_child(process, signal.SIGKILL)
                    return
                raise Unavailable(f"{self.spec.name} was not ready within {timeouts.ROLE_START_S:.0f} s") from error
        self._error = str(report.get("error", ""))
        if report and not self._error:
            log.info("role.ready", extra={"role": self.spec.name, "pid": process.pid})
            self._was_ready = True
            self._ready.set()
            self._settled.set()
            if (self.spec.executes_runs or self.spec.loads_graphs) and self._endless is None:
                self._endless = endless_budget(self.spec)

    async def _after_death(self, status: int) -> None:
        misconfigured = status == EXIT_MISCONFIGURED and not self._was_ready
        if misconfigured and self._replaced:
            await self._wait_for_change()
            return
        if misconfigured and self._endless is None:
            why = self._error or "its message is printed above"
            raise Misconfigured(f"{self.spec.name} cannot run with this configuration\n{why}")
        if status == EXIT_REPLACE:
            log.warning("role.replaced", extra={"role": self.spec.name})
            return
        delay_secs = (self._endless or self._budget).next_delay_secs()
        log.error("role.died", extra={"role": self.spec.name, "status": status, "again_in_secs": delay_secs})
        if delay_secs is None:
            raise RoleCrashes(f"{self.spec.name} keeps crashing (last exit status {status})")
        await asyncio.sleep(delay_secs)

    async def _wait_for_change(self) -> None:
        log.error("role.broken_by_change", extra={"role": self.spec.name})
        self._changed.clear()
        self._settled.set()
        await self._changed.wait()

    def _remember(self, pid: int) -> None:
        started = identify(pid)
        if started is not None:
            remember(self._note, started, worker_id=self._worker_id)

    def _running(self) -> Running:
        if self._process is None:
            raise Unavailable(f"{self.spec.name} is not running")
        return self._process


async def end_old_roles(notes: Path) -> list[str]:
    """Kill role processes of an earlier start whose supervisor was killed; return the ids of the workers among them."""
    workers: list[str] = []
    for note in await asyncio.to_thread(_old_notes, notes):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found = json.loads(note.read_text())
            old = recall(note)  # None for a note that was copied with its data directory: that process is not ours
            if old is not None and not await stop_orphan(old, ((signal.SIGKILL, timeouts.OLD_ROLE_STOP_S),)):
                raise Unavailable(f"process {old.pid} of an earlier start does not exit; kill it yourself")
            workers += [str(found["worker_id"])] if found["worker_id"] else []
        note.unlink(missing_ok=True)
    return workers


def _old_notes(notes: Path) -> list[Path]:
    return sorted(notes.glob("role-*.json"))
